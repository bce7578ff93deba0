"""The exceptions that entry points turn into one line, and the texts of others, shortened to one."""


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


def one_line(error: object, limit: int | None = None) -> str:
    """The text of an error on one line, or its type where it has none.

    With a `limit` of characters, a longer text is cut after a word and ends in ` ...`.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if limit is None or len(text) <= limit else text[:limit].rsplit(" ", 1)[0] + " ..."


def first_line(error: object) -> str:
    """The first line of an error's text, for libraries that add details below; its type without text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
