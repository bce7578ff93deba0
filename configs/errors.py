"""The exceptions that entry points turn into one line."""


class UserError(Exception):
    """A user's mistake: one line that names the key or the file and says what to do.

    Entry points print the line and exit with code 2, without a traceback.
    """


class RunFailed(Exception):
    """Work that failed on the way, with what was reached before still whole: one line, exit code 1."""
