"""Processes on this machine instead of a cluster; no two of them share a GPU or a core."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import submitit
from submitit.local.local import LocalJob, start_controller

from snakemake_executor_plugin_submitit.gpus import visible_gpus
from snakemake_executor_plugin_submitit.resources import Request
from snakemake_executor_plugin_submitit.runner import cancelled_mark
from snakemake_executor_plugin_submitit.slurm import NotSubmitted
from snakemake_executor_plugin_submitit.task import State, Task


class Processes(submitit.LocalExecutor):
    """submitit's, which hands out GPUs by any name that CUDA knows, where its own takes indices."""

    cuda_devices = ""

    def _submit_command(self, command: str) -> Any:
        process = start_controller(
            folder=self.folder,
            command=command,
            cuda_devices=self.cuda_devices,
            timeout_min=self.parameters["timeout_min"],
            signal_delay_s=self.parameters["signal_delay_s"],
            setup=self.parameters["setup"],
        )
        return LocalJob(folder=self.folder, job_id=str(process.pid), process=process)


class Share(NamedTuple):
    """What a process holds of this machine."""

    gpus: tuple[str, ...]
    cores: int


class Local:
    """This machine, as a queue of its cores and GPUs."""

    name = "local"

    def __init__(self, settings: Any):
        self.settings = settings
        self.cores = len(os.sched_getaffinity(0))
        self.gpus, self.source = visible_gpus(settings.gpus)
        self._running: dict[str, Share] = {}
        self._folders: dict[str, Path] = {}  # where a process's log and result lie, by its id
        self._handles: list[Any] = []  # kept unread: a process id is not given out again meanwhile

    def free(self, tasks: Sequence[Task]) -> list[Task]:
        """The tasks whose cores and GPUs are free now, first come first served."""
        for name in [name for name in self._running if not alive(name)]:
            del self._running[name]
        taken = {gpu for share in self._running.values() for gpu in share.gpus}
        gpus = [gpu for gpu in self.gpus if gpu not in taken]
        cores = self.cores - sum(share.cores for share in self._running.values())
        found = []
        for task in tasks:
            wanted = task.request.gpus
            if self._cannot(task.request):
                found.append(task)  # to be refused
                continue
            if wanted > len(gpus) or self._cores(task.request) > cores:
                break
            task.gpus, gpus = tuple(gpus[:wanted]), gpus[wanted:]
            cores -= self._cores(task.request)
            found.append(task)
        return found

    def _cores(self, request: Request) -> int:
        return min(self.cores, request.cpus * request.tasks)

    def _cannot(self, request: Request) -> str:
        """Why this machine never holds a job, "" if it can."""
        if request.nodes > 1:
            return f"resource nodes: {request.nodes}: expected 1 here"
        if request.gpus > len(self.gpus):
            has = f"at most the {len(self.gpus)} of this machine ({self.source}, --submitit-gpus)"
            return f"resource gpu: {request.gpus}: expected {has}"
        if request.asks_for_gpus and not request.gpus:
            asked = request.gres or request.flags.get("gpus-per-socket") or request.gpus_per_task
            return f"resource for GPUs: {asked}: expected resource gpu here"
        if request.gpus > 1 and any(name.startswith("MIG-") for name in self.gpus):
            return f"resource gpu: {request.gpus}: expected 1: a process sees one MIG device"
        return ""

    def batches(self, tasks: Sequence[Task]) -> list[list[Task]]:
        """One process each."""
        return [[task] for task in tasks]

    def submit(self, batch: Sequence[Task]) -> None:
        """Start a process. Raises NotSubmitted if this machine cannot hold it."""
        (task,) = batch
        request = task.request
        if why := self._cannot(request):
            raise NotSubmitted(why, True)
        executor = Processes(
            task.folder, max_num_timeout=self.settings.max_timeouts, python=self.settings.python
        )
        executor.update_parameters(
            timeout_min=request.minutes,
            signal_delay_s=self.settings.signal_delay if request.resumable else 0,
            setup=self.settings.setup.splitlines() if self.settings.setup else (),
        )
        executor.cuda_devices = ",".join(task.gpus)
        handle = executor.submit(task.call)
        self._handles.append(handle)
        task.adopt(str(handle.job_id))
        self._running[str(task.id)] = Share(task.gpus, self._cores(request))
        self._folders[str(task.id)] = Path(task.folder)

    def remember(self, notes: Iterable[Mapping[str, Any]]) -> None:
        """Count the processes that an earlier driver started, whether or not they are wanted."""
        for note in notes:
            if note["id"] and alive(note["id"]):
                cores = min(self.cores, note["cores"])
                self._running[note["id"]] = Share(tuple(note["gpus"]), cores)
                self._folders[note["id"]] = Path(note["folder"])

    def states(self, ids: Iterable[str]) -> dict[str, State] | None:
        """RUNNING or FAILED; a success is told by its result file before that counts."""
        return {name: State("RUNNING" if alive(name) else "FAILED") for name in ids}

    def named(self, tokens: Iterable[str]) -> dict[str, list[str]] | None:
        """Nothing: a process that was started has its id noted."""
        return {}

    def cancel(self, ids: Iterable[str]) -> None:
        """Stop processes and all they started.

        One that is just starting would not hear it: submitit passes SIGTERM over until the job's
        own handler stands. So it is written down first, where the job looks next.
        """
        for name in ids:
            if alive(name):
                if name in self._folders:
                    with contextlib.suppress(OSError):
                        cancelled_mark(self._folders[name], name).touch()
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
    if not name.isdecimal():
        return False
    try:
        command = Path("/proc", name, "cmdline").read_bytes()
        state = (
            Path("/proc", name, "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        )
    except (OSError, IndexError):
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
    except (ProcessLookupError, PermissionError):
        return
