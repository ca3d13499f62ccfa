"""The range stage: the re-noising levels of each phase, chosen from how far apart the untrained
student's samples and the teacher's are at the phase's end.

The untrained student is the teacher itself in the student's few steps. Both start from one noise;
one velocity at each step gives the exit there and the next step, so all phases and exits take as
many calls as the student has steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from pdmd.config.experiment import Config
from pdmd.config.sections import Student
from pdmd.config.times import fit_range
from pdmd.files import provenance
from pdmd.files.storage import write_json
from pdmd.flow import Flow
from pdmd.grids import lattice
from pdmd.models.base import Condition
from pdmd.overlap import level_of, overlap_at
from pdmd.phases import Phase
from pdmd.stages.measure import PENDING, Fine, by_sample, write_cost
from pdmd.stages.outputs import RANGED, range_reads
from pdmd.stages.stage import BASE_SEED, Stage, prepare
from pdmd.training.cost import Cost
from pdmd.training.world import ALONE, World

OVERLAP = (0.05, 0.95)  # least and greatest share that the two laws have in common
DECIMALS, DIGITS = 6, 4  # of a chosen noise level; of what is said of it
BESIDE = 1e-6  # levels that are so near are one
DRAWN = 40  # points of the curve that is kept


@torch.no_grad()
def exit_gaps(
    fine: Fine,
    levels: Sequence[float],
    phases: Sequence[Phase],
    noise: Tensor,
    condition: Condition,
) -> Tensor:
    """How far the untrained student ends from the teacher, for each step that it may leave at.

    Args:
        levels: from 1 to 0, that the teacher's fine solution passes; noise: (N, ...).
    Returns:
        (N, steps) Euclidean distances at the end of the phase that the step belongs to.
    """
    ends, true, point = {phase.end for phase in phases}, dict[float, Tensor](), noise
    for t, s in pairwise(passed(levels, phases)):
        point = fine(point, t, s, condition)
        if s in ends:
            true[s] = point
    x, gaps = noise, []
    for phase in phases:
        for t, s in pairwise(phase.times[phase.first : phase.last + 1]):
            v = fine.call(x, t, condition)
            left = fine.step(x, v, t, phase.end)
            gaps.append((left - true[phase.end]).double().flatten(1).norm(dim=1))
            x = fine.step(x, v, t, s)
    return torch.stack(gaps, 1).cpu()


def passed(levels: Sequence[float], phases: Sequence[Phase]) -> list[float]:
    """Levels from 1 to 0 with the phases' ends among them, in the place of any just beside them."""
    ends = {phase.end for phase in phases}
    others = {t for t in levels if all(abs(t - end) > BESIDE for end in ends)}
    return sorted(ends | others, reverse=True)


def exit_shares(student: Student, phase: Phase) -> Tensor:
    """The law of a phase's exit steps: (steps of the phase,) shares, which sum to 1."""
    number = torch.arange(1, phase.last - phase.first + 1, dtype=torch.float64)
    if student.backward == "all" or student.exits == "last":
        return (number == len(number)).double()
    shares = number if student.exits == "late" else torch.ones_like(number)
    return shares / shares.sum()


def choose_ranges(config: Config, world: World = ALONE) -> None:
    """Choose the re-noising range of each of a student's phases, and keep what it is chosen by.

    Raises:
        UserError: there are fewer samples than processes.
    """
    prepare(config)
    stage = Stage(config, world)
    spec, cost = stage.run.measure, Cost(world.device)
    phases, levels, teacher = stage.phases_within(None), lattice(spec.levels), stage.teacher(1)
    fine = Fine(stage.flow, teacher, spec.substeps)
    numbers, steps = math.prod(stage.space.shape), stage.run.student.steps
    with cost.time("range"):
        gaps = by_sample(
            stage,
            max(1, PENDING // (numbers * (2 + len(phases)))),
            lambda noise, condition: exit_gaps(fine, levels, phases, noise, condition),
        )
    if not world.leads:
        return
    intervals = len(passed(levels, phases)) - 1
    calls = {"trajectory": 2 * spec.substeps * intervals, "student": steps}
    calls = {name: teacher.calls * count for name, count in calls.items()}
    chosen = [chosen_range(stage, phase, gaps, numbers) for phase in phases]
    value = {
        "ranges": [one["range"] for one in chosen],
        "overlap": list(OVERLAP),
        "phases": chosen,
        "calls_a_sample": calls,
        "samples": spec.samples,
    }
    path = stage.paths.method / RANGED[0]
    write_json(path, value)
    write_cost(path.with_name(RANGED[1]), cost, calls, world)
    reads = range_reads(stage.run)
    provenance.record(path.with_name(RANGED[-1]), config, [BASE_SEED], reads, RANGED)


def chosen_range(stage: Stage, phase: Phase, gaps: Tensor, numbers: int) -> dict[str, Any]:
    """A phase's range as it is written: what was wished, what there is room for, and the curve.

    Args:
        gaps: (N, steps) of `exit_gaps`; numbers: of one x.
    """
    of_phase = gaps[:, phase.first : phase.last]
    shares = exit_shares(stage.run.student, phase)
    wished = wished_range(stage.flow, of_phase, shares, phase.end)
    within = (phase.low, phase.high)
    low, high = fit_range(*wished, *within, phase.floor, phase.shift)
    drawn = [phase.end + (1 - phase.end) * i / DRAWN for i in range(1, DRAWN + 1)]
    curve = [overlap_at(stage.flow, of_phase, shares, phase.end, t) for t in drawn]
    size = ((of_phase.square().mean(0) * shares).sum() / numbers).sqrt()
    return {
        "range": [round(low, DECIMALS), round(high, DECIMALS)],
        "wished": [round(t, DIGITS) for t in wished],
        "within": [round(t, DIGITS) for t in within],
        "end": round(phase.end, DIGITS),
        "gap_a_number": round(float(size), DIGITS),
        "curve": {
            "t": [round(t, DIGITS) for t in drawn],
            "overlap": [round(one, DIGITS) for one in curve],
        },
    }


def wished_range(
    flow: Flow,
    gaps: Tensor,
    shares: Tensor,
    end: float,
    overlap: tuple[float, float] = OVERLAP,
) -> tuple[float, float]:
    """The noise levels where pairs overlap in two shares: gaps and shares as in `overlap_at`."""
    low, high = (level_of(flow, gaps, shares, end, wanted) for wanted in overlap)
    return low, high
