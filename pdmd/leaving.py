"""How a process leaves: by itself, whatever threads libraries still have, or with its parent."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

PR_SET_PDEATHSIG = 1


def stopped() -> int:
    """Say that Ctrl-C ended a command that had not begun; its exit status."""
    print("pdmd: stopped", file=sys.stderr)
    return 128 + signal.SIGINT


def leave(status: int) -> NoReturn:
    """End this process with an exit status, without taking the interpreter down.

    All that was asked to run at exit has run, and is flushed. What is left are threads of
    libraries, as of a process group that one of torch's caches holds: one that wants the
    interpreter while it is taken down aborts a process whose work is done.
    """
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # waits for what is no daemon
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):  # full, closed or none
                stream.flush()
    finally:
        os._exit(status)


def dying_with_parent(number: int) -> Callable[[], None]:
    """A call after which Linux sends this process a signal when its parent is killed."""
    libc = ctypes.CDLL(None)  # loaded here: what runs between fork and exec may not load
    return lambda: libc.prctl(PR_SET_PDEATHSIG, number)
