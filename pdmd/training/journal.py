"""The state folder of a training job: its log, its progress for watchers, its snapshots."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from pdmd.errors import UserError
from pdmd.files.storage import save_tensors, sha256, write_text
from pdmd.training.checkpoint import (
    Refused,
    check_file,
    drop,
    make_folder,
    make_way,
)


def slurm_job() -> str | None:
    """The Slurm job that this process belongs to: `id`, `id_task` in an array, None outside."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


class Journal:
    """The state folder of a job: its log, its progress for watchers, its snapshots.

    A checkpoint relies on the log and the snapshots up to its step; it keeps their digests, and is
    refused where they are not there as they were.

    Args:
        snapshots: the steps after which one is kept.
    """

    NOTHING: ClassVar[dict[str, Any]] = {"log": {"bytes": 0}, "snapshots": {}}  # of a new job

    def __init__(
        self,
        folder: Path,
        label: str,
        updates: int,
        fingerprint: str,
        processes: int = 1,
        snapshots: Sequence[int] = (),
    ):
        self.folder, self.label, self.updates = folder, label, updates
        self.fingerprint, self.processes, self.snapshots = fingerprint, processes, snapshots
        make_folder(folder)
        self.path = folder / "stats.jsonl"
        self.records: list[dict[str, Any]] = []
        self.size, self.digest = 0, hashlib.sha256()  # of the log, in bytes
        self.made: dict[int, str] = {}  # digests of the snapshots so far
        self.started, self.first = time.time(), -1

    def state(self) -> dict[str, Any]:
        """What a checkpoint made now relies on."""
        log = {"bytes": self.size, "sha256": self.digest.hexdigest()}
        return {"log": log, "snapshots": {str(step): digest for step, digest in self.made.items()}}

    def check(self, step: int, state: Mapping[str, Any]) -> None:
        """Refuse a checkpoint after `step` whose log or snapshots are not there. Raises Refused."""
        wanted = {str(number) for number in self.snapshots if number <= step}
        if wanted != state["snapshots"].keys():
            raise Refused(f"{self.folder}: snapshots: expected those of updates {sorted(wanted)}")
        for number, digest in state["snapshots"].items():
            check_file(self.snapshot(int(number)), digest)
        text, log = self._head(state["log"]["bytes"]), state["log"]
        if hashlib.sha256(text).hexdigest() != log["sha256"]:
            raise Refused(f"{self.path}: changed: expected {log['bytes']} bytes as written")

    def rewind(self, state: Mapping[str, Any]) -> None:
        """Go back to what a checkpoint relies on; forget what came later, a torn line included."""
        text = self._head(state["log"]["bytes"])
        self.size, self.digest = len(text), hashlib.sha256(text)
        self.records = [json.loads(line) for line in text.splitlines()]
        self.made = {int(step): digest for step, digest in state["snapshots"].items()}
        make_way(self.path)
        write_text(self.path, text.decode())

    def log(self, record: dict[str, Any]) -> None:
        """Append one record."""
        self._mend()
        line = _line(record).encode()
        with _named(self.path), self.path.open("ab") as handle:
            handle.write(line)
        self.records.append(record)
        self.size += len(line)
        self.digest.update(line)

    def sync(self) -> None:
        """Make durable what a checkpoint made now relies on. Raises UserError for a lost snapshot.

        A run that is done is of no use without them, so it had better end at once.
        """
        self._mend()
        with self.path.open("rb") as handle:
            os.fsync(handle.fileno())
        for path in map(self.snapshot, self.made):
            if not path.is_file():
                raise UserError(
                    f"{path}: missing: expected it to stay; start again to make it anew"
                )

    def verify(self) -> None:
        """Raise UserError for a snapshot that is not as it was written."""
        for step, digest in self.made.items():
            check_file(self.snapshot(step), digest)

    def _head(self, count: int) -> bytes:
        """The first bytes of the log, or what there is of them."""
        if not self.path.is_file():
            return b""
        with self.path.open("rb") as handle:
            return handle.read(count)

    def _mend(self) -> None:
        """Write the log again where somebody took it, cut it or closed it while the job runs."""
        path = self.path
        if path.is_file() and path.stat().st_size == self.size and os.access(path, os.W_OK):
            return
        make_way(path)
        write_text(path, "".join(map(_line, self.records)))

    def progress(self, step: int) -> None:
        """Tell watchers how far the job is."""
        value = {"label": self.label, "step": step, "updates": self.updates, "pid": os.getpid()}
        if self.first < 0:
            self.first = step
        value |= {"started": self.started, "first": self.first, "now": time.time()}
        value |= {"host": socket.gethostname(), "slurm_job": slurm_job()}
        if self.processes > 1:
            value["launched"] = self.processes
        value["record"] = self.records[-1] if self.records else None
        beside, path = self.folder / ".progress", self.folder / "progress.json"
        make_way(path)
        drop(beside)
        with _named(path):
            beside.write_text(json.dumps(value), encoding="utf-8")
            os.replace(beside, path)

    def count_start(self) -> int:
        """Note that the job starts; returns how often it has, killed starts included."""
        path = self.folder / "starts"
        count = 1 + (path.stat().st_size if path.is_file() else 0)
        make_way(path)
        write_text(path, "." * count)
        return count

    def keep(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """Write the snapshot after `step`."""
        path = self.snapshot(step)
        make_way(path)
        save_tensors(path, weights)
        self.made[step] = sha256(path)

    def snapshot(self, step: int) -> Path:
        """Where the snapshot after `step` lies."""
        return self.folder / f"snapshot-{self.fingerprint[:12]}-{step:08d}.safetensors"


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Have what a full disk says name the file."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"
