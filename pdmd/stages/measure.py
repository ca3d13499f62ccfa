"""The measure stage: how wrong the teacher's few-step solutions are, over all steps t -> s.

One fine trajectory a sample passes through all levels. An Euler step is linear in s - t, so one
velocity at each level gives the steps to all lower ones; each result is then carried on to t = 0
by the fine solution, a level at a time, all steps that have ended there at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from pdmd.config.budget import calls_of
from pdmd.config.experiment import Config
from pdmd.errors import UserError
from pdmd.files import provenance
from pdmd.files.storage import write_json
from pdmd.flow import Flow, step_to
from pdmd.grids import lattice
from pdmd.models.base import Condition, VelocityField, take
from pdmd.objectives import full_like_time
from pdmd.stages.outputs import MEASURED, measure_reads
from pdmd.stages.sample import CHUNK
from pdmd.stages.stage import BASE_SEED, Stage, prepare
from pdmd.starts import slices
from pdmd.streams import Stream
from pdmd.training.cost import Cost, peak_memory_mb
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
        for part in slices(len(x), rows):
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


def by_sample(
    stage: Stage, at_once: int, measured: Callable[[Tensor, Condition], Tensor]
) -> Tensor:
    """What is measured of each sample's noise and prompt, each process having its share of them.

    Args:
        at_once: samples that are measured at a time; measured: of (N, ...) noise and N conditions
            -> (N, ...) on the CPU.
    Returns:
        (samples, ...), in every process.
    Raises:
        UserError: there are fewer samples than processes.
    """
    spec, world = stage.run.measure, stage.world
    if spec.samples < world.size:
        raise UserError(
            f"measure.samples: {spec.samples}: expected at least one for each of {world.size}"
            " processes"
        )
    stream = Stream([spec.seed], 0, "measure", world.device, world.samples)
    noise = stream.normal(spec.samples, stage.space.shape)
    index = stage.data.prompts(stream, spec.samples)
    parts = []
    for part in slices(len(noise), at_once):
        condition = stage.conditions.values(None if index is None else index[part])
        parts.append(measured(noise[part], condition))
    return world.gather(torch.cat(parts), spec.samples)


def write_cost(path: Path, cost: Cost, calls: Mapping[str, int], world: World) -> None:
    """Write what a measurement cost, as training says it: calls are of each sample."""
    value = {
        "updates": 0,
        "seconds": round(sum(cost.seconds.values()), 3),
        "runs_trained_together": 1,
        "peak_memory_mb": round(peak_memory_mb(), 1),
        "forward_equivalents_by_role": dict(calls),
        "processes": world.size,
    }
    write_json(path, value)


def measure_steps(config: Config, world: World = ALONE) -> None:
    """Write the errors of the scenario's teacher, each process measuring its share of samples."""
    prepare(config)
    stage = Stage(config, world)
    spec, cost = stage.run.measure, Cost(world.device)
    carried, numbers = spec.error == "end", math.prod(stage.space.shape)
    levels, teacher = lattice(spec.levels), stage.teacher(1)
    fine = Fine(stage.flow, teacher, spec.substeps)

    def measured(noise: Tensor, condition: Condition) -> Tensor:
        local, end = step_errors(fine, levels, noise, condition, carried)
        return torch.stack([local] if end is None else [local, end], 1)

    at_once = max(1, PENDING // (numbers * (spec.levels**2 // 2 if carried else 1)))
    with cost.time("measure"):
        found = by_sample(stage, at_once, measured).mean(0)
    if not world.leads:
        return
    calls = calls_of(spec.levels, spec.substeps, carried, teacher.calls)
    value = {
        "levels": list(levels),
        "step": _rounded(found[0]),
        "end": _rounded(found[1]) if carried else None,
        "calls_a_sample": calls,
        "samples": spec.samples,
        "teacher": config["teacher"],
    }
    path = stage.paths.base(MEASURED[0])
    write_json(path, value)
    write_cost(path.with_name(MEASURED[1]), cost, calls, world)
    reads = measure_reads(stage.run)
    provenance.record(path.with_name(MEASURED[-1]), config, [BASE_SEED], reads, MEASURED)


def _rounded(errors: Tensor) -> list[list[float]]:
    return [[float(f"{value:.{DIGITS}g}") for value in row] for row in errors.tolist()]
