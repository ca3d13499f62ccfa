"""`pdmd status`: which jobs are out, where each is, why it waits, and how far its training is.

It reads what is there anyway: the executor's notes, one squeue, the training jobs' progress files,
and what Snakemake's logger `pdmd` keeps of the run.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdmd.config.plan import recall
from pdmd.errors import UserError
from pdmd.jobs.claim import identity
from pdmd.jobs.estimates import describe, running
from pdmd.jobs.events import EVENTS, SHARED, Plan, last_plan
from pdmd.jobs.view import View

NOTES = Path(".snakemake/submitit/running")


@dataclass(frozen=True)
class Out:
    """A job that a Snakemake has handed to a cluster.

    Attributes:
        id: the cluster's, "-" before it has one; queue: its state, and where it runs or why not.
    """

    id: str
    name: str
    queue: str
    since: float


def jobs_out(notes: Path = NOTES) -> list[Out]:
    """The jobs that the executor has noted, with what Slurm says of them."""
    out, damaged = [], []
    for path in notes.glob("*.json"):
        try:
            note = json.loads(path.read_bytes())
        except FileNotFoundError:
            continue  # it ended at this moment
        except (OSError, ValueError, RecursionError):
            note = None
        if _is_note(note):
            out.append(note)
        else:
            damaged.append(Out("-", path.stem, f"its note is damaged: {path}", 0.0))
    states = queue_states([note["id"] for note in out if note["id"]])
    rows = [
        Out(
            note["id"] or "-",
            note["name"],
            states.get(note["id"], "gone from the queue") if note["id"] else "not submitted yet",
            note["time"],
        )
        for note in out
    ]
    return sorted(
        [*rows, *damaged], key=lambda row: (not row.queue.startswith("running"), row.since)
    )


def _is_note(note: Any) -> bool:
    """Whether a note holds what is shown of it."""
    shape = {"id": str | None, "name": str, "time": int | float}
    return (
        isinstance(note, dict)
        and all(name in note and isinstance(note[name], kind) for name, kind in shape.items())
        and (note["id"] is None or re.fullmatch(r"\w[\w-]*", note["id"], re.ASCII) is not None)
    )


def queue_states(ids: Sequence[str]) -> dict[str, str]:
    """What squeue says of jobs, in words; where there is no Slurm, that they are processes here."""
    if not ids:
        return {}
    jobs = ",".join(sorted({name.partition("_")[0] for name in ids}))
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r|%N|%M|%L"]
    try:
        done = subprocess.run(
            [*command, "--jobs", jobs],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        alive = {name for name in ids if Path("/proc", name).exists()}
        return dict.fromkeys(alive, "running here")
    if done.returncode and "Invalid job id" not in done.stderr:
        return dict.fromkeys(ids, "the queue does not answer")
    rows = [line.strip().split("|") for line in done.stdout.splitlines()]
    return {row[0]: _words(*row[1:]) for row in rows if len(row) == 6}


def _words(state: str, reason: str, node: str, spent: str, left: str) -> str:
    """A row of squeue as a person would say it."""
    if state == "PENDING":
        return f"waits ({reason})"
    where = f" on {node}" if node else ""
    more = f", {spent} of its time spent, {left} left" if state == "RUNNING" else ""
    return f"{state.lower()}{where}{more}"


def run_view(results: Path, shared: Path = SHARED) -> View | None:
    """The run under way that Snakemake's logger tells of, planned in this folder; None: none is."""
    for path in (results / EVENTS, shared):
        plan = last_plan(path)
        if plan is None or _has_ended(plan):
            continue
        try:
            experiment = recall(plan.digest)
        except UserError:
            continue
        if Path(experiment.settings["results"]).resolve() == results.resolve():
            view = View(experiment, 1, plan.time, path)
            view.cores = max(1, len(view.reader.look().running))
            return view
    return None


def _has_ended(plan: Plan) -> bool:
    """Whether its Snakemake has; of another machine's nothing is known."""
    if plan.process["host"] != socket.gethostname():
        return False
    return identity(int(plan.process["pid"])) != plan.process


def status_lines(results: Path, notes: Path = NOTES) -> list[str]:
    """How far the run is, as the demo shows it; a line a job, and below it its training."""
    rows, view = jobs_out(notes), run_view(results)
    if view is None:
        return job_lines(results, rows)
    head, *jobs = view.lines()
    if rows:  # each with what the queue says of it
        return [head, *job_lines(results, rows)]
    return [head, *jobs, *job_lines(results, rows, view.labels())]


def job_lines(results: Path, rows: Sequence[Out], shown: Container[str] = ()) -> list[str]:
    """One line a job, and below it how far its training is.

    Args:
        rows: jobs on a cluster; shown: labels of training that has its line already.
    """
    progress: dict[str | None, list[dict[str, Any]]] = {}
    for value in running(results):
        if str(value["label"]) not in shown:
            progress.setdefault(value.get("slurm_job"), []).append(value)
    lines = []
    width = max((len(row.name) for row in rows), default=0)
    for row in rows:
        lines.append(f"{row.id:>8}  {row.name:<{width}}  {row.queue}")
        lines += [f"{'':>8}    {line(value)}" for value in progress.pop(row.id, [])]
    others = [value for values in progress.values() for value in values]
    return lines + [f"{line(value)}  on {value.get('host', '?')}" for value in others]


def line(value: dict[str, Any]) -> str:
    """How far one training job is, and when it will be done."""
    spent, step = value["now"] - value["started"], value["step"] - value.get("first", 0)
    left = ""
    if step > 0 and spent > 1:
        rest = spent * (value["updates"] - value["step"]) / step - (time.time() - value["now"])
        left = f"  {_duration(max(0.0, rest))} left"
    return describe(value) + left


def _duration(seconds: float) -> str:
    hours, minutes = int(seconds) // 3600, int(seconds) % 3600 // 60
    return f"{hours} h {minutes} min" if hours else f"{minutes}:{int(seconds) % 60:02d} min"


def print_status(results: Path) -> None:
    """Say what runs and what waits."""
    lines = status_lines(results)
    print("\n".join(lines) if lines else "Nothing is running, and nothing is in a queue.")
