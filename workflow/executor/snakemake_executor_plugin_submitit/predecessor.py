"""What an earlier driver left in the queue: taken over where it is still wanted, else ended."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snakemake_executor_plugin_submitit.local import Local
from snakemake_executor_plugin_submitit.notes import Notes
from snakemake_executor_plugin_submitit.slurm import Slurm
from snakemake_executor_plugin_submitit.task import State, Task
from snakemake_executor_plugin_submitit.verdict import LIVE, LOST

STARTED = time.time()  # imported before the DAG is built


class Predecessor:
    """The notes of an earlier driver, settled against the queue at one look for all tasks.

    Args:
        gap: seconds between two looks, while the queue does not answer or a job does not leave.
    """

    def __init__(self, notes: Notes, cluster: Slurm | Local, logger: Any, gap: float):
        self.notes, self.cluster, self.logger, self.gap = notes, cluster, logger, gap
        self._next_look = 0.0
        if isinstance(cluster, Local):
            cluster.remember(notes.found.values())

    def holds(self, task: Task) -> bool:
        """Whether a job of its may still be out, so that it must not be submitted."""
        return task.key in self.notes.found or bool(task.blockers)

    def settle(self, tasks: Sequence[Task]) -> None:
        """Attach tasks to the jobs that do what they do; cancel those that do another thing."""
        held = [task for task in tasks if self.holds(task)]
        if not held or time.time() < self._next_look:
            return
        self._next_look = time.time() + self.gap
        ids = self._ids(held)
        if ids is None:
            return
        wanted = {name for task in held for name in (*task.blockers, *ids.get(task.key, []))}
        states = self.cluster.states(wanted)
        if states is None:
            return
        for task in held:
            task.blockers = [name for name in task.blockers if _is(states.get(name), LIVE)]
            note = self.notes.found.pop(task.key, None)
            if note is not None:
                self._settle(task, note, ids[task.key], states)

    def forget_ended(self) -> None:
        """Drop the notes of jobs that have ended, and that this driver had no need of."""
        ids = {note["id"]: key for key, note in self.notes.found.items() if note["id"]}
        states = self.cluster.states(ids)
        for job_id, key in ids.items():
            if states is not None and not _is(states.get(job_id), LIVE):
                self.notes.drop(key)

    def _ids(self, held: Sequence[Task]) -> dict[str, list[str]] | None:
        """Ids under which noted jobs may be known, by key. None: the queue does not answer."""
        notes = {task.key: note for task in held if (note := self.notes.found.get(task.key))}
        tokens = {note["token"] for note in notes.values() if not note["id"]}
        named = self.cluster.named(tokens) if tokens else {}
        if named is None:
            return None
        return {key: _names(note, named) for key, note in notes.items()}

    def _settle(
        self, task: Task, note: dict[str, Any], ids: Sequence[str], states: Mapping[str, State]
    ) -> None:
        for job_id in ids:
            known = _is(states.get(job_id), LIVE | LOST)
            if self._take(task, note, job_id, known):
                return
            if known:
                self.cluster.cancel([job_id])
                task.blockers.append(job_id)
                self.logger.info(f"{task.rule}: cancelled job {job_id}, which did another thing")

    def _take(self, task: Task, note: dict[str, Any], job_id: str, known: bool) -> bool:
        """Attach to a job that does what the task does, and can still tell of it."""
        mine = task.folder
        task.folder = Path(note["folder"])
        task.adopt(job_id)
        # A success from before this driver's start is in the DAG already: this is another run.
        fresh = _changed(task.path("0_result.pkl")) > STARTED and task.result() == (True, "")
        whole = known and _changed(task.path("submitted.pkl")) > 0
        if note["fingerprint"] != task.fingerprint or not (whole or fresh):
            task.folder, task.id, task.info.external_jobid = mine, None, None
            return False
        task.token, task.index, task.gpus = note["token"], note["index"], tuple(note["gpus"])
        self.logger.info(f"{task.rule}: attached to job {job_id} of an earlier run")
        return True


def _changed(path: Path) -> float:
    """When a file was last written; 0 where there is none, or none that can be seen."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _is(state: State | None, names: frozenset[str]) -> bool:
    return state is not None and state.name in names


def _names(note: Mapping[str, Any], named: Mapping[str, Sequence[str]]) -> list[str]:
    """Ids that a note may stand for: its own, else those of the jobs with its token."""
    if note["id"]:
        return [note["id"]]
    ids = sorted({name.partition("_")[0] for name in named.get(note["token"], [])})
    return ids if note["index"] is None else [f"{name}_{note['index']}" for name in ids]
