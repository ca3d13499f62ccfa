"""The resumable loop around any trainer: log, checkpoint, snapshot, stop on what is not finite."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pdmd.checkpoint import Checkpoints, broken_role, restore_tensors, state_tensors
from pdmd.errors import UserError
from pdmd.ledger import Ledger, peak_memory_mb
from pdmd.storage import load_tensors, save_tensors, write_json, write_text


class Trainer(Protocol):
    """What the loop needs of a training step.

    Attributes:
        modules, optimizers: all state, by role; kept: the role whose weights are the result.
    """

    modules: Mapping[str, nn.Module]
    optimizers: Mapping[str, torch.optim.Optimizer]
    kept: str
    ledger: Ledger

    def update(self, step: int) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Save:
    """How often a run writes.

    Attributes:
        log_every, checkpoint_every: in updates; snapshots: how many, the end included.
    """

    log_every: int
    checkpoint_every: int
    snapshots: int

    def snapshot_steps(self, updates: int) -> list[int]:
        """Steps after which a snapshot is kept: dense early, where fidelity moves fastest."""
        shares = [((i + 1) / self.snapshots) ** 2 for i in range(self.snapshots)]
        return sorted({max(1, round(updates * share)) for share in shares})


@dataclass
class Finished:
    """A finished training job.

    Attributes:
        log: one record an interval, values with a leading list of runs; snapshots: step -> file.
        summary: seconds and forward-equivalents by role, peak memory, number of restarts.
    """

    log: list[dict[str, Any]]
    snapshots: dict[int, Path]
    summary: dict[str, Any]


class Journal:
    """The state folder of a job: its log, its progress for watchers, its snapshots."""

    def __init__(self, folder: Path, label: str, updates: int, fingerprint: str):
        self.folder, self.label, self.updates, self.fingerprint = (
            folder,
            label,
            updates,
            fingerprint,
        )
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "stats.jsonl"
        self.records: list[dict[str, Any]] = []
        self.started = time.time()

    def rewind(self, step: int) -> None:
        """Forget what was logged after `step`, a torn last line included."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.records = []
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                break
            if record["step"] > step:
                break
            self.records.append(record)
        write_text(self.path, "".join(json.dumps(record) + "\n" for record in self.records))

    def log(self, record: dict[str, Any]) -> None:
        """Append one record."""
        self.records.append(record)
        with self.path.open("a") as handle:
            handle.write(json.dumps(record) + "\n")

    def progress(self, step: int) -> None:
        """Tell watchers how far the job is."""
        value = {"label": self.label, "step": step, "updates": self.updates, "pid": os.getpid()}
        value |= {"started": self.started, "now": time.time()}
        value["record"] = self.records[-1] if self.records else None
        (self.folder / ".progress").write_text(json.dumps(value))
        os.replace(self.folder / ".progress", self.folder / "progress.json")

    def count_start(self) -> int:
        """Note that the job starts; returns how often it has, killed starts included."""
        path = self.folder / "starts"
        with path.open("a") as handle:
            handle.write(".")
        return path.stat().st_size

    def snapshot(self, step: int) -> Path:
        """Where the snapshot after `step` lies."""
        return self.folder / f"snapshot-{self.fingerprint[:12]}-{step:08d}.safetensors"


def train(
    trainer: Trainer,
    updates: int,
    save: Save,
    folder: Path,
    fingerprint: str,
    label: str,
) -> Finished:
    """Run `updates` updates, from the last good checkpoint if there is one.

    Raises:
        UserError: a loss, gradient or weight is not finite; names step, role, last checkpoint.
    """
    journal = Journal(folder, label, updates, fingerprint)
    checkpoints = Checkpoints(folder, fingerprint)
    start, seconds = _resume(trainer, checkpoints)
    journal.rewind(start)
    restarts = journal.count_start() - 1
    snapshot_steps = set(save.snapshot_steps(updates))
    clock, sums = time.perf_counter() - seconds, defaultdict[str, list[Tensor]](list)
    journal.progress(start)
    for step in range(start, updates):
        try:
            values = trainer.update(step)
        except FloatingPointError as error:
            raise UserError(f"{label}: {error}; {_last_good(checkpoints)}") from error
        for name, value in values.items():
            sums[name].append(value)
        done = step + 1
        if done % save.log_every == 0 or done == updates:
            elapsed = time.perf_counter() - clock
            journal.log(_record(done, sums, trainer.ledger, elapsed))
            journal.progress(done)
            sums.clear()
        if done in snapshot_steps:
            save_tensors(journal.snapshot(done), trainer.modules[trainer.kept].state_dict())
        if done % save.checkpoint_every == 0 or done == updates:
            _checkpoint(trainer, checkpoints, done, time.perf_counter() - clock, label)
    return Finished(
        journal.records,
        {step: journal.snapshot(step) for step in sorted(snapshot_steps)},
        {
            "updates": updates,
            "seconds": time.perf_counter() - clock,
            "restarts": restarts,
            "seconds_by_role": dict(trainer.ledger.seconds),
            "forward_equivalents_by_role": dict(trainer.ledger.forwards),
            "peak_memory_mb": peak_memory_mb(),
        },
    )


