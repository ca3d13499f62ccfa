"""Processes on this machine instead of a cluster; no two of them share a GPU or a core."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import submitit

from snakemake_executor_plugin_submitit.slurm import NotSubmitted
from snakemake_executor_plugin_submitit.task import State, Task


def visible_gpus(setting: str | None) -> tuple[int, ...]:
    """GPU indices to hand out.

    Raises:
        ValueError: the setting, or CUDA_VISIBLE_DEVICES, does not list whole numbers.
    """
    text = setting if setting is not None else os.environ.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            return ()
        text = ",".join(done.stdout.split())
    try:
        return tuple(int(word) for word in text.split(",") if word.strip())
    except ValueError:
        raise ValueError(
            f"submitit-gpus or CUDA_VISIBLE_DEVICES: {text!r}: expected indices such as 0,1,2,3"
        ) from None


class Local:
    """This machine, as a queue of its cores and GPUs."""

    name = "local"

    def __init__(self, settings: Any):
        self.settings = settings
        self.cores = len(os.sched_getaffinity(0))
        self.gpus = visible_gpus(settings.gpus)
        self._running: dict[str, Task] = {}
        self._handles: list[Any] = []  # kept unread: a process id is not given out again meanwhile

    def free(self, tasks: Sequence[Task]) -> list[Task]:
        """The tasks whose cores and GPUs are free now, first come first served."""
        for name in [name for name in self._running if not alive(name)]:
            del self._running[name]
        taken = {gpu for task in self._running.values() for gpu in task.gpus}
        gpus = [gpu for gpu in self.gpus if gpu not in taken]
        cores = self.cores - sum(self._cores(task) for task in self._running.values())
        found = []
        for task in tasks:
            wanted = task.request.gpus
            if wanted > len(self.gpus) or task.request.nodes > 1:
                found.append(task)  # to be refused
                continue
            if wanted > len(gpus) or self._cores(task) > cores:
                break
            task.gpus, gpus = tuple(gpus[:wanted]), gpus[wanted:]
            cores -= self._cores(task)
            found.append(task)
        return found

    def _cores(self, task: Task) -> int:
        return min(self.cores, task.request.cpus * task.request.tasks)

    def batches(self, tasks: Sequence[Task]) -> list[list[Task]]:
        """One process each."""
        return [[task] for task in tasks]

    def submit(self, batch: Sequence[Task]) -> None:
        """Start a process. Raises NotSubmitted if this machine cannot hold it."""
        (task,) = batch
        request = task.request
        if request.nodes > 1:
            raise NotSubmitted(f"resource nodes: {request.nodes}: expected 1 here", True)
        if request.gpus > len(self.gpus):
            has = f"at most the {len(self.gpus)} of this machine (--submitit-gpus)"
            raise NotSubmitted(f"resource gpu: {request.gpus}: expected {has}", True)
        executor = submitit.LocalExecutor(
            task.folder, max_num_timeout=self.settings.max_timeouts, python=self.settings.python
        )
        executor.update_parameters(
            timeout_min=request.minutes,
            gpus_per_node=request.gpus,
            visible_gpus=task.gpus,
            signal_delay_s=self.settings.signal_delay if request.resumable else 0,
            setup=self.settings.setup.splitlines() if self.settings.setup else (),
        )
        handle = executor.submit(task.call)
        self._handles.append(handle)
        task.adopt(str(handle.job_id))
        self._running[str(task.id)] = task

    def adopt(self, task: Task) -> None:
        """Count a process that an earlier driver started."""
        self._running[str(task.id)] = task

    def states(self, ids: Iterable[str]) -> dict[str, State] | None:
        """RUNNING or FAILED; a success is told by its result file before that counts."""
        return {name: State("RUNNING" if alive(name) else "FAILED") for name in ids}

    def named(self, tokens: Iterable[str]) -> dict[str, list[str]] | None:
        """Nothing: a process that was started has its id noted."""
        return {}

    def cancel(self, ids: Iterable[str]) -> None:
        """Stop processes and all they started."""
        for name in ids:
            if alive(name):
                for pid in [int(name), *_descendants(int(name))]:
                    _terminate(pid)


class Debug(Local):
    """Every job in this very process, one after the other."""

    name = "debug"

    def free(self, tasks: Sequence[Task]) -> list[Task]:
        """The first: they run in the call that submits them."""
        return list(tasks[:1])

    def submit(self, batch: Sequence[Task]) -> None:
        """Run it."""
        (task,) = batch
        task.adopt(task.token)
        task.folder.mkdir(parents=True, exist_ok=True)
        submitit.core.utils.cloudpickle_dump(self._outcome(task), task.path("0_result.pkl"))

    @staticmethod
    def _outcome(task: Task) -> tuple[str, Any]:
        try:
            return "success", submitit.DebugExecutor(task.folder).submit(task.call).result()
        except Exception as error:
            return "error", str(error)

    def states(self, ids: Iterable[str]) -> dict[str, State] | None:
        """All have ended."""
        return {name: State("FAILED") for name in ids}

    def cancel(self, ids: Iterable[str]) -> None:
        """Nothing outlives this process."""


def alive(name: str) -> bool:
    """Whether a process with this id is one of submitit's and lives."""
    try:
        command = Path("/proc", name, "cmdline").read_bytes()
        state = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return b"submitit" in command and state != "Z"


def _descendants(root: int) -> list[int]:
    """Processes below one, by parent."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, todo = [], [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def _terminate(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
