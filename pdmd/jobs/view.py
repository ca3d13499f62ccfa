"""What is shown of a run of a workflow: its jobs under way, and the time left."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pdmd.config.experiment import Experiment
from pdmd.config.paths import job_label
from pdmd.jobs.estimates import describe, running, training_jobs
from pdmd.jobs.events import EVENTS, Jobs, Reader, Started
from pdmd.jobs.remaining import TRAINS, expected, seconds_left, stage


def clock(seconds: float) -> str:
    """Minutes and seconds, hours before them where there are some."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class View:
    """What is shown of a run: every job under way with its own progress, and the time left.

    Args:
        cores: jobs at a time; started: seconds since 1970, what is older is of another run;
        events: where the logger writes, by default as of a demo.
    """

    def __init__(
        self, experiment: Experiment, cores: int, started: float, events: Path | None = None
    ):
        self.experiment, self.cores, self.started = experiment, cores, started
        self.results = Path(experiment.settings["results"])
        self.reader = Reader(events or self.results / EVENTS, started)
        self.training = training_jobs(experiment)

    def lines(self) -> list[str]:
        """The present state: a line for all, and one for each job."""
        jobs, reports = self.reader.look(), running(self.results)
        by_label = {str(value["label"]): value for value in reports}
        rest = seconds_left(jobs, self.training, reports, self.label, self.cores)
        elapsed = clock(time.time() - self.started)
        left = "planning" if rest is None else f"about {clock(rest)} left"
        head = f"[{elapsed}] {jobs.done} of {jobs.total or '?'} jobs, {left}"
        return [head, *(f"    {self._line(job, jobs, by_label)}" for job in jobs.running.values())]

    def _line(self, job: Started, jobs: Jobs, reports: dict[str, dict[str, Any]]) -> str:
        label = self.label(job)
        if label in reports:
            return describe(reports[label])
        trains = stage(job.rule) == TRAINS  # and reports updates as soon as it has made one
        about = f"of about {clock(expected(jobs, job.rule))}"
        rest = "before its first update" if trains else about
        return f"{job.name:<38} {clock(time.time() - job.time)} {rest}"

    def labels(self) -> set[str]:
        """What the jobs under way call themselves."""
        return {self.label(job) for job in self.reader.jobs.running.values()}

    def label(self, job: Started) -> str:
        """What a training job calls itself, of the job that Snakemake runs."""
        of = job.wildcards
        run = self.experiment.runs.get((of.get("scenario", ""), of.get("method", "")))
        if run is None or "phase" not in of:
            return job.name
        group = of.get("group", "")
        seeds = [int(group)] if group.isdecimal() else self.experiment.groups(run.scenario)[0]
        return job_label(run, int(of["phase"]), seeds)
