"""How long a workflow will still take: each job by its own estimate, corrected by what has run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pdmd.jobs.estimates import Job
from pdmd.jobs.events import Jobs, Started

# Seconds of a job on one core of a cloud machine, by the stage that its rule is named after;
# after the demo's, rounded; `classifier`, `trajectories` and `claims`, which it lacks, are guessed.
# What a rule has taken in this run corrects it.
SECONDS = {
    "render": 12.0,
    "embed": 3.0,
    "judge": 15.0,
    "classifier": 15.0,
    "fit": 10.0,
    "bank": 4.0,
    "sample": 6.0,
    "decode": 1.0,
    "features": 14.0,
    "score": 5.0,
    "exits": 6.0,
    "frontier": 8.0,
    "swaps": 3.0,
    "boundary": 2.0,
    "trajectories": 10.0,
    "tables": 1.0,
    "figures": 6.0,
    "paper": 6.0,
    "claims": 2.0,
}
OTHERS = 2.0  # of a rule that is none of these
TRAINS = "distill"  # the stage whose jobs are estimated one by one, by their work
WORK_A_SECOND = 3.5e10  # in the units of estimates.Job
TRUST, LEAST = 1.0, 30.0  # finished jobs, and seconds of training, that an estimate counts for

Report = Mapping[str, Any]  # what a training job says of itself


def seconds_left(
    jobs: Jobs,
    training: Sequence[Job],
    reports: Sequence[Report],
    label: Callable[[Started], str],
    cores: int,
    clock: float | None = None,
) -> float | None:
    """Seconds until all of a workflow's jobs are done, None before anything is planned.

    Args:
        training: every training job of the experiment; reports: of those that run; label: what a
            job that Snakemake runs calls itself there; cores: jobs at a time; clock: the time.
    """
    if not jobs.total:
        return None
    clock = time.time() if clock is None else clock
    left = _training_left(jobs, training, reports, label)
    for rule, count in jobs.waiting().items():
        left += 0.0 if stage(rule) == TRAINS else count * expected(jobs, rule)
    for job in jobs.running.values():
        if stage(job.rule) != TRAINS:
            left += max(expected(jobs, job.rule) - (clock - job.time), 1.0)
    return left / max(1, min(cores, jobs.total - jobs.done))


def stage(rule: str) -> str:
    """The stage that a rule is named after."""
    return rule.partition("_")[0]


def expected(jobs: Jobs, rule: str) -> float:
    """Seconds of a job of a rule: its estimate, and what others of it took."""
    took, prior = jobs.took(rule), SECONDS.get(stage(rule), OTHERS)
    return (TRUST * prior + sum(took)) / (TRUST + len(took))


def _training_left(
    jobs: Jobs,
    training: Sequence[Job],
    reports: Sequence[Report],
    label: Callable[[Started], str],
) -> float:
    """Seconds of training still to come, one job after another."""
    works = {job.label: job.work for job in training if " phase " in job.label}
    left = {job.label for job in training if job.label in works and not job.output.exists()}
    seconds, work, shares = LEAST, LEAST * WORK_A_SECOND, dict[str, float]()
    for job, spent in jobs.finished:
        if stage(job.rule) == TRAINS and label(job) in works:
            seconds, work = seconds + spent, work + works[label(job)]
    for one in reports:
        name, spent = str(one["label"]), one["now"] - one["started"]
        shares[name] = one["step"] / one["updates"]
        made = (one["step"] - one.get("first", 0)) / one["updates"]
        if name in works and made > 0:
            seconds, work = seconds + spent, work + made * works[name]
    rest = sum(works[name] * (1 - shares.get(name, 0.0)) for name in left)
    return rest * seconds / work
