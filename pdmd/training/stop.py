"""Being told to stop: SIGTERM or SIGUSR1 lets the present update end, then the run saves."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
STATUS = 128 + signal.SIGTERM  # the exit status of a run that was told to stop and has saved


_own = False  # whether this process runs one command and ends


def own_process() -> None:
    """Say that this process runs one command and ends."""
    global _own
    _own = True


def finish() -> None:
    """All is written: a stop signal on the way to the exit changes nothing any more.

    The exit status would else say that the job failed, and its results would be dropped. Only in a
    process of its own, whose handlers nobody needs again.
    """
    if _own and threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


class Stopped(Exception):
    """The run has saved because it was told to stop; the message is for people, "" for none."""


class Listener:
    """Notes the first stop signal inside a `with` block; later ones change nothing.

    Outside the main thread, where Python cannot, it notes nothing.  Afterwards the handlers are
    what they were, except when the block is left by `Stopped`: the process is about to end with
    STATUS, and a further signal must not change that.

    Attributes:
        received: number of the signal, 0 for none.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Listener:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            before = signal.SIG_DFL if handler is None else handler
            if signal.getsignal(number) == self._note:  # not where `finish` came between
                signal.signal(number, signal.SIG_IGN if isinstance(error, Stopped) else before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
