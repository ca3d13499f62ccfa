"""Released models at several sizes: where phases start, and the banks of intermediate latents."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pdmd.config.sections import ReleasedData
from pdmd.data.conditions import Prompts
from pdmd.data.shards import Shards, Tensors, keep_shards, make_shards, open_shards
from pdmd.data.sources import released_conditions
from pdmd.errors import UserError
from pdmd.files.contents import header, take
from pdmd.files.storage import fingerprint
from pdmd.models.base import Condition, Index, Space, VelocityField
from pdmd.phases import Phase
from pdmd.rollout import sample
from pdmd.stages.stage import Stage
from pdmd.starts import MappedStarts, MixedStarts, NoiseStarts, Starts
from pdmd.streams import Stream


def data_of(stage: Stage) -> ReleasedData:
    """The data section of a released model."""
    data = stage.run.data
    assert isinstance(data, ReleasedData)
    return data


def at_size(stage: Stage, size: str) -> tuple[Prompts, Space]:
    """Prompts and pictures of one size, and what samples of it live on."""
    folder, family = stage.paths.scenario / "data", stage.family
    length = None if family is None else family.text_length
    return released_conditions(data_of(stage), folder, length, stage.world.device, size)


def mixed_starts(stage: Stage, phase: Phase, seeds: list[int]) -> MixedStarts:
    """Where a phase's rollouts start: noise, or what the frozen experts hand on, at every size."""
    data, banked = data_of(stage), phase.number > 1 and stage.run.bank.used
    before = () if banked else stage.phases[: phase.number - 1]
    experts = stage.experts(seeds, before)
    folder = stage.paths.bank(seeds[0], phase.number)
    starts: list[Starts] = []
    for size in data.sizes:
        conditions, space = at_size(stage, size)
        if banked:
            x, index = open_bank(folder / size, space, seeds[0])
            starts.append(MappedStarts(x, index, conditions.values, stage.world.device))
        else:
            prompts, at_once = _Pool(stage, conditions), stage.run.distill.microbatch
            starts.append(
                NoiseStarts(stage.flow, experts, phase.times, space.shape, prompts, at_once)
            )
    return MixedStarts(starts, data.shares)


@dataclass(frozen=True)
class _Pool:
    """Prompts to train on, as networks are given them at one size."""

    stage: Stage
    conditions: Prompts

    def __call__(self, stream: Stream, batch: int) -> Condition:
        return self.conditions.values(self.stage.data.prompts(stream, batch))


def rows_of(data: ReleasedData, rows: int) -> dict[str, int]:
    """Rows of a bank by size, one at least."""
    shares = zip(data.sizes, data.shares, strict=True)
    return {size: max(1, round(rows * share)) for size, share in shares}


def make_banks(stage: Stage, phase: Phase, seed: int) -> None:
    """Run the frozen experts of the phases before a phase once, at every size."""
    before, world = stage.phases[: phase.number - 1], stage.world
    experts, bank = stage.experts([seed], before), stage.run.bank
    folder = stage.paths.bank(seed, phase.number)
    if world.leads:
        shutil.rmtree(folder, ignore_errors=True)
    for size, rows in rows_of(data_of(stage), bank.rows).items():
        conditions, space = at_size(stage, size)
        drawn = Rows(stage, experts, phase.times, f"bank/{size}", seed, space, conditions)
        state = state_of(stage, f"bank{phase.number}-{size}", [seed])
        index = stage.data.prompts(Stream([seed], 0, drawn.role), rows)  # as training draws them
        make = partial(drawn, index=index)
        make_shards(state, rows, bank.shard_rows, make, world.rank, world.size)
        world.barrier()
        if world.leads:
            keep_shards(state, folder / size, rows, {"seed": seed, "size": size})


def open_bank(folder: Path, space: Space, seed: int) -> tuple[Shards, Tensor]:
    """Rows of intermediate latents, mapped from disk, and the conditions (rows,) or (rows, 2).

    Raises:
        UserError: names the file that is missing or wrong.
    """
    index, shards = open_shards(folder, ["seed"])
    if index["seed"] != seed:
        raise UserError(f"{folder}: seed: {index['seed']}: expected {seed}")
    x, conditions, columns = [], [], () if space.images is None else (2,)
    for number, one in enumerate(shards):
        where = folder / f"shard {number}"
        x.append(header(where, one, "x", (None, *space.shape)))
        conditions.append(take(where, one, "condition", (len(x[-1]), *columns), torch.int64, 0))
    return Shards(x), torch.cat(conditions)


@dataclass(frozen=True)
class Rows:
    """Samples of one seed by their numbers, whoever draws them, and however many at a time.

    Attributes:
        velocities, times: of the steps that they take; role: of the stream that is drawn from.
    """

    stage: Stage
    velocities: Sequence[VelocityField]
    times: tuple[float, ...]
    role: str
    seed: int
    space: Space
    conditions: Prompts

    @torch.no_grad()
    def __call__(self, first: int, end: int, index: Index) -> Tensors:
        """Rows first .. end - 1, one at a time, and the conditions that they are drawn for.

        Args:
            index: of conditions, of all rows.
        """
        assert index is not None
        stage, parts = self.stage, []
        stream = Stream([self.seed], 0, self.role, stage.world.device)
        for row in range(first, end):
            noise = stream.normal_rows([row], self.space.shape)
            condition = self.conditions.values(index[row : row + 1])
            x = sample(stage.flow, self.velocities, self.times, noise, condition)
            parts.append(x.cpu())
        return {"x": torch.cat(parts), "condition": index[first:end].clone()}


def state_of(stage: Stage, name: str, seeds: list[int]) -> Path:
    """A folder for finished parts of a job, of this very configuration's."""
    digest = fingerprint(stage.config)[:12]
    return stage.paths.state(f"{name}-{digest}", seeds)


def by_parts(
    stage: Stage, name: str, seed: int, total: int, make: Callable[[int, int], Tensors]
) -> list[Path]:
    """Files of a row each, made by all processes; a killed job goes on behind its last one."""
    world, state = stage.world, state_of(stage, name, [seed])
    paths = make_shards(state, total, 1, make, world.rank, world.size)
    world.barrier()
    return paths
