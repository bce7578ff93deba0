"""The one exception for what a user can put right."""


class UserError(Exception):
    """A user's mistake: one line that names the key or the file and says what to do.

    Entry points print the line and exit with code 2, without a traceback.
    """
