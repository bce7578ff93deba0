"""Turns whatever a library raises about a user's file into one line that names the file.

    with reading("model gpt2"):
        config = AutoConfig.from_pretrained("gpt2")

A file can be wrong in more ways than a library checks: a list where its code expects a number ends in a
TypeError deep inside it. So every error inside the block counts as a mistake in the file. Put only calls of
libraries into the block: an error of our own code needs its traceback.
"""

import contextlib
import json
from collections.abc import Callable, Iterator

from tidy_stlms.configs.errors import RunFailed, UserError, one_line
from tidy_stlms.configs.full_disk import full_disk_reason

REASON_LIMIT = 200  # characters of a library's message
PANIC = "PanicException"  # of libraries in Rust, such as tokenizers; it is no Exception


@contextlib.contextmanager
def reading(
    what: object, remedy: str = "", *, passes: Callable[[Exception], bool] = lambda error: False
) -> Iterator[None]:
    """Raise UserError, `what: reason` and then `remedy`, for any error inside the block.

    Our own errors for users, those of a full disk, and those for which `passes` is true pass unchanged.
    """
    try:
        yield
    except (UserError, RunFailed):
        raise
    except BaseException as error:
        if not isinstance(error, Exception):
            if type(error).__name__ != PANIC:
                raise
        elif full_disk_reason(error) is not None or passes(error):
            raise
        raise UserError(f"{what}: {reason_of(error)}{remedy}") from error


def reason_of(error: BaseException) -> str:
    """A library's error in one line of at most `REASON_LIMIT` characters and an ellipsis."""
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    if "integer string conversion" in str(error):  # Python's advice is for programmers
        return "a number has too many digits"
    if type(error).__name__.startswith("StrictDataclass") and error.__cause__ is not None:
        return reason_of(error.__cause__)  # a config's own words; around them are only names of classes
    if isinstance(error, MemoryError):
        return "does not fit into memory"
    if "trust_remote_code" in str(error):
        return "it needs its own code: read that, and pass --trust-remote-code if you trust it"
    if "weights_only" in str(error):  # torch's own message advises to run what is in the file
        return "a pickle that holds more than weights, or is damaged; it was refused and not run"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"it needs the Python package {error.name}, which is not installed"
    if isinstance(error, json.JSONDecodeError):
        line = f"line {error.lineno}, " if "\n" in error.doc.strip() else ""
        return f"{error.msg} ({line}column {error.colno})"
    if isinstance(error, KeyError) and " " not in str(error):  # the bare key
        return f"{one_line(error, REASON_LIMIT)} is missing or unknown"
    return one_line(error, REASON_LIMIT)
