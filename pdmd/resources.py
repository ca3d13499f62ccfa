"""What each job asks of a cluster: minutes, memory, nodes and GPUs, out of its config alone.

A request is a bound, not a forecast: a job that passes it is started again with twice as much, and
a training job then goes on from its last checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from pdmd.config import Config, Experiment
from pdmd.launch import prefix
from pdmd.work import fit_work, network_size, phase_work

# Rows times weights a second of one thread; the demo's jobs reach 2.5e10 to 8e10 on two cores.
SPEED = 1e10
START_MINUTES = 10  # Python, torch, a cold file system
LIGHT_MINUTES, LIGHT_MB = 20, 3000  # of jobs that draw, score or plot
START_MB = 1500  # the demo's jobs stay under 1,000 with torch loaded
STEP_MINUTES, STEP_MB = 10, 500  # rounded up to these: jobs that ask for the same share an array
COPIES = 12  # of the weights, in float32: three roles, two with gradients and Adam's moments

Request = dict[str, Callable[..., int | str]]


def minutes(work: float, attempt: int = 1) -> int:
    """Walltime for some work, doubled at each further attempt."""
    steps = math.ceil((START_MINUTES + work / SPEED / 60) / STEP_MINUTES)
    return 2 ** (attempt - 1) * STEP_MINUTES * steps


def training_mb(run: Config, runs: int, batch: int, attempt: int = 1) -> int:
    """Memory of a process that trains `runs` runs in one network."""
    model = run["model"]
    weights = 4 * COPIES * network_size(model) * runs
    calls = run["student"]["steps"] if run["student"]["backward"] == "all" else 1
    rows = 4 * batch * runs * model["width"] * 8 * (model["depth"] + 1) * (calls + 2)
    steps = math.ceil((START_MB + (weights + rows) / 2**20) / STEP_MB)
    return 2 ** (attempt - 1) * STEP_MB * steps


def light() -> Request:
    """Jobs that draw, score or plot: one node and no GPU."""
    return {
        "runtime": lambda wildcards, attempt: 2 ** (attempt - 1) * LIGHT_MINUTES,
        "mem_mb": lambda wildcards, attempt: 2 ** (attempt - 1) * LIGHT_MB,
    }


class Requests:
    """The requests of an experiment's training jobs, as functions of a rule's wildcards."""

    def __init__(self, experiment: Experiment):
        self.experiment = experiment

    def base(self) -> Request:
        """Fitting the base network of a scenario, in one run."""

        def run(wildcards: Any) -> Config:
            return self.experiment.shared(wildcards.scenario)

        return _training(run, lambda wildcards: fit_work(run(wildcards), 1), 1, "fit")

    def fit(self, scenario: str, seeds: Sequence[int]) -> Request:
        """Fitting one velocity a seed."""
        run = self._run(scenario)
        return _training(
            run, lambda wildcards: fit_work(run(wildcards), len(seeds)), len(seeds), "fit"
        )

    def distill(self, scenario: str, seeds: Sequence[int]) -> Request:
        """Distilling one phase."""
        run = self._run(scenario)

        def work(wildcards: Any) -> float:
            return phase_work(run(wildcards), len(seeds), int(wildcards.phase))

        return _training(run, work, len(seeds), "distill")

    def _run(self, scenario: str) -> Callable[[Any], Config]:
        return lambda wildcards: self.experiment.runs[scenario, wildcards.method]


def _training(
    run: Callable[[Any], Config], work: Callable[[Any], float], runs: int, part: str
) -> Request:
    """A training job: it saves when it is told to stop, hence resumable."""

    def share(wildcards: Any) -> int:
        hardware = run(wildcards)["hardware"]
        return int(hardware["nodes"] * hardware["processes"])

    def memory(wildcards: Any, attempt: int) -> int:
        config = run(wildcards)
        batch = config[part]["batch"] // share(wildcards)
        return config["hardware"]["processes"] * training_mb(config, runs, batch, attempt)

    return {
        "runtime": lambda wildcards, attempt: minutes(work(wildcards) / share(wildcards), attempt),
        "mem_mb": memory,
        "nodes": lambda wildcards: run(wildcards)["hardware"]["nodes"],
        "gpu": lambda wildcards: (
            run(wildcards)["hardware"]["nodes"] * run(wildcards)["hardware"]["gpus"]
        ),
        "resumable": lambda wildcards: 1,
        # Not a parameter: other hardware runs no finished job again.
        "launch": lambda wildcards: prefix(run(wildcards)["hardware"]),
    }
