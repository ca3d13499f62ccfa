"""The step grid of a method and the ends of its phases: as configured, or chosen by the grid stage
from the teacher's measured errors, into a file that a person can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pdmd.config.complaints import refusal
from pdmd.config.experiment import Config
from pdmd.config.paths import Paths
from pdmd.config.run import read_run
from pdmd.config.sections import AUTO, Run, Student, Teacher
from pdmd.config.times import chooses, phase_has_room, ranges, step_times
from pdmd.errors import UserError
from pdmd.files import provenance
from pdmd.files.storage import read_json, reading, shown, write_json
from pdmd.grids import Errors, best_grid, phase_ends, step_costs
from pdmd.phases import Phase, split_phases, step_grid
from pdmd.stages.outputs import CHOSEN, RANGED, choice_reads

DECIMALS, DIGITS = 4, 6  # of a chosen noise level, of a predicted error


@dataclass(frozen=True)
class Plan:
    """Noise levels from 1 to 0, and for each phase the number of steps taken when it ends."""

    times: tuple[float, ...]
    boundaries: tuple[int, ...]


@dataclass(frozen=True)
class Measured:
    """What the measure stage wrote: levels from 1 to 0 and the errors of steps between any two.

    Attributes:
        kind: `end`, carried to t = 0, or `step`.
    """

    levels: tuple[float, ...]
    errors: Errors
    kind: str


def plan_of(run: Run) -> Plan:
    """The grid of a teacher's own samples, or of a student, and the student's phase ends.

    Raises:
        UserError: the file of what was chosen is missing, damaged or of another configuration.
    """
    if chooses(run):
        return _read_plan(run)
    if run.kind == "teacher":
        return Plan(_given(run.teacher), (run.teacher.steps,))
    return Plan(_given(run.student), run.student.ends)


def _given(spec: Student | Teacher) -> tuple[float, ...]:
    """The step grid that a section says."""
    if spec.grid is None:
        assert spec.shift is not None
        return step_grid(spec.steps, spec.shift)
    times = step_times(spec)
    assert times is not None
    return times


def _read_plan(run: Run) -> Plan:
    path = Paths(run).method / CHOSEN[0]
    value = read_json(path, dict, ("times", "boundaries"))
    with reading(path, "what `pdmd grid` writes"):
        times, ends = tuple(map(float, value["times"])), tuple(map(int, value["boundaries"]))
    teacher = run.kind == "teacher"
    steps = run.teacher.steps if teacher else run.student.steps
    phases = 1 if teacher else len(run.student.ends)
    if len(times) != steps + 1 or (times[0], times[-1]) != (1, 0) or not _falls(times):
        raise UserError(f"{path}: times: {shown(times)}: expected {steps + 1}, from 1 to 0")
    if len(ends) != phases or not _falls((*reversed(ends), 0)) or ends[-1] != steps:
        expected = f"{phases} rising to {steps}"
        raise UserError(f"{path}: boundaries: {shown(ends)}: expected {expected}")
    return Plan(times, ends)


def ranges_of(run: Run) -> tuple[tuple[float, float], ...] | None:
    """Least and greatest re-noising level of each phase, None where none are chosen.

    Raises:
        UserError: the file of what was chosen is missing, damaged or of another configuration.
    """
    if not ranges(run):
        return None
    path, phases = Paths(run).method / RANGED[0], len(run.student.ends)
    value = read_json(path, dict, ("ranges",))
    with reading(path, "what `pdmd range` writes"):
        chosen = tuple((float(low), float(high)) for low, high in value["ranges"])
    if len(chosen) != phases or not all(0 <= low < high <= 1 for low, high in chosen):
        expected = f"a rising pair in 0 to 1 for each of {phases} phases"
        raise UserError(f"{path}: ranges: {shown(value['ranges'])}: expected {expected}")
    return chosen


def _falls(values: tuple[float, ...]) -> bool:
    return all(a > b for a, b in pairwise(values))


def read_measured(path: Path) -> Measured:
    """The measured errors. Raises UserError that names the file."""
    value = read_json(path, dict, ("levels", "step", "end"))
    kind = "step" if value["end"] is None else "end"
    with reading(path, "what `pdmd measure` writes"):
        levels = tuple(map(float, value["levels"]))
        errors = np.array(value[kind], dtype=np.float64)
    finite = bool(np.isfinite(errors).all()) and bool((errors >= 0).all())
    if errors.shape != (len(levels),) * 2 or len(levels) < 2 or not _falls(levels) or not finite:
        raise UserError(f"{path}: {kind}: expected an error for each step between falling levels")
    return Measured(levels, errors, kind)


def choose_grid(config: Config) -> None:
    """Choose a method's noise levels and phase ends, and say what is predicted of them.

    Raises:
        UserError: the measurement is damaged, or phases have no room to be noised again.
    """
    run = read_run(config)
    (source,) = choice_reads(run)
    measured = read_measured(source)
    plan = chosen(run, measured)
    student = run.student
    by_hand = step_grid(len(plan.times) - 1, student.shift)
    predicted = _predicted(measured, plan.times)
    phases = [sum(predicted["steps"][i:j]) for i, j in pairwise((0, *plan.boundaries))]
    value = {
        "times": list(plan.times),
        "boundaries": list(plan.boundaries),
        "predicted": {**predicted, "phases": [_short(one) for one in phases]},
        "of_shift": {"shift": student.shift, "times": by_hand, **_predicted(measured, by_hand)},
        "error": measured.kind,
    }
    path = Paths(run).method / CHOSEN[0]
    write_json(path, value)
    provenance.record(path.with_name(CHOSEN[-1]), config, [], [source], CHOSEN)


def chosen(run: Run, measured: Measured) -> Plan:
    """The grid whose steps have the least summed error, and phase ends, where they are `auto`."""
    where = f"{run.scenario}/{run.method}"
    spec = run.teacher if run.kind == "teacher" else run.student
    if spec.grid == AUTO:
        if spec.steps >= len(measured.levels):
            expected = f"less than the {len(measured.levels)} levels that were measured"
            raise refusal(where, "steps", spec.steps, expected)
        indices, _ = best_grid(measured.errors, spec.steps)
        times = tuple(round(measured.levels[i], DECIMALS) for i in indices)
    else:
        times = _given(spec)
    if run.kind == "teacher":
        return Plan(times, (spec.steps,))
    student, boundary = run.student, run.model.boundary or 0.0

    def allowed(first: int, last: int) -> bool:
        return phase_has_room(student, boundary, times, first, last)

    if not isinstance(student.boundaries, tuple):
        costs = step_costs(measured.levels, measured.errors, times)
        try:
            return Plan(times, phase_ends(costs, student.phases or 1, allowed))
        except ValueError:
            pass  # said below in the same words
    elif all(allowed(first, last) for first, last in pairwise((0, *student.boundaries))):
        return Plan(times, student.boundaries)
    expected = f"phases with room to be noised again in the levels {shown(list(times))}"
    raise refusal(where, "student.boundaries", student.boundaries, expected)


def _predicted(measured: Measured, times: tuple[float, ...]) -> dict[str, Any]:
    """The error of each step, and their sum."""
    steps = step_costs(measured.levels, measured.errors, times)
    return {"steps": [_short(one) for one in steps], "total": _short(sum(steps))}


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def student_phases(run: Run, ranges: Sequence[tuple[float, float]] | None) -> tuple[Phase, ...]:
    """The phases of a student's step grid; ranges: of re-noising times, None as configured."""
    plan, student = plan_of(run), run.student
    return split_phases(
        student.steps,
        plan.boundaries,
        student.shift,
        student.interval,
        student.margin,
        run.model.boundary or 0.0,
        student.renoise,
        plan.times,
        ranges,
    )
