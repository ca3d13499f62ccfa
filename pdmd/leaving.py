"""How a process of this package leaves, whatever threads libraries still have."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import NoReturn


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
