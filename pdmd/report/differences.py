"""Differences between methods, seed by seed: from DMD2, and from what was not trained at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from pdmd.config.claims import TEACHER
from pdmd.config.sections import Run, Student, Teacher
from pdmd.metrics.intervals import paired
from pdmd.metrics.ranges import DIRECTIONS, metric_range
from pdmd.report.reading import read_metrics
from pdmd.scenarios.kind import Kind, kind_of

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = [
    *("method", "reference", "metric", "n"),
    *("difference_mean", "difference_low", "difference_high", "p", "beats"),
]
BASELINE = "dmd2"
CERTAIN = 0.05  # of p
NOT_JUDGED = "-"

Seeds = Sequence[Mapping[str, float]]  # of a method: metric -> value


def differences_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Value of each student less that of a reference, for every metric of the scenario's tables.

    References are DMD2, and every untrained teacher on the student's own grid. Against those
    `beats` says whether the student is better: yes, no, undecided; "-" where nothing is better.
    """
    import pandas as pd

    names = shown_metrics(kind_of(runs[0].data))
    values = read_metrics(runs, names)
    rows = []
    for run in [run for run in runs if run.kind == "distill"]:
        starts = untrained(run, runs)
        others = [BASELINE] if BASELINE in values and run.method != BASELINE else []
        for reference in [*others, *starts]:
            sides = values[run.method], values[reference]
            for name in names:
                test = paired(changes(*sides, name), metric_range(name, run.data))
                started = reference in starts
                beats = better(name, *sides, values.get(TEACHER)) if started else NOT_JUDGED
                rows.append((run.method, reference, name, *astuple(test), beats))
    return pd.DataFrame(rows, columns=COLUMNS)


def shown_metrics(kind: Kind) -> list[str]:
    """The metrics of a kind's tables, each once."""
    tables = [columns for name, (columns, _) in kind.metrics().items() if name in kind.tables]
    return list(dict.fromkeys(name for columns in tables for name in columns))


def untrained(student: Run, runs: Sequence[Run]) -> list[str]:
    """The methods that sample a teacher on a student's own grid."""
    grid, teachers = grid_of(student.student), [run for run in runs if run.kind == "teacher"]
    return [run.method for run in teachers if grid_of(run.teacher) == grid]


def grid_of(section: Teacher | Student) -> tuple[Any, ...]:
    """What a grid is made of: the number of its steps and their shift, or noise levels."""
    return section.steps, section.shift if section.grid is None else section.grid


def better(name: str, student: Seeds, reference: Seeds, teacher: Seeds | None) -> str:
    """Whether a student beats a reference on a metric: yes, no, undecided, or "-".

    Args:
        teacher: its seeds, which some metrics should be near to; without it those are not judged.
    """
    direction = DIRECTIONS.get(name)
    if direction is None or (direction == "nearer" and teacher is None):
        return NOT_JUDGED
    near = teacher if direction == "nearer" else None
    test = paired(changes(student, reference, name, near))
    if not test.p < CERTAIN:
        return "undecided"
    return "yes" if (test.mean > 0) == (direction == "higher") else "no"


def changes(one: Seeds, other: Seeds, name: str, teacher: Seeds | None = None) -> list[float]:
    """By seed, the difference of a metric; NaN where one of them lacks it.

    Args:
        teacher: its seeds: then of the distances to its value, and below 0 is nearer.
    """
    values, others = ([seed.get(name, math.nan) for seed in side] for side in (one, other))
    if teacher is not None:
        ends = [seed.get(name, math.nan) for seed in teacher]
        values, others = (
            [abs(value - end) for value, end in zip(side, ends, strict=True)]
            for side in (values, others)
        )
    return [value - its for value, its in zip(values, others, strict=True)]
