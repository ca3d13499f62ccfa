"""How a command ends: its exit status, and one line on stderr where a person can mend it."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from pdmd.errors import UserError
from pdmd.files.storage import shown
from pdmd.training.agent import leave_word
from pdmd.training.stop import STATUS, Stopped

MISTAKE = 2
INTERRUPTED = 128 + signal.SIGINT  # what a shell calls a command that Ctrl-C ended
UNREAD = 128 + signal.SIGPIPE  # nobody reads what it prints
STOPPED = "stopped: started again it goes on, training from its last checkpoint"
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE}
FITS = "expected what fits: `pdmd plan` names settings that need less"
EXPECTED = "expected room, and the right, to read and write there"


def conclude(run: Callable[[], int | None]) -> int:
    """Run a command; returns its exit status.

    A user's mistake, a disk that is full or may not be written, and Ctrl-C are one line on stderr;
    training that was told to stop, and has saved, is one line and exit status 143. Anything else is
    a fault of the program, which keeps its traceback. A process of several leaves its word to who
    started it instead.
    """
    with _noting_ctrl_c() as pressed:
        try:
            status = run() or 0
            sys.stdout.flush()
            return status
        except UserError as error:
            return _last_word(str(error), error, INTERRUPTED if pressed else MISTAKE)
        except Stopped as stop:
            return _last_word(str(stop), None, STATUS)
        except (Exception, KeyboardInterrupt) as error:
            if pressed or isinstance(error, KeyboardInterrupt):
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
                return _last_word(STOPPED, error, INTERRUPTED)
            if type(error).__name__ == "OutOfMemoryError":  # torch's, which may not be imported
                return _last_word(f"{_sentence(error)}: {FITS}", error, MISTAKE)
            if isinstance(error, OSError) and error.filename is not None:
                return _last_word(f"{error.filename}: {shown(error)}: {EXPECTED}", error, MISTAKE)
            if isinstance(error, OSError) and _is_of_stdout():
                unread = isinstance(error, BrokenPipeError)
                text = "" if unread else f"standard output: {shown(error)}: {EXPECTED}"
                return _last_word(text, error, UNREAD if unread else MISTAKE)
            if isinstance(error, OSError) and error.errno in DISK:
                return _last_word(f"a file of this job: {shown(error)}: {EXPECTED}", error, MISTAKE)
            if not _left(traceback.format_exc(), error):
                raise
            return 1


@contextmanager
def _noting_ctrl_c() -> Iterator[list[int]]:
    """Yield a list that Ctrl-C fills: extension modules turn what it raises into other errors.

    While modules are imported some of them ignore it, even; nothing is done yet, so it ends there.
    """
    pressed: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        if _imports(frame):
            os._exit(_last_word(STOPPED, KeyboardInterrupt(), INTERRUPTED))
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    is_pythons = before is signal.default_int_handler  # else it is ignored, or somebody's
    is_pythons = is_pythons and threading.current_thread() is threading.main_thread()
    if is_pythons:
        signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        if is_pythons:
            signal.signal(signal.SIGINT, before)


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _sentence(error: BaseException) -> str:
    """What was asked for and what there is, without what is reserved and the advice behind it."""
    text = " ".join(str(error).split())
    return text.partition(" Of the allocated memory")[0].rstrip(".")


def _last_word(text: str, error: BaseException | None, status: int) -> int:
    """Say in one line how it ended; returns the exit status."""
    line = f"pdmd: {' '.join(text.splitlines())}"
    if text and not (error is not None and _left(line, error)):
        with suppress(OSError):  # stderr may be full, too
            print(line, file=sys.stderr, flush=True)
    return status


def _left(text: str, error: BaseException) -> bool:
    """Leave word for who started this process, if there is one, and room for it."""
    try:
        return leave_word(text, error)
    except OSError:
        return False


def _is_of_stdout() -> bool:
    """Whether standard output takes no more; what is left for it is dropped then."""
    try:
        print(flush=True)  # unbuffered, the line that failed is gone: only another one tells
        return False
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
