"""Mistakes a user can mend; the command line prints them as one line."""


class UserError(Exception):
    """Bad input: the message names the key or file, the value and what was expected."""


class PeerLost(RuntimeError):
    """Another process of the job has ended or does not answer; it knows why, this one does not."""
