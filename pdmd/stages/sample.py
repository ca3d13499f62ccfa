"""The sample stage: every seed's samples of record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from pdmd.config.experiment import Config
from pdmd.data.conditions import Prompts
from pdmd.data.shards import join_shards
from pdmd.data.sources import even_prompts
from pdmd.files import provenance
from pdmd.files.storage import (
    save_tensors,
    write_json,
)
from pdmd.models.base import Index, VelocityField
from pdmd.models.families import qwen_shift, stretched
from pdmd.phases import step_grid
from pdmd.rollout import sample
from pdmd.stages.grid import plan_of
from pdmd.stages.mixed import Rows, by_parts
from pdmd.stages.outputs import PROVENANCE, SAMPLES, condition_reads, sampler_reads
from pdmd.stages.stage import Stage, batches, prepare
from pdmd.streams import Stream
from pdmd.training.loop import clear_state
from pdmd.training.world import ALONE, World

CHUNK = 2**18  # numbers of x that a network sees at a time when it samples


def sample_method(config: Config, seeds: list[int], world: World = ALONE) -> None:
    """Draw every seed's samples of record; equal seeds see equal noise in every method."""
    prepare(config)
    stage = Stage(config, world)
    for together in batches(stage.run, seeds):
        if stage.family is None:
            _sample_together(stage, together)
        else:
            _sample_by_parts(stage, together[0])


@torch.no_grad()
def from_noise(
    stage: Stage,
    velocities: Sequence[VelocityField],
    times: tuple[float, ...],
    role: str,
    seeds: list[int],
    rows: int,
    index: Index = None,
) -> tuple[Tensor, Index]:
    """Draw noise (and conditions, unless given) and take len(velocities) steps.

    The processes of a job share the rows out, and all of them return all.

    Args:
        role: of the stream that is drawn from; index: (rows * runs, ...) of conditions.
    Returns:
        (rows * runs, ...) samples, and the indices of their conditions.
    """
    world, runs, shape = stage.world, len(seeds), stage.space.shape
    stream = Stream(seeds, 0, role, world.device, world.samples)
    noise = stream.normal(rows, shape)
    index = stage.data.prompts(stream, rows) if index is None else world.share(index, runs)
    chunk = max(1, CHUNK // math.prod(shape)) * runs
    parts = []
    for start in range(0, len(noise), chunk):
        rows_of_chunk = slice(start, start + chunk)
        condition = stage.conditions.values(None if index is None else index[rows_of_chunk])
        parts.append(sample(stage.flow, velocities, times, noise[rows_of_chunk], condition))
    x = world.gather(torch.cat(parts), rows, runs)
    return x, None if index is None else world.gather(index, rows, runs)


def _sample_together(stage: Stage, seeds: list[int]) -> None:
    rows = stage.run.evaluate.samples
    velocities, times = trained_sampler(stage, seeds)
    x, condition = draw_samples(stage, velocities, times, seeds, rows)
    if not stage.world.leads:
        return
    for run, seed in enumerate(seeds):
        tensors = {"x": x[run :: len(seeds)]}
        if condition is not None:
            tensors["condition"] = condition[run :: len(seeds)]
        _write(stage, seed, tensors)


def _write(stage: Stage, seed: int, tensors: dict[str, Tensor]) -> None:
    """Write a seed's samples of record."""
    config, run = stage.config, stage.run
    path = stage.paths.seed(seed, "samples.safetensors")
    metadata = {"scenario": config["scenario"], "method": config["method"], "seed": str(seed)}
    save_tensors(path, tensors, metadata)
    inputs = [*condition_reads(run), *sampler_reads(run, seed)]
    write_json(path.with_name("config.json"), config)
    provenance.record(path.with_name(PROVENANCE), config, [seed], inputs, SAMPLES)


def _sample_by_parts(stage: Stage, seed: int) -> None:
    """Samples of a released model: kept one by one, since each may take minutes."""
    rows, conditions = stage.run.evaluate.samples, stage.conditions
    assert isinstance(conditions, Prompts)
    velocities, times = trained_sampler(stage, [seed])
    index = even_prompts(conditions.evaluation, rows, 1)
    drawn = Rows(stage, velocities, times, noise_of(stage), seed, stage.space, conditions)
    paths = by_parts(stage, "sample", seed, rows, partial(drawn, index=index))
    if stage.world.leads:
        _write(stage, seed, join_shards(paths))
        clear_state(paths[0].parent)


def draw_samples(
    stage: Stage,
    velocities: list[VelocityField],
    times: tuple[float, ...],
    seeds: list[int],
    rows: int,
) -> tuple[Tensor, Index]:
    """Evaluation samples (rows * runs, ...) from noise that depends on seed and draw alone."""
    index = even_prompts(stage.conditions.evaluation, rows, len(seeds))
    return from_noise(stage, velocities, times, noise_of(stage), seeds, rows, index)


def noise_of(stage: Stage) -> str:
    """The role of the stream that samples of record start from; a further draw has its own."""
    draw = stage.run.evaluate.draw
    return "sample" if draw == 1 else f"sample/{draw}"


def trained_sampler(
    stage: Stage, seeds: list[int]
) -> tuple[list[VelocityField], tuple[float, ...]]:
    """The velocity of every step and the step grid of a method's final sampler."""
    if stage.run.kind == "teacher":
        steps = stage.run.teacher.steps
        return [stage.teacher(len(seeds))] * steps, teacher_times(stage)
    return stage.experts(seeds, stage.phases), stage.phases[0].times


TERMINAL = 0.02  # of Qwen-Image's released scheduler: the last noise level of its stretched grid


def teacher_times(stage: Stage) -> tuple[float, ...]:
    """The step grid of the teacher's own samples; without a shift Qwen-Image's for its size."""
    spec = stage.run.teacher
    if spec.grid is not None or spec.shift is not None:
        return plan_of(stage.run).times
    *_, height, width = stage.space.shape
    return stretched(step_grid(spec.steps, qwen_shift(height // 2 * (width // 2))), TERMINAL)
