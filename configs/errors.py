"""Exceptions that entry points show as one line, and helpers for the text of messages."""

import difflib
from collections.abc import Iterable

from tidy_stlms.configs.printable import printable

CLOSING = "'\")]}>"  # the last character of a value that Python writes between two signs


class UserError(Exception):
    """A user's mistake: one line that names the key or the file and says what to do.

    Entry points print the line and exit with code 2, without a traceback.
    """

    is_told = False
    """Whether another process has raised it and prints it."""


class RunFailed(Exception):
    """A run that failed after its start. The files that it saved before are complete.

    Entry points print the line and exit with code 1, without a traceback.
    """

    is_told = False
    """As for UserError."""


class DiskFull(RunFailed):
    """No room for a file. `full_disk.writing` raises it, with the file and the free space."""

    remedy = "run the command again"
    """What to do when there is room again; the last part of the message."""
    resumable = False
    """Whether the command has laid out a run, which can then be resumed."""


def one_line(error: object, limit: int | None = None) -> str:
    """The text of an error on one line, `printable`, or its type if it has no text.

    A text of more than `limit` characters is cut after a word and ends in ` ...`.
    """
    text = printable(" ".join(str(error).split())) or type(error).__name__
    return text if limit is None or len(text) <= limit else text[:limit].rsplit(" ", 1)[0] + " ..."


def shown(value: object) -> str:
    """A value in a message, as Python writes it; null for None.

    After 60 characters it is cut, and ends in an ellipsis and its closing quote or bracket: `'abc...'`.
    """
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}...{text[-1] if text[-1] in CLOSING else ''}"


def first_line(error: object) -> str:
    """The first line of an error's text, or its type if it has no text. Libraries add details below it."""
    return printable((str(error).strip() or type(error).__name__).splitlines()[0])


def counted(number: int, one: str, several: str) -> str:
    """The number with the words for it: `counted(n, "probe has", "probes have")`."""
    return f"{number:,} {one if number == 1 else several}"


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known word most like `word`; None if their similarity, from 0 to 1, is below `cutoff`."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return matches[0] if matches else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ ", did you mean 'x'?" with the nearest known word; empty if none is near."""
    near = nearest(word, known)
    return f", did you mean {near!r}?" if near else ""
