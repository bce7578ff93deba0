"""Turns all errors of a full disk, from any library, into one that names the file and the free space."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tidy_stlms.configs.errors import DiskFull, UserError
from tidy_stlms.configs.temporary import final_path

FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Words in errors of libraries that give no error number, and the reason to report
FULL_WORDS = {
    **{os.strerror(number): os.strerror(number) for number in FULL_ERRNOS},  # safetensors, tokenizers
    "PytorchStreamWriter failed writing": "not all of it could be written",
    "unexpected pos ": "not all of it could be written",  # torch too
    "iostream error": "not all of it could be written",
    "Not enough disk space": os.strerror(errno.ENOSPC),  # datasets, before it writes
    "No usable temporary directory": "no folder for temporary files has room",
}


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Raise DiskFull for the errors of a full disk inside the block, naming `path`.

    If the error names a file outside `path`, the message names that file. Final names replace temporary ones.
    """
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        reason = full_disk_reason(error)
        if reason is None:
            raise
        file = _file_of(error)
        inside = file is None or file.absolute().is_relative_to(Path(path).absolute())
        final = final_path(Path(path) if file is None or inside else file)
        raise DiskFull(f"{final}: {reason} ({free_space(final)})") from error


def full_disk_reason(error: BaseException) -> str | None:
    """Why there was no room (disk, quota or limit of file sizes), from an error or its causes.

    None for any other error.
    """
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in FULL_ERRNOS:
            return os.strerror(cause.errno)
        if not isinstance(cause, UserError):  # a message of ours may quote such words
            reason = next((reason for words, reason in FULL_WORDS.items() if words in str(cause)), None)
            if reason is not None:
                return reason
    return None


def free_space(path: Path) -> str:
    """`12.3 MB free in FOLDER`, for the nearest existing folder at or above `path`."""
    folder = next(parent for parent in (path, *path.parents) if parent.is_dir())
    free = shutil.disk_usage(folder).free
    amount = f"{free / 1e9:,.1f} GB" if free >= 1e9 else f"{free / 1e6:.1f} MB"
    return f"{amount} free in {folder}"


def _file_of(error: BaseException) -> Path | None:
    """The file that the error of the full disk names, if it names any."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in FULL_ERRNOS and isinstance(cause.filename, str):
            return Path(cause.filename)
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it. An error that is raised again can be among its own causes."""
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        yield cause
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
