"""Which Snakemake of ours runs in a folder, and the locks that a killed one left there."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pdmd.errors import UserError
from pdmd.files.storage import read_json, write_json

LOCKS = Path(".snakemake/locks")


def snakemake_command(arguments: Sequence[str]) -> list[str]:
    """Snakemake of this very environment."""
    return [sys.executable, "-m", "snakemake", *arguments]


class Claim:
    """Which Snakemake of ours runs here, and which locks it took, for the demo that comes next.

    A lock is cleared only where it is the very one that a Snakemake of ours took, which has ended:
    process ids come round again, and others may lock the same folder meanwhile.
    """

    def __init__(self, path: Path, locks: Path = LOCKS):
        self.path, self.locks = path, locks
        self._pid = 0
        self._noted: dict[str, Any] = {}

    def __enter__(self) -> Claim:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._held = self.path.with_suffix(".lock").open("a")
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._held.close()
            raise UserError(
                f"{self.path.parent.parent}: another demo runs here: wait for it or end it"
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        # What is there may tell of another's, or of ours that outlives this demo.
        if self._noted and not identity(self._pid)["start"]:
            self.path.unlink(missing_ok=True)
        self._held.close()

    def note(self, pid: int | None = None) -> None:
        """Keep who runs, and the locks as they are now; nothing is written where that is known."""
        self._pid = pid or self._pid
        value = {**identity(self._pid), "locks": _stamps(self.locks)}
        if value != self._noted:
            write_json(self.path, value)
            self._noted = value

    def unlock(self, arguments: Sequence[str]) -> None:
        """Clear the locks that a killed Snakemake of ours left behind.

        Raises:
            UserError: it still runs.
        """
        if not self.path.exists():
            return
        try:
            left = read_json(self.path)
            pid, locks, host, _ = int(left["pid"]), left["locks"], left["host"], left["start"]
        except (UserError, TypeError, KeyError, ValueError):
            return  # torn: Snakemake itself says that the folder is locked, and what to do
        if left["start"] and left == {**identity(pid), "locks": locks}:
            raise UserError(f"process {pid} still runs this workflow: wait for it or end it")
        if host == socket.gethostname() and locks and locks == _stamps(self.locks):
            command = snakemake_command(["--unlock", *arguments])
            subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)


def identity(pid: int) -> dict[str, Any]:
    """A process, told apart from a later one of the same number; start 0 if it has ended."""
    try:
        state, *rest = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        )
        start = 0 if state == "Z" else int(rest[18])
    except (OSError, ValueError, IndexError):
        start = 0
    return {"pid": pid, "start": start, "host": socket.gethostname()}


def _stamps(locks: Path) -> dict[str, list[int]]:
    """Snakemake's lock files, each with what tells it from a later one of the same name."""
    stamps = {}
    for path in sorted(locks.glob("*.lock")):
        with contextlib.suppress(OSError):  # it went at this moment
            stamps[path.name] = [path.stat().st_ino, path.stat().st_mtime_ns]
    return stamps