def _resume(trainer: Trainer, checkpoints: Checkpoints) -> tuple[int, float]:
    """Restore the last good state: (step, seconds so far)."""
    found = checkpoints.latest()
    if found is None:
        return 0, 0.0
    step, tensors, extra = found
    restore_tensors(tensors, trainer.modules, trainer.optimizers)
    trainer.ledger.seconds.update(extra["seconds_by_role"])
    trainer.ledger.forwards.update(extra["forwards_by_role"])
    return step, extra["seconds"]


def _checkpoint(
    trainer: Trainer, checkpoints: Checkpoints, step: int, seconds: float, label: str
) -> None:
    role = broken_role(trainer.modules)
    if role is not None:
        raise UserError(
            f"{label}: step {step}: {role}: weights not finite; {_last_good(checkpoints)}"
        )
    extra = {
        "seconds": seconds,
        "seconds_by_role": dict(trainer.ledger.seconds),
        "forwards_by_role": dict(trainer.ledger.forwards),
    }
    checkpoints.save(step, state_tensors(trainer.modules, trainer.optimizers), extra)


def _last_good(checkpoints: Checkpoints) -> str:
    return f"last good checkpoint: {checkpoints.good or 'none'}"


def _record(
    step: int,
    sums: Mapping[str, Sequence[Tensor]],
    ledger: Ledger,
    seconds: float,
) -> dict[str, Any]:
    """Interval means by run, and the running totals of the ledger."""
    means = {name: torch.stack(list(values)).mean(0).tolist() for name, values in sums.items()}
    return {
        "step": step,
        "seconds": round(seconds, 3),
        **means,
        "seconds_by_role": {role: round(value, 3) for role, value in ledger.seconds.items()},
        "forward_equivalents_by_role": dict(ledger.forwards),
        "peak_memory_mb": round(peak_memory_mb(), 1),
    }


def write_runs(
    finished: Finished,
    kept: nn.Module,
    unstack: Callable[[Mapping[str, Tensor], int], dict[str, Tensor]],
    folders: Mapping[int, Path],
    metadata: Mapping[str, str],
    weights: str = "expert.safetensors",
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write each run's weights, snapshots, stats and metrics, the files of a finished phase.

    Args:
        weights: name of the weights' file; extra: further metrics.
        unstack: (state dict, run index) -> the state dict of that run alone.
        folders: seed -> folder, in the order of the runs.
    """
    snapshots = {step: load_tensors(path) for step, path in finished.snapshots.items()}
    for run, (seed, folder) in enumerate(folders.items()):
        mine = {**metadata, "seed": str(seed)}
        save_tensors(folder / weights, unstack(kept.state_dict(), run), mine)
        flat = {
            f"{step}/{name}": tensor
            for step, tensors in snapshots.items()
            for name, tensor in unstack(tensors, run).items()
        }
        save_tensors(folder / "snapshots.safetensors", flat, mine)
        own = [_own(record, run) for record in finished.log]
        write_text(folder / "stats.jsonl", "".join(json.dumps(record) + "\n" for record in own))
        summary = {**finished.summary, "runs_trained_together": len(folders), "last": own[-1]}
        write_json(folder / "metrics.json", {**summary, **(extra or {})})


def _own(record: dict[str, Any], run: int) -> dict[str, Any]:
    """One run's share of a record."""
    return {
        name: value[run] if isinstance(value, list) else value for name, value in record.items()
    }


def clear_state(folder: Path) -> None:
    """Drop a finished job's state; everything lasting is in its outputs."""
    shutil.rmtree(folder, ignore_errors=True)
