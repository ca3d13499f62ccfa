"""Noise levels as plain numbers: the shift of a grid, and the range that a phase re-noises in."""

from __future__ import annotations

from collections.abc import Sequence

from pdmd.config.sections import AUTO, Renoise, Run, Student, Teacher

ROOM = 0.1  # of the re-noising draws that must lie above a boundary they are clamped to


def shifted(raw: float, shift: float) -> float:
    """The noise level that a shift warps a raw time to: t = k u / (1 + (k - 1) u)."""
    return shift * raw / (1 + (shift - 1) * raw)


def raw_time(time: float, shift: float) -> float:
    """The raw time that a shift warps to some noise level."""
    return time / (shift - (shift - 1) * time)


def renoise_range(law: Renoise, end: float, top: float, margin: float) -> tuple[float, float]:
    """Least and greatest noise level that a phase's samples are carried to.

    Args:
        end: noise level of the phase's samples; top: where its range ends; margin: from end and 1.
    """
    if law.at is not None:
        return law.at, law.at
    return max(end + margin, law.low), min(top, 1 - margin, law.high)


def has_room(law: Renoise, end: float, top: float, margin: float) -> bool:
    """Whether that range lies within the phase's, and is one."""
    low, high = renoise_range(law, end, top, margin)
    if law.at is not None:
        return end + margin <= law.at <= min(top, 1 - margin)
    return end <= low < high <= 1


def chooses(run: Run) -> bool:
    """Whether a method's noise levels, or the ends of its phases, come from a measurement."""
    if run.kind == "teacher":
        return run.teacher.grid == AUTO
    return run.kind == "distill" and AUTO in (run.student.grid, run.student.boundaries)


def ranges(run: Run) -> bool:
    """Whether the ranges that a method's phases re-noise in come from a measurement."""
    return run.kind == "distill" and run.student.renoise.range == AUTO


def step_times(spec: Student | Teacher) -> tuple[float, ...] | None:
    """The step grid that a section says, None where that is left to a measurement.

    A teacher without a shift has none that a section says, either.
    """
    if spec.grid == AUTO or (spec.grid is None and spec.shift is None):
        return None
    if spec.grid is not None:
        return tuple(map(float, spec.grid))
    assert spec.shift is not None
    return tuple(shifted(1 - i / spec.steps, spec.shift) for i in range(spec.steps + 1))


def phase_has_room(
    student: Student, boundary: float, times: Sequence[float], first: int, last: int
) -> bool:
    """Whether a phase that takes steps first .. last - 1 of a grid can be noised again.

    Args:
        boundary: noise level at and above which the model's high-noise expert works, or 0.
    """
    law, end, warp = student.renoise, times[last], student.renoise.shift or student.shift
    top = 1.0 if student.interval == "nested" else times[first]
    if not has_room(law, end, top, student.margin):
        return False
    floor = boundary if times[last - 1] >= boundary else 0.0
    low, high = renoise_range(law, end, top, student.margin)
    return law.at is not None or clamped(warp, low, high, floor) <= 1 - ROOM


def fit_range(
    low: float, high: float, bottom: float, top: float, floor: float, warp: float
) -> tuple[float, float]:
    """The nearest range to a wished one, low to high, that a phase has room for.

    It lies in the phase's, bottom to top, and at least a tenth of what lies above the floor is in
    it. Where most times would be clamped to the floor, it begins there.
    """
    least = max(bottom, floor)
    room = ROOM * (top - least)
    high = min(max(high, least + room), top)
    low = max(min(low, high - room), bottom)
    return (low if clamped(warp, low, high, floor) <= 1 - ROOM else floor), high


def clamped(shift: float, low: float, high: float, floor: float) -> float:
    """The share of re-noising times that are clamped to a floor."""
    raw_low, raw_high = raw_time(low, shift), raw_time(high, shift)
    return (raw_time(max(floor, low), shift) - raw_low) / (raw_high - raw_low)
