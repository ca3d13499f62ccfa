"""The resumable loop around any trainer: log, checkpoint, snapshot, stop on what is not finite."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pdmd.checkpoint import Checkpoints, broken_role, restore_tensors, state_tensors
from pdmd.distributed import ALONE, World
from pdmd.errors import UserError
from pdmd.ledger import Ledger, peak_memory_mb
from pdmd.stop import Listener, Stopped
from pdmd.storage import load_tensors, save_tensors, write_json, write_text

LOG = "log/"  # in a checkpoint: values of the log's open interval, (updates, runs) each


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


def slurm_job() -> str | None:
    """The Slurm job that this process belongs to: `id`, `id_task` in an array, None outside."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


class Journal:
    """The state folder of a job: its log, its progress for watchers, its snapshots."""

    def __init__(
        self, folder: Path, label: str, updates: int, fingerprint: str, processes: int = 1
    ):
        self.folder, self.label, self.updates = folder, label, updates
        self.fingerprint, self.processes = fingerprint, processes
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "stats.jsonl"
        self.records: list[dict[str, Any]] = []
        self.started, self.first = time.time(), -1

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
        if self.first < 0:
            self.first = step
        value |= {"started": self.started, "first": self.first, "now": time.time()}
        value |= {"host": socket.gethostname(), "slurm_job": slurm_job()}
        if self.processes > 1:
            value["launched"] = self.processes
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


class Run:
    """One training job under way: its clock, the log's open interval, and what it writes.

    All processes of the job hold one; only the leading one has a journal and writes files.
    """

    def __init__(
        self,
        trainer: Trainer,
        journal: Journal | None,
        checkpoints: Checkpoints,
        label: str,
        world: World,
    ):
        self.trainer, self.world, self.label = trainer, world, label
        self.journal, self.checkpoints = journal, checkpoints
        self.values = defaultdict[str, list[Tensor]](list)  # of the log's open interval
        self.start, seconds = self._resume()
        self.clock = time.perf_counter() - seconds
        self.restarts = 0
        if journal is not None:
            journal.rewind(self.start)
            self.restarts = journal.count_start() - 1
            journal.progress(self.start)

    def update(self, step: int) -> None:
        """One update. Raises UserError where something is not finite."""
        try:
            values = self.trainer.update(step)
        except FloatingPointError as error:
            raise UserError(f"{self.label}: {error}; {self._last_good()}") from error
        for name, value in values.items():
            self.values[name].append(value)

    def log(self, done: int) -> None:
        """Close the log's interval with a record of its means."""
        forwards = self._forwards()
        if self.journal is not None:
            self.journal.log(self._record(done, forwards))
            self.journal.progress(done)
        self.values.clear()

    def snapshot(self, done: int) -> None:
        """Keep the weights that will be the result, as they are now."""
        if self.journal is not None:
            weights = self.trainer.modules[self.trainer.kept].state_dict()
            save_tensors(self.journal.snapshot(done), weights)

    def checkpoint(self, done: int) -> None:
        """Keep the whole state, the log's open interval included; all processes wait for it.

        Raises:
            UserError: weights are not finite.
        """
        trainer = self.trainer
        role = broken_role(trainer.modules)
        if role is not None:
            raise UserError(
                f"{self.label}: step {done}: {role}: weights not finite; {self._last_good()}"
            )
        extra = {
            "seconds": self.seconds(),
            "seconds_by_role": dict(trainer.ledger.seconds),
            "forwards_by_role": self._forwards(),
        }
        if self.world.leads:
            tensors = state_tensors(trainer.modules, trainer.optimizers)
            tensors |= {LOG + name: torch.stack(kept) for name, kept in self.values.items()}
            self.checkpoints.save(done, tensors, extra)
        self.world.barrier()

    def seconds(self) -> float:
        """Seconds of training, restarts included."""
        return time.perf_counter() - self.clock

    def _resume(self) -> tuple[int, float]:
        """Restore the last good state, the same in all processes: (step, seconds so far)."""
        found = self.checkpoints.latest() if self.world.leads else None
        step = self.world.agree(found[0] if found else 0)
        if step == 0:
            return 0, 0.0
        _, tensors, extra = found or self.checkpoints.at(step)
        restore_tensors(tensors, self.trainer.modules, self.trainer.optimizers)
        for name, kept in tensors.items():
            if name.startswith(LOG):
                self.values[name.removeprefix(LOG)] = list(kept.to(self.world.device))
        self.trainer.ledger.seconds.update(extra["seconds_by_role"])
        self.trainer.ledger.forwards.update(extra["forwards_by_role"])
        return step, extra["seconds"]

    def _forwards(self) -> dict[str, float]:
        """Forward-equivalents by role: with several processes their mean, so in full batches."""
        forwards = self.trainer.ledger.forwards
        if self.world.size == 1:
            return dict(forwards)
        found = torch.tensor([forwards[role] for role in forwards], dtype=torch.float64)
        return dict(zip(forwards, self.world.mean(found).tolist(), strict=True))

    def _record(self, step: int, forwards: dict[str, float]) -> dict[str, Any]:
        """Interval means by run, and the running totals of the ledger."""
        ledger = self.trainer.ledger
        if self.world.size > 1:  # a restart may change the last bit of a mean
            forwards = {role: round(value, 6) for role, value in forwards.items()}
        return {
            "step": step,
            "seconds": round(self.seconds(), 3),
            **{name: torch.stack(kept).mean(0).tolist() for name, kept in self.values.items()},
            "seconds_by_role": {role: round(value, 3) for role, value in ledger.seconds.items()},
            "forward_equivalents_by_role": forwards,
            "peak_memory_mb": round(peak_memory_mb(), 1),
        }

    def _last_good(self) -> str:
        return f"last good checkpoint: {self.checkpoints.good or 'none'}"


