"""The measure stage: how wrong the teacher's few-step solutions are, over all steps t -> s.

One fine trajectory a sample passes through all levels. An Euler step is linear in s - t, so one
velocity at each level gives the steps to all lower ones; each result is then carried on to t = 0
by the fine solution, a level at a time, all steps that have ended there at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from pdmd.config.budget import calls_of
from pdmd.config.experiment import Config
from pdmd.files import provenance
from pdmd.files.storage import write_json
from pdmd.flow import Flow, step_to
from pdmd.grids import lattice
from pdmd.models.base import Condition, VelocityField, take
from pdmd.objectives import full_like_time
from pdmd.stages.outputs import MEASURED, measure_reads
from pdmd.stages.sample import CHUNK
from pdmd.stages.stage import BASE_SEED, Stage, prepare
from pdmd.streams import Stream
from pdmd.training.world import ALONE, World

PENDING = 2**24  # numbers of x that are carried on at a time
DIGITS = 8  # of a measured error


@dataclass(frozen=True)
class Fine:
    """The fine solution of a velocity: midpoint steps, of second order, with two calls each.

    Attributes:
        substeps: midpoint steps from a level to the next one.
    """

    flow: Flow
    velocity: VelocityField
    substeps: int

    def call(self, x: Tensor, t: float, condition: Condition) -> Tensor:
        """The velocity of (N, ...) rows at one time, some rows after others."""
        rows = max(1, CHUNK // math.prod(x.shape[1:]))
        parts = []
        for first in range(0, len(x), rows):
            part = slice(first, first + rows)
            given = x[part]
            parts.append(self.velocity(given, full_like_time(t, given), take(condition, part)))
        return torch.cat(parts)

    def step(self, x: Tensor, v: Tensor, t: float, s: float) -> Tensor:
        """The Euler step, DDIM's of a general schedule."""
        return step_to(self.flow, x, v, full_like_time(t, x), full_like_time(s, x))

    def __call__(self, x: Tensor, t: float, s: float, condition: Condition) -> Tensor:
        """Carry (N, ...) rows from time t to time s; no velocity at s itself is asked for."""
        times = [t + (s - t) * i / self.substeps for i in range(self.substeps)] + [s]
        for start, end in pairwise(times):
            middle = (start + end) / 2
            half = self.step(x, self.call(x, start, condition), start, middle)
            x = self.step(x, self.call(half, middle, condition), start, end)
        return x


@torch.no_grad()
def step_errors(
    fine: Fine, levels: Sequence[float], noise: Tensor, condition: Condition, carried: bool
) -> tuple[Tensor, Tensor | None]:
    """Squared errors, a mean over the numbers of x, of one step between any two levels.

    Args:
        noise: (N, ...) where the trajectories start; carried: whether errors at the end are asked.
    Returns:
        (N, L, L) errors at the level that a step ends at, [n, i, j] from level i to j > i, and
        those at t = 0 of the fine solution from there, or None.
    """
    last = len(levels) - 1
    points = [noise]
    for t, s in pairwise(levels):
        points.append(fine(points[-1], t, s, condition))
    velocities = [fine.call(points[i], levels[i], condition) for i in range(last)]
    local = torch.zeros(len(noise), last + 1, last + 1, dtype=torch.float64)
    at_end = torch.zeros_like(local) if carried else None
    pending, steps = noise[:0], list[tuple[int, int]]()
    for j in range(1, last + 1):
        ended = [fine.step(points[i], velocities[i], levels[i], levels[j]) for i in range(j)]
        for i, x in enumerate(ended):
            local[:, i, j] = _square(x, points[j])
        if at_end is None:
            continue
        steps += [(i, j) for i in range(j)]
        pending = torch.cat([pending, *ended])
        if j < last:
            number = torch.arange(len(noise)).repeat(len(steps))
            rows = None if condition is None else take(condition, number)
            pending = fine(pending, levels[j], levels[j + 1], rows)
    if at_end is not None:
        for (i, j), x in zip(steps, pending.split(len(noise)), strict=True):
            at_end[:, i, j] = _square(x, points[last])
    return local, at_end


def _square(x: Tensor, true: Tensor) -> Tensor:
    """(N,) mean squared differences of the samples."""
    return (x - true).double().square().flatten(1).mean(1).cpu()


def measure_steps(config: Config, world: World = ALONE) -> None:
    """Write the errors of the scenario's teacher, each process measuring its share of samples."""
    prepare(config)
    stage = Stage(config, world)
    spec = stage.run.measure
    carried, rows, shape = spec.error == "end", spec.samples, stage.space.shape
    stream = Stream([spec.seed], 0, "measure", world.device, world.samples)
    noise, index = stream.normal(rows, shape), stage.data.prompts(stream, rows)
    levels, teacher = lattice(spec.levels), stage.teacher(1)
    fine = Fine(stage.flow, teacher, spec.substeps)
    each = max(1, PENDING // (math.prod(shape) * (spec.levels**2 // 2 if carried else 1)))
    parts = []
    for first in range(0, len(noise), each):
        part = slice(first, first + each)
        condition = stage.conditions.values(None if index is None else index[part])
        local, end = step_errors(fine, levels, noise[part], condition, carried)
        parts.append(torch.stack([local] if end is None else [local, end], 1))
    found = world.gather(torch.cat(parts), rows, 1).mean(0)
    if not world.leads:
        return
    value = {
        "levels": list(levels),
        "step": _rounded(found[0]),
        "end": _rounded(found[1]) if carried else None,
        "calls_a_sample": calls_of(spec.levels, spec.substeps, carried, teacher.calls),
        "samples": rows,
        "teacher": config["teacher"],
    }
    path = stage.paths.base(MEASURED[0])
    write_json(path, value)
    reads = measure_reads(stage.run)
    provenance.record(path.with_name(MEASURED[-1]), config, [BASE_SEED], reads, MEASURED)


def _rounded(errors: Tensor) -> list[list[float]]:
    return [[float(f"{value:.{DIGITS}g}") for value in row] for row in errors.tolist()]
