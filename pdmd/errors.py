"""Mistakes a user can mend; the command line prints them as one line."""


class UserError(Exception):
    """Bad input: the message names the key or file, the value and what was expected."""
