"""A run, a list of them, and the settings of an experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pdmd.config.sections.data import Data
from pdmd.config.sections.distill import Distill
from pdmd.config.sections.evaluate import Classifier, Evaluate, Tables
from pdmd.config.sections.limits import SEED, UPDATES
from pdmd.config.sections.model import Fit, Measure, Model, Teacher
from pdmd.config.sections.student import Bank, Student
from pdmd.config.typed import derived, key


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What a job that trains, or draws from what was trained, runs on.

    A training job's processes share out the batch, which must divide by all of them, and end in
    one process's weights but for rounding. A method's own hardware holds for its jobs, the
    scenario's for the base network. No change of `hardware` runs a finished job again.
    """

    nodes: int = key("nodes of a job", least=1, most=10_000)
    processes: int = key("processes on each node", least=1, most=1024)
    gpus: int = key(
        "GPUs a node: 0 computes on the CPU, else as many as `processes`, one each",
        least=0,
        most=1024,
    )


@dataclass(frozen=True, kw_only=True)
class Save:
    """How often a training job writes."""

    log_every: int = key("updates that one record of `stats.jsonl` averages", least=1, most=UPDATES)
    checkpoint_every: int = key("updates between checkpoints", least=1, most=UPDATES)
    snapshots: int = key(
        "snapshots of a phase beside that before training, the end included, dense early on, from"
        " which the frontier over training is drawn",
        least=1,
        most=10_000,
    )


@dataclass(frozen=True, kw_only=True)
class Run:
    """One method of one scenario.

    A job reads a part of it: what it does not read is no attribute.

    Attributes:
        results: folder of everything; scenario, method: their names; label: how tables and figures
            call the method, where an overlay says so.
    """

    results: str = key("")
    scenario: str = key("")
    method: str = key("", pattern="[a-z0-9-]+", maxLength=60)
    label: str | None = derived(None)
    kind: Literal["teacher", "distill", "fit"] = key(
        "`teacher`, `distill`, or `fit` for `toy1d` (method only)"
    )
    title: str = key("the scenario's name in captions", minLength=1, maxLength=200)
    seeds: tuple[int, ...] = key(
        "one run for each; 95% intervals are over them, if three or more",
        least=0,
        most=SEED,
        entries=(1, 1000),
        uniqueItems=True,
    )
    together: bool = key(
        "`true`: all seeds train in one job, stacked in one network; `false`: a job for each"
    )
    threads: int = key(
        "CPU threads of a job; results are bit-identical only at equal thread counts",
        least=1,
        most=1024,
    )
    hardware: Hardware
    flow: Literal["rectified", "cosine"] = key(
        "noise schedule: `rectified` (alpha = 1 - t, sigma = t) or `cosine`, not where an exact"
        " velocity is used"
    )
    data: Data
    model: Model
    teacher: Teacher
    measure: Measure
    student: Student
    distill: Distill
    bank: Bank
    save: Save
    fit: Fit
    classifier: Classifier
    evaluate: Evaluate
    tables: Tables


@dataclass(frozen=True, kw_only=True)
class Listed:
    """What a scenario has beside what its runs have."""

    methods: tuple[str, ...] = key(
        "the scenario's methods, in the order of its tables (scenario only)",
        entries=(1, 1000),
        uniqueItems=True,
    )


@dataclass(frozen=True, kw_only=True)
class Clip:
    """The small CLIP that scores alignment."""

    updates: int = key("of its training", least=1, most=UPDATES)
    kept: str | None = key(
        "weights trained before with as many updates, `null` trains it", absent=None, null=True
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """config/config.yaml, overlays and command-line values merged."""

    results: str = key(
        "folder of everything that is made; `~` and variables such as `$SCRATCH` are replaced,"
        " blanks and quotes may stand in it",
        minLength=1,
    )
    scenarios: tuple[str, ...] = key(
        "scenarios to run, in order",
        entries=(1, 100),
        uniqueItems=True,
        items={"type": "string", "pattern": "[a-z0-9]+", "maxLength": 60},
    )
    clip: Clip = key("see `clip`")
    validate: tuple[str, ...] = key(
        "scenarios among those that run, of pictures or clips with prompts, on whose real data the"
        " metrics are tried",
        uniqueItems=True,
    )
    defaults: dict[str, Any] = key("what every run starts from")
    overrides: dict[str, Any] = key(
        "scenario name or `all` -> diff; meant for overlays",
        absent=None,
        additionalProperties={"type": "object"},
    )
    methods: dict[str, Any] = key(
        "methods of an overlay: name -> a diff as in `methods.yaml`, with a `label` and a `grid` or"
        " without",
        absent=None,
    )