def train(
    trainer: Trainer,
    updates: int,
    save: Save,
    folder: Path,
    fingerprint: str,
    label: str,
    world: World = ALONE,
) -> Finished:
    """Run `updates` updates, from the last good checkpoint if there is one.

    SIGTERM or SIGUSR1 to any process of the job lets the present update end in all of them and
    saves; the resumed run is, clocks apart, the undisturbed one.

    Raises:
        UserError: a loss, gradient or weight is not finite; names step, role, last checkpoint.
        Stopped: told to stop, and saved.
    """
    journal = Journal(folder, label, updates, fingerprint, world.size) if world.leads else None
    run = Run(trainer, journal, Checkpoints(folder, fingerprint), label, world)
    snapshots = save.snapshot_steps(updates)
    with Listener() as told:
        for step in range(run.start, updates):
            run.update(step)
            done = step + 1
            number = world.agree(told.received)
            if done % save.log_every == 0 or done == updates:
                run.log(done)
            if done in snapshots:
                run.snapshot(done)
            if done % save.checkpoint_every == 0 or done == updates or number:
                run.checkpoint(done)
            if number and done < updates:
                raise Stopped(_farewell(label, number, done, updates) if world.leads else "")
    return _finished(run, updates, snapshots)


def _farewell(label: str, number: int, done: int, updates: int) -> str:
    """The one line of a run that was told to stop."""
    name = signal.Signals(number).name
    saved = f"saved after update {done} of {updates}; start again to go on"
    return f"{label}: told to stop ({name}): {saved}"


def _finished(run: Run, updates: int, snapshots: Sequence[int]) -> Finished:
    """What a job that made all its updates has to show."""
    ledger, journal = run.trainer.ledger, run.journal
    return Finished(
        journal.records if journal else [],
        {step: journal.snapshot(step) for step in snapshots} if journal else {},
        {
            "updates": updates,
            "seconds": run.seconds(),
            "restarts": run.restarts,
            "processes": run.world.size,
            "device": run.world.device.type,
            "seconds_by_role": dict(ledger.seconds),
            "forward_equivalents_by_role": run._forwards(),
            "peak_memory_mb": peak_memory_mb(),
        },
    )


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
