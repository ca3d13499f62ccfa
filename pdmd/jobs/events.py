"""What Snakemake's jobs do, as its logger plugin `pdmd` keeps it (workflow/logger)."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOGGER = "pdmd"  # the plugin's name
EVENTS = Path(".state/jobs.jsonl")  # of a demo, below its results
SHARED = Path(".snakemake/pdmd/jobs.jsonl")  # where the plugin writes if it is given no file


@dataclass(frozen=True)
class Started:
    """A job under way.

    Attributes:
        rule: its name; wildcards: scenario, method, group, phase where it has them; time: seconds
            since 1970.
    """

    rule: str
    wildcards: dict[str, str]
    time: float

    @property
    def name(self) -> str:
        """What a person calls it."""
        of = self.wildcards
        words = [self.rule, of.get("scenario", ""), of.get("method", "")]
        words += [f"phase {of['phase']}"] if "phase" in of else []
        words += [f"seed {of['group']}"] if of.get("group", "").isdecimal() else []
        return " ".join(word for word in words if word)


@dataclass
class Jobs:
    """What is known of a run of a workflow.

    Attributes:
        planned: rule -> jobs; running: id -> job; finished: jobs, each with its seconds; failed:
            jobs.
    """

    planned: Counter[str] = field(default_factory=Counter)
    running: dict[Any, Started] = field(default_factory=dict)
    finished: list[tuple[Started, float]] = field(default_factory=list)
    failed: list[Started] = field(default_factory=list)

    @property
    def done(self) -> int:
        """How many have finished."""
        return len(self.finished)

    def took(self, rule: str) -> list[float]:
        """Seconds of each job of a rule that has finished."""
        return [seconds for job, seconds in self.finished if job.rule == rule]

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(self.planned.values())

    def waiting(self) -> Counter[str]:
        """Rule -> jobs that have not started."""
        finished = [job for job, _ in self.finished]
        begun = Counter(one.rule for one in [*self.running.values(), *self.failed, *finished])
        return self.planned - begun


@dataclass(frozen=True)
class Plan:
    """A run of a workflow, as its first line says.

    Attributes:
        digest: of what it was planned from; process: pid, host and start of its Snakemake; time:
            seconds since 1970.
    """

    digest: str
    process: dict[str, Any]
    time: float


def last_plan(path: Path) -> Plan | None:
    """The run that the file told of last; None where it tells of none."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            value = json.loads(line)
            if value["event"] == "planned":
                process = {name: value[name] for name in ("pid", "start", "host")}
                return Plan(str(value["plan"]), process, float(value["time"]))
        except (ValueError, TypeError, KeyError):
            continue  # torn by a crash
    return None


class Reader:
    """Follows the file of a run: each look reads what has come since.

    Args:
        path: of the file; since: lines before this time are of an earlier run.
    """

    def __init__(self, path: Path, since: float):
        self.path, self.since = path, since
        self.jobs = Jobs()
        self._read, self._rest = 0, b""

    def look(self) -> Jobs:
        """The jobs as they are now; a line that is being written waits for the next look."""
        try:
            with self.path.open("rb") as handle:
                handle.seek(self._read)
                content = handle.read()
        except FileNotFoundError:
            return self.jobs
        self._read += len(content)
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            self._take(line)
        return self.jobs

    def _take(self, line: bytes) -> None:
        try:
            value = json.loads(line)
            event, when = value["event"], float(value["time"])
        except (ValueError, TypeError, KeyError):
            return  # torn by a crash: watchers go on without it
        if when < self.since:
            return
        jobs = self.jobs
        if event == "planned":
            jobs.planned = Counter({str(rule): int(n) for rule, n in value["counts"].items()})
        elif event == "started":
            jobs.running[value["id"]] = Started(value["rule"], value["wildcards"], when)
        elif event in ("finished", "failed"):
            job = jobs.running.pop(value["id"], None)
            if job is not None and event == "finished":
                jobs.finished.append((job, when - job.time))
            elif job is not None:
                jobs.failed.append(job)
