"""Prints the messages of commands. Text from models, banks and files never controls the terminal.

`say` prints lines, `warn` and `complain` print a message on standard error. Tables are printed by
`terminal.py`. `show_controls` covers what others print: log messages, warnings, tracebacks.
"""

import contextlib
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from tidy_stlms.configs.errors import one_line
from tidy_stlms.configs.printable import printable

MESSAGE_LIMIT = 1000  # characters of a message
HIDDEN_BEFORE = "\nDuring handling of the above exception, another exception occurred:\n\n"
CAUSE_BEFORE = "\nThe above exception was the direct cause of the following exception:\n\n"


def say(text: str, *, end: str = "\n") -> None:
    """Print text on standard output. In JSON the escapes of `printable` stand for the same value."""
    print(printable(text), end=end)


def warn(text: str) -> None:
    print(f"stlm: warning: {one_line(text, MESSAGE_LIMIT)}", file=sys.stderr)


def complain(text: str, command: str = "") -> None:
    """Print an error in one line. A `command` that helps follows on the next line."""
    print(f"stlm: error: {one_line(text, MESSAGE_LIMIT)}{printable(command)}", file=sys.stderr)


def whole_traceback(error: BaseException) -> str:
    """The traceback with everything that led to the error, also what `from None` hides."""
    return printable("".join(_tracebacks(error, set())))


def _tracebacks(error: BaseException, seen: set[int]) -> list[str]:
    seen.add(id(error))
    parts: list[str] = []
    for before in (error.__context__, error.__cause__):
        if before is not None and id(before) not in seen:
            words = CAUSE_BEFORE if before is error.__cause__ else HIDDEN_BEFORE
            parts += [*_tracebacks(before, seen), words]
    return [*parts, *traceback.format_exception(error, chain=False)]


class TerminalRecord(logging.LogRecord):
    """A log message, `printable`. One of this project is a line of at most `MESSAGE_LIMIT` characters."""

    def getMessage(self) -> str:
        message = super().getMessage()
        is_ours = self.name.partition(".")[0] in ("tidy_stlms", "modeling_stlm")
        return one_line(message, MESSAGE_LIMIT) if is_ours and message else printable(message)


class WholeTracebacks(logging.Formatter):
    """For `--debug`: shows the whole traceback of errors after which a command goes on, too."""

    def formatException(self, ei: Any) -> str:
        return whole_traceback(ei[1])


def show_controls() -> None:
    """Show control characters in log messages, warnings and tracebacks, whichever library they come from."""
    logging.setLogRecordFactory(TerminalRecord)
    warnings.formatwarning = _warning
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _defect


@contextlib.contextmanager
def debug_logs(debug: bool) -> Iterator[None]:
    """With `debug`, print all log messages of this project inside the block, with whole tracebacks."""
    logger = logging.getLogger("tidy_stlms")
    if not debug:
        yield
        return
    handler, level, propagate = logging.StreamHandler(), logger.level, logger.propagate
    handler.setFormatter(WholeTracebacks("%(levelname)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"{filename}:{lineno}: {category.__name__}: {one_line(message, MESSAGE_LIMIT)}\n"


def _defect(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of a defect, as Python does."""
    print(printable("".join(traceback.format_exception(error))), end="", file=sys.stderr)
