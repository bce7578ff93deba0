"""The exceptions that entry points turn into one line, and hints for their messages."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A user's mistake: one line that names the key or the file and says what to do.

    Entry points print the line and exit with code 2, without a traceback.
    """

    is_told = False
    """Whether another process, in which it was raised, prints it."""


class RunFailed(Exception):
    """A run that failed after its start. What it saved before is complete.

    Entry points print the line and exit with code 1, without a traceback.
    """

    is_told = False
    """As for UserError."""


class DiskFull(RunFailed):
    """No room for a file. `full_disk.writing` raises it, with the file and the free space."""

    remedy = "run the command again"
    """What to do once there is room; the last part of the message."""
    resumable = False
    """Whether there is a run, by then, that can be gone on with."""


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known word most like `word`; None if their similarity, from 0 to 1, is below `cutoff`."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return matches[0] if matches else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ ", did you mean 'x'?" for the nearest known word, or nothing where none is near."""
    near = nearest(word, known)
    return f", did you mean {near!r}?" if near else ""
