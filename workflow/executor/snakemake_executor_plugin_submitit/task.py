"""A Snakemake job on its way through a cluster, and what its files say of it."""

from __future__ import annotations

import contextlib
import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

from snakemake_executor_plugin_submitit.resources import Request
from snakemake_executor_plugin_submitit.runner import SnakemakeJob, read_result

LAST_LINES = 15


class State(NamedTuple):
    """What the queue says of a job: its state, why it waits, where it runs."""

    name: str
    reason: str = ""
    node: str = ""


@dataclass
class Task:
    """One Snakemake job, or group of jobs, handed to a cluster.

    Attributes:
        key: what the job is (its outputs); fingerprint: what it does (inputs, parameters, command).
        token: the submission, written as comment into the queue; index: its place in the array.
        folder: where its log and result lie; id: the cluster's, None until it is known.
        blockers: ids that have to leave the queue before it may be submitted.
        since: when a state that may be final was first seen; reason: why it waits, and since when.
    """

    info: SubmittedJobInfo
    request: Request
    call: SnakemakeJob
    rule: str
    key: str
    fingerprint: str
    folder: Path
    token: str = ""
    index: int | None = None
    id: str | None = None
    gpus: tuple[str, ...] = ()
    blockers: list[str] = field(default_factory=list)
    state: State | None = None
    since: float | None = None
    reason: tuple[str, float] = ("", 0.0)
    named: set[str] = field(default_factory=set)

    def adopt(self, job_id: str) -> None:
        """Take the cluster's id."""
        self.id = self.info.external_jobid = job_id

    def path(self, ending: str) -> Path:
        """One of the files that submitit keeps under the job's id."""
        return self.folder / f"{self.id}_{ending}"

    @property
    def logs(self) -> list[Path]:
        """Standard output and standard error."""
        return [self.path("0_log.out"), self.path("0_log.err")]

    def result(self) -> tuple[bool, str] | None:
        """What the job said of itself at its end, None if nothing: (success, last line)."""
        found = read_result(self.path("0_result.pkl"))
        if found is None:
            return None
        outcome, value = found
        if outcome == "success":
            return True, ""
        last = str(value).strip().rpartition("\n")[2]
        return False, re.sub(r"^[\w.]+\.JobFailed: ", "", last)

    def tail(self) -> list[str]:
        """The last lines of its log that tell something."""
        lines = [line for path in self.logs for line in before_account(read_end(path))]
        return [line for line in lines if not NOISE.match(line)][-LAST_LINES:]

    def clear(self) -> None:
        """Drop the pickles of a success; the logs stay."""
        for ending in ("submitted.pkl", "0_result.pkl"):
            with contextlib.suppress(OSError):
                self.path(ending).unlink()

    def entry(self, **extra: Any) -> str:
        """One line of the ledger of jobs."""
        value = {"id": self.id, "name": self.request.name, "rule": self.rule, "time": time.time()}
        return json.dumps({**value, **extra}) + "\n"


# What submitit, the runner and the Snakemake in the job say of themselves.
NOISE = re.compile(
    r"submitit (INFO|WARNING|ERROR) |\[SIG\w+: the job|host: |Building DAG|Using shell:|"
    r"Provided (cores|resources|remote nodes)|Rules claiming more threads|Select jobs to execute|"
    r"Assuming unrestricted shared|Execute \d+ jobs|Shutting down, this might|"
    r"Exiting because a job|Complete log|At least one job did not|Storing output|"
    r"Removing output files of failed|Elapsed time: |Will exit after finishing|"
    r"snakemake_executor_plugin_submitit\.runner\.JobFailed|\s*$"
)


def before_account(lines: list[str]) -> list[str]:
    """Lines up to where Snakemake and submitit say, once more, which command has failed."""
    for i, line in enumerate(lines):
        if line.startswith("RuleException:"):
            return lines[:i]
        if re.match(r"  File .*submitit/core/_submit", line):
            starts = [k for k in range(i) if lines[k].startswith("Traceback ")]
            return lines[: starts[-1] if starts else i]
    return lines


def read_end(path: Path, size: int = 1 << 14) -> list[str]:
    """The last lines of a file of any length; none if it is not there."""
    try:
        with path.open("rb") as handle:
            handle.seek(max(0, handle.seek(0, 2) - size))
            return handle.read().decode(errors="replace").splitlines()
    except OSError:
        return []
