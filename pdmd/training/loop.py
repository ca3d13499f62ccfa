"""The resumable loop around any trainer: log, checkpoint, snapshot, stop on what is not finite."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pdmd.config.sections import Save
from pdmd.errors import UserError
from pdmd.files.storage import load_tensors, save_tensors, write_json, write_text
from pdmd.models.rows import gathered, is_sharded
from pdmd.training.checkpoint import (
    LOST,
    Checkpoints,
    Found,
    Refused,
    State,
    broken_role,
    check_fit,
    restore_tensors,
    state_tensors,
)
from pdmd.training.cost import Cost, peak_gpu_memory_mb, peak_memory_mb
from pdmd.training.journal import Journal
from pdmd.training.shards import SharedCheckpoints, restore_rows
from pdmd.training.stop import Listener, Stopped
from pdmd.training.world import ALONE, World, unless_lost

LOG = "log/"  # in a checkpoint: values of the log's open interval, (updates, runs) each


class Trainer(Protocol):
    """What the loop needs of a training step.

    Attributes:
        states, optimizers: all that training changes, by role and by part of one;
        kept: the role whose weights are the result.
    """

    states: Mapping[str, State]
    optimizers: Mapping[str, torch.optim.Optimizer]
    kept: str
    cost: Cost

    def update(self, step: int) -> dict[str, Tensor]: ...


def snapshot_steps(snapshots: int, updates: int) -> list[int]:
    """Steps after which a snapshot is kept: before training, and then dense early on.

    Args:
        snapshots: how many after the first update, the end included.
    """
    shares = [((i + 1) / snapshots) ** 2 for i in range(snapshots)]
    return sorted({0, *(max(1, round(updates * share)) for share in shares)})


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
        self.start, extra = self._resume()
        self.clock = time.perf_counter() - extra["seconds"]
        self.restarts = 0
        if journal is not None:
            journal.rewind(extra["journal"])
            self.restarts = journal.count_start() - 1
            journal.progress(self.start)

    def update(self, step: int) -> None:
        """One update. Raises UserError where something is not finite."""
        self.checkpoints.check()
        try:
            with unless_lost():
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
        """Keep the weights that will be the result, as they are now; sharded ones by all."""
        weights = gathered(self.trainer.states[self.trainer.kept].state_dict())
        if self.journal is not None:
            self.journal.keep(done, weights)

    def checkpoint(self, done: int) -> None:
        """Keep the whole state, the log's open interval included; all processes wait for it.

        Where each process holds rows of its own it is kept while training goes on.

        Raises:
            UserError: weights are not finite, in all processes alike; a snapshot was lost.
        """
        trainer, roles = self.trainer, list(self.trainer.states)
        role = broken_role(trainer.states)
        number = self.world.agree(0 if role is None else 1 + roles.index(role))
        if number:
            raise UserError(
                f"{self.label}: step {done}: {roles[number - 1]}: weights not finite;"
                f" {self._last_good()}"
            )
        extra: dict[str, Any] = {
            "seconds": self.seconds(),
            "seconds_by_role": dict(trainer.cost.seconds),
            "forwards_by_role": self._forwards(),
        }
        if self.journal is not None:
            self.journal.sync()
            extra["journal"] = self.journal.state()
        if self.journal is not None or self.checkpoints.by_all:
            tensors = state_tensors(trainer.states, trainer.optimizers)
            tensors |= {LOG + name: torch.stack(kept) for name, kept in self.values.items()}
            self.checkpoints.save(done, tensors, extra)
        if not self.checkpoints.by_all:
            self.world.barrier()

    def seconds(self) -> float:
        """Seconds of training, restarts included."""
        return time.perf_counter() - self.clock

    def _resume(self) -> tuple[int, dict[str, Any]]:
        """Restore the last good state, the same in all processes: (step, what was kept beside)."""
        newest = self.checkpoints.latest(self._accept) if self.world.leads else None
        step = self.world.agree(newest[0] if newest else 0)
        if step == 0:
            return 0, {"seconds": 0.0, "journal": Journal.NOTHING}
        _, tensors, extra = newest or self.checkpoints.at(step)
        restore = restore_rows if self.checkpoints.by_all else restore_tensors
        restore(tensors, self.trainer.states, self.trainer.optimizers)
        for name, kept in tensors.items():
            if name.startswith(LOG):
                self.values[name.removeprefix(LOG)] = list(kept.to(self.world.device))
        self.trainer.cost.seconds.update(extra["seconds_by_role"])
        self.trainer.cost.forwards.update(extra["forwards_by_role"])
        return step, extra

    def _accept(self, checkpoint: Found) -> None:
        """Refuse a checkpoint that this job cannot go on from. Raises Refused."""
        step, tensors, extra = checkpoint
        check_fit(tensors, self.trainer.states)
        try:
            numbers = [extra["seconds"], *extra["seconds_by_role"].values()]
            sum([*numbers, *extra["forwards_by_role"].values()], 0.0)
            if self.journal is not None:
                self.journal.check(step, extra["journal"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            where = self.checkpoints.folder / f"step-{step:08d}"
            raise Refused(f"{where}: {error!r}: expected what this version keeps") from error

    def _forwards(self) -> dict[str, float]:
        """Forward-equivalents by role: with several processes their mean, so in full batches."""
        forwards = self.trainer.cost.forwards
        if self.world.size == 1:
            return dict(forwards)
        roles = sorted(forwards)  # one order in all processes
        counts = torch.tensor([forwards[role] for role in roles], dtype=torch.float64)
        means = dict(zip(roles, self.world.mean(counts).tolist(), strict=True))
        return {role: means[role] for role in forwards}

    def _record(self, step: int, forwards: dict[str, float]) -> dict[str, Any]:
        """Interval means by run, and the running totals of the cost."""
        cost = self.trainer.cost
        if self.world.size > 1:  # a restart may change the last bit of a mean
            forwards = {role: round(value, 6) for role, value in forwards.items()}
        return {
            "step": step,
            "seconds": round(self.seconds(), 3),
            **{name: torch.stack(kept).mean(0).tolist() for name, kept in self.values.items()},
            "seconds_by_role": {role: round(value, 3) for role, value in cost.seconds.items()},
            "forward_equivalents_by_role": forwards,
            "peak_memory_mb": round(peak_memory_mb(), 1),
            **self.on_gpu(),
        }

    def on_gpu(self) -> dict[str, float]:
        """Peak memory of this process's GPU, where it has one."""
        if self.world.device.type != "cuda":
            return {}
        return {"peak_gpu_memory_mb": round(peak_gpu_memory_mb(self.world.device), 1)}

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
            Or somebody changed the state folder so that a snapshot is lost; names the file.
        Stopped: told to stop, and saved.
    """
    with undisturbed(folder):
        snapshots = snapshot_steps(save.snapshots, updates)
        journal = None
        if world.leads:
            journal = Journal(folder, label, updates, fingerprint, world.size, snapshots)
        checkpoints = _checkpoints(trainer, folder, fingerprint, world)
        run = Run(trainer, journal, checkpoints, label, world)
        _loop(run, updates, save, snapshots)
        return _finished(run, updates, snapshots)


def _checkpoints(trainer: Trainer, folder: Path, identity: str, world: World) -> Checkpoints:
    """Saved by the leading process, or where tensors are sharded by all."""
    tensors = (p for state in trainer.states.values() for p in state.parameters())
    if any(map(is_sharded, tensors)):
        return SharedCheckpoints(folder, identity, world)
    return Checkpoints(folder, identity)


def _loop(run: Run, updates: int, save: Save, snapshots: Sequence[int]) -> None:
    """All updates that are left, and what is written after them."""
    with Listener() as listener:
        if not run.start:
            run.snapshot(0)
        for step in range(run.start, updates):
            run.update(step)
            done = step + 1
            number = run.world.agree(listener.received)
            if done % save.log_every == 0 or done == updates:
                run.log(done)
            if done in snapshots:
                run.snapshot(done)
            if done % save.checkpoint_every == 0 or done == updates or number:
                run.checkpoint(done)
            if number or done == updates:
                run.checkpoints.wait()
            if number and done < updates:
                words = _farewell(run.label, number, done, updates)
                raise Stopped(words if run.world.leads else "")


@contextmanager
def undisturbed(folder: Path) -> Iterator[None]:
    """Say in one line that files went from a job's state folder while it wrote there.

    Raises:
        UserError: names what is gone.
    """
    try:
        yield
    except LOST as error:
        if not Path(str(error.filename)).is_relative_to(folder):
            raise
        gone = f"{error.filename}: {error.strerror}"
        raise UserError(f"{gone}: expected it to stay while a job runs; start again") from error


def _farewell(label: str, number: int, done: int, updates: int) -> str:
    """The one line of a run that was told to stop."""
    name = signal.Signals(number).name
    saved = f"saved after update {done} of {updates}; start again to go on"
    return f"{label}: told to stop ({name}): {saved}"


def _finished(run: Run, updates: int, snapshots: Sequence[int]) -> Finished:
    """What a job that made all its updates has to show."""
    cost, journal = run.trainer.cost, run.journal
    if journal is not None:
        journal.verify()
    return Finished(
        journal.records if journal else [],
        {step: journal.snapshot(step) for step in snapshots} if journal else {},
        {
            "updates": updates,
            "seconds": run.seconds(),
            "restarts": run.restarts,
            "processes": run.world.size,
            "device": run.world.device.type,
            "seconds_by_role": dict(cost.seconds),
            "forward_equivalents_by_role": run._forwards(),
            "peak_memory_mb": peak_memory_mb(),
            **run.on_gpu(),
        },
    )


def write_runs(
    finished: Finished,
    kept: Mapping[str, Tensor],
    unstack: Callable[[Mapping[str, Tensor], int], dict[str, Tensor]],
    folders: Mapping[int, Path],
    metadata: Mapping[str, str],
    weights: str = "expert.safetensors",
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write each run's weights, snapshots, stats and metrics, the files of a finished phase.

    Args:
        kept: the weights; weights: name of their file; extra: further metrics, lists have one
            value a run.
        unstack: (state dict, run index) -> the state dict of that run alone.
        folders: seed -> folder, in the order of the runs.
    """
    snapshots = {step: load_tensors(path) for step, path in finished.snapshots.items()}
    for run, (seed, folder) in enumerate(folders.items()):
        of_seed = {**metadata, "seed": str(seed)}
        save_tensors(folder / weights, unstack(kept, run), of_seed)
        flat = {
            f"{step}/{name}": tensor
            for step, tensors in snapshots.items()
            for name, tensor in unstack(tensors, run).items()
        }
        save_tensors(folder / "snapshots.safetensors", flat, of_seed)
        log = [_own(record, run) for record in finished.log]
        write_text(folder / "stats.jsonl", "".join(json.dumps(record) + "\n" for record in log))
        summary = {**finished.summary, "runs_trained_together": len(folders), "last": log[-1]}
        write_json(folder / "metrics.json", {**summary, **_own(dict(extra or {}), run)})


def _own(record: dict[str, Any], run: int) -> dict[str, Any]:
    """One run's share of a record."""
    return {
        name: value[run] if isinstance(value, list) else value for name, value in record.items()
    }


def clear_state(folder: Path) -> None:
    """Drop a finished job's state; everything lasting is in its outputs."""
    shutil.rmtree(folder, ignore_errors=True)
