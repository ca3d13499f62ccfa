"""A phase's trainer as `pdmd distill` has it, but for files: random weights, prompts of noise."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pdmd.config.experiment import Config
from pdmd.config.sections import ReleasedData, Run, latent_size, parse_size, tokens_of
from pdmd.data.conditions import Conditions, Prompts
from pdmd.data.sources import CHANNELS, IMAGE_CHANNELS
from pdmd.models.base import Condition, Space, VelocityField, VelocityNetwork
from pdmd.models.blank import blank_velocity, text_width
from pdmd.models.experts import Absent, Experts
from pdmd.models.families import Family
from pdmd.models.source import architecture_of
from pdmd.models.speed import hasten
from pdmd.phases import Phase
from pdmd.roles import Roles
from pdmd.stages.stage import BASE_SEED, Stage
from pdmd.starts import NoiseStarts, Starts
from pdmd.streams import Stream
from pdmd.training.world import ALONE, World

AWAY = "idle expert"  # the part of what waits in main memory
TEXT_ROWS = 512  # token rows of a prompt, assumed; what Wan's text is padded to in any case


class Rehearsal(Stage):
    """A stage of a released model that reads no file.

    Args:
        size: of its samples, `81x480x832`; depth: blocks of a transformer, its own where it is
            None; text_rows: token rows of a prompt.

    Attributes:
        measured: whether updates are made in earnest, as fast as they are configured.
    """

    measured = False

    def __init__(
        self,
        config: Config,
        size: str,
        world: World = ALONE,
        depth: int | None = None,
        text_rows: int = TEXT_ROWS,
    ):
        self.size, self.text_rows = size, text_rows
        super().__init__(config, world)
        if depth is not None:
            self.architecture["num_layers"] = depth

    def _conditions(self) -> tuple[Conditions, Space]:
        """One prompt of noise, which all samples have, and a null prompt."""
        self.architecture = architecture_of(self.run.model, self.run.results)
        family, width = self.family, text_width(self.architecture)
        assert family is not None, "a released model"
        shape = (CHANNELS, *latent_size(parse_size(self.size)))
        space = Space(shape, prompts=2, text_width=width)
        generator = torch.Generator().manual_seed(0)
        rows = torch.randn(2 * self.text_rows, width, generator=generator).bfloat16()
        starts = torch.tensor([0, self.text_rows, 2 * self.text_rows])
        images = None
        if family.image_channels:
            images = torch.randn(1, IMAGE_CHANNELS, *shape[1:], generator=generator).bfloat16()
            space = Space(shape, 0, 2, width, 1, IMAGE_CHANNELS)
        device = self.world.device
        return Prompts(rows, starts, 1, family.text_length, None, images, device), space

    def prompts(self, stream: Stream, batch: int) -> Condition:
        """The one prompt, with the one picture, as often as this process has samples."""
        rows = len(range(batch)[stream.share])
        index = torch.zeros(rows, 2) if self.space.images else torch.zeros(rows)
        return self.conditions.values(index.long())

    def _released(self, family: Family, trainable: bool) -> VelocityNetwork:
        model = self.run.model
        dtype = torch.float32 if trainable else getattr(torch, model.dtype)
        network = self._blank(family, dtype)
        if self.measured:
            hasten(network, model.attention, model.compile, "bench")
        return network.requires_grad_(trainable)

    def _fill(self, network: VelocityNetwork) -> None:
        """A sharded network has the values that it had whole."""

    def _blank(self, family: Family, dtype: torch.dtype) -> VelocityNetwork:
        device, boundary = self.world.device, self.run.model.boundary
        return blank_velocity(family, self.architecture, dtype, device, boundary, self.called)

    def experts(self, seeds: list[int], phases: tuple[Phase, ...]) -> list[VelocityField]:
        """Frozen experts of the phases, untrained."""
        velocities: list[VelocityField] = []
        for phase in phases:
            name = f"phase{phase.number}"
            expert: VelocityField = (
                self.shared.add(name, BASE_SEED, experts=phase.called)
                if self.adapts
                else self._whole(1, phase.called, False)
            )
            velocities += [expert] * (phase.last - phase.first)
        return velocities

    def starts(self, phase: Phase) -> Starts:
        """Where a phase's rollouts start: noise, the frozen experts, or noise in a bank's place."""
        bank, shape = self.run.bank, self.space.shape
        online = phase.number > 1 and not bank.rows
        experts = self.experts([0], self.phases[: phase.number - 1]) if online else []
        times, at_once = phase.times, self.run.distill.microbatch
        return NoiseStarts(self.flow, experts, times, shape, self.prompts, at_once)


def weights_of(stage: Rehearsal, roles: Roles) -> dict[str, list[Tensor]]:
    """All weights that are in memory while a phase trains, by what they are for."""
    parts = {name: list(role.parameters()) for name, role in roles.states().items()}
    away: set[int] = set()
    teacher = stage.shared.network if stage.adapts else getattr(roles.teacher, "field", None)
    networks = [teacher] if isinstance(teacher, VelocityNetwork) else []
    networks += [one for one in roles.states().values() if isinstance(one, VelocityNetwork)]
    if (
        stage.run.model.offload == "idle"
        and isinstance(teacher, Experts)
        and not (isinstance(teacher.high, Absent) or isinstance(teacher.low, Absent))
    ):
        away = {id(t) for t in teacher.low.parameters()}  # one of them: they are of one size
    named = {id(p) for tensors in parts.values() for p in tensors}
    every = [t for net in networks for t in (*net.parameters(), *net.buffers(), *_plain(net))]
    base = [t for t in every if id(t) not in named]
    waiting = [t for t in base if id(t) in away]
    return {**parts, "base": [t for t in base if id(t) not in away], AWAY: waiting}


def _plain(network: VelocityNetwork) -> list[Tensor]:
    """Tensors of modules that are neither weights nor buffers: Qwen-Image's rotations."""
    values = [value for module in network.modules() for value in vars(module).values()]
    return [value for value in values if isinstance(value, Tensor)]


def largest_first(data: ReleasedData) -> list[str]:
    """The sizes of a data section, those of most tokens first, one of each number of tokens."""
    by_tokens = {tokens_of(size): size for size in reversed(data.sizes)}
    return [by_tokens[count] for count in sorted(by_tokens, reverse=True)]


def shares_of(data: ReleasedData) -> Mapping[int, float]:
    """Number of tokens -> the share of the updates that have so many."""
    shares: dict[int, float] = {}
    for size, share in zip(data.sizes, data.shares, strict=True):
        shares[tokens_of(size)] = shares.get(tokens_of(size), 0.0) + share
    return shares


def local_rows(run: Run, processes: int) -> int:
    """Samples of an update that one process has, of some their tokens alone those of its part."""
    return run.distill.batch * run.distill.parallel.context // processes
