"""One update of a phase's trainer on fake tensors: what it holds at each moment, and calculates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pdmd.config.experiment import Config, merge
from pdmd.config.run import read_run
from pdmd.config.sections import Balance
from pdmd.distill import Begun, Draws, Noised, PhaseTrainer, Samples
from pdmd.models.base import Prompted, VelocityNetwork, given
from pdmd.models.families import Family
from pdmd.planning.fakes import Fakes, FakeStream, gathering, pretended_group
from pdmd.planning.live import Live, Segment
from pdmd.planning.rehearsal import TEXT_ROWS, Rehearsal, weights_of
from pdmd.rollout import Rollout
from pdmd.stages.distill import phase_recipe
from pdmd.streams import Stream
from pdmd.training.cost import Cost
from pdmd.training.parallel import mesh_of
from pdmd.training.world import World

FAKE_ROLE = "fake"
FAKE, GENERATOR = "fake update", "generator update"
ROLLOUT, OPTIMIZER = "rollout", "optimizer"


class Clock(Cost):
    """Tells the counter which role works, in the place of taking its time."""

    def __init__(self, live: Live):
        super().__init__()
        self.live, self.update = live, GENERATOR

    @contextmanager
    def time(self, role: str) -> Iterator[None]:
        """Count the block as a piece of its own."""
        with self.live.segment(f"{self.update}: {role}"):
            yield


class CountedTrainer(PhaseTrainer):
    """A phase's trainer whose update is told apart: which role works, and at what."""

    cost: Clock
    live: Live
    fakes: Fakes

    def prepare(self, live: Live, fakes: Fakes, weights: dict[str, Any], several: bool) -> None:
        """Have everything counted that is there between two updates.

        Args:
            weights: part -> tensors; several: whether gradients are there already when the one
                part of an update is trained on, those of parts before it.
        """
        self.live, self.fakes, self.cost, self.several = live, fakes, Clock(live), several
        self.calls: dict[str, float] = defaultdict(float)
        for part, tensors in weights.items():
            live.adopt(tensors, part)
        every = [p for parameters in self.parameters.values() for p in parameters]
        self.hooks = [p.register_post_accumulate_grad_hook(self._collected) for p in every]
        with live.part("optimizer"):
            for role in self.parameters:
                self._settle(role)

    def release(self) -> None:
        """Let go of all tensors: the garbage collector does not see through their hooks."""
        for hook in self.hooks:
            hook.remove()
        for parameters in self.parameters.values():
            for p in parameters:
                p.grad = None
        for one in self.optimizers.values():
            one.state.clear()

    def _settle(self, role: str) -> None:
        """Make an optimiser's state; the generator's gradients stay until its next update."""
        self._add_gradients(role)
        for part in self.parts[role]:
            self.optimizers[part.name].step()
        if role == FAKE_ROLE:
            super()._clear(role)

    def _add_gradients(self, role: str, expert: str = "") -> None:
        with self.live.part("gradients"):
            for part in self.parts[role]:
                for p in part.parameters if part.name.endswith(expert) else ():
                    p.grad = torch.zeros_like(p)

    def _clear(self, role: str) -> None:
        super()._clear(role)
        if self.several and not (role == FAKE_ROLE and self.recipe.region == "update"):
            self._add_gradients(role)

    def _fake_loss(
        self, v: Tensor, x_t: Tensor, made: Rollout, noised: Noised, s: Tensor
    ) -> Tensor:
        if self.several and self.recipe.region == "update":  # of the expert that is used
            two = len(self.parts[FAKE_ROLE]) > 1
            side = "high" if bool((noised.t >= self.phase.switch).all()) else "low"
            self._add_gradients(FAKE_ROLE, side if two else "")
        return super()._fake_loss(v, x_t, made, noised, s)

    def _collected(self, p: Tensor) -> None:
        assert p.grad is not None
        self.live.adopt([p.grad], "gradients")

    def _stream(self, step: int, role: str) -> Stream:
        stream = FakeStream(self.seeds, step, role, self.world.device, self.world.samples)
        stream.fakes = self.fakes
        return stream

    def _begin(self, stream: Stream) -> Begun:
        with self.cost.time("start"), self.live.part("batch"):
            return super()._begin(stream)

    def _noise(self, stream: Stream, shape: Sequence[int]) -> Noised:
        with self.live.part("batch"):
            return super()._noise(stream, shape)

    def _drawn(self, stream: Stream) -> Draws:
        with self._within(FAKE):
            return super()._drawn(stream)

    def _carried(self, draws: list[Draws]) -> list[Draws]:
        with self._within(FAKE):
            return super()._carried(draws)

    def _update_fake(self, step: int, draws: Draws) -> tuple[Tensor, Tensor]:
        with self._within(FAKE):
            return super()._update_fake(step, draws)

    def _update_generator(self, step: int, made: Samples | None) -> dict[str, Tensor]:
        with self._within(GENERATOR):
            return super()._update_generator(step, made)

    @contextmanager
    def _within(self, update: str) -> Iterator[None]:
        before, self.cost.update = self.cost.update, update
        try:
            yield
        finally:
            self.cost.update = before

    def _rollout(self, begun: Begun, carried: bool = False) -> Rollout:
        with self.cost.time(ROLLOUT):
            made = super()._rollout(begun, carried)
        self.calls[f"{self.cost.update}: {ROLLOUT}"] += made.calls * len(begun.x)
        return made

    def _backward(self, loss: Tensor, share: float) -> Tensor:
        with self.cost.time("backward"):
            return super()._backward(loss, share)

    def _descend(self, role: str, loss: Tensor, step: int) -> tuple[Tensor, Tensor]:
        with self.cost.time(OPTIMIZER):
            return super()._descend(role, loss, step)


class FakeRehearsal(Rehearsal):
    """A stage whose networks are fake."""

    fakes: Fakes

    def _blank(self, family: Family, dtype: torch.dtype) -> VelocityNetwork:
        with self.fakes:
            return super()._blank(family, dtype)

    def prompts(self, stream: Stream, batch: int) -> Prompted:
        """Fake text and pictures, whose lengths are real."""
        one = given(super().prompts(stream, batch))
        with self.fakes:
            text, images = (
                None if tensor is None else torch.empty(tensor.shape, dtype=tensor.dtype)
                for tensor in (one.text, one.images)
            )
        assert text is not None
        return Prompted(text, one.lengths, images)


@dataclass(frozen=True)
class Counted:
    """What an update was seen to take.

    Attributes:
        segments: of it, by update and role; rows: of the process; calls: network calls of rollouts
            in rows, by segment; weights: part -> bytes.
    """

    segments: dict[str, Segment]
    rows: int
    calls: Mapping[str, float]


def count_update(
    config: Config,
    phase_number: int,
    size: str,
    processes: int,
    depth: int,
    rows: int,
    several: bool,
    text_rows: int = TEXT_ROWS,
    sharded: bool = False,
) -> Counted:
    """Run an update with one fake update on fake tensors, in one process of a group of fakes.

    Args:
        size: of the samples; processes: that share a batch; depth: blocks of a transformer; rows:
            samples of this process; several: whether they are one part of several of its update;
        sharded: whether processes share weights, gradients and moments out; of two experts none
            waits in main memory then.
    """
    fakes, live = Fakes(), Live()
    if sharded:
        config = merge(config, {"model": {"offload": "none"}})
    context = read_run(config).distill.parallel.context
    world = World(size=processes).sharing_tokens(context)
    stage = FakeRehearsal.__new__(FakeRehearsal)
    stage.fakes = fakes
    stage.__init__(config, size, world, depth, text_rows)  # type: ignore[misc]
    phase = stage.phase(phase_number)
    roles = stage.roles(phase, 1)
    recipe = replace(
        phase_recipe(stage.run, phase),
        batch=rows * world.shares,
        fake_updates=1,
        fake_lr=0.0,  # a rate of zero asks no tensor whether it has moved
        generator_lr=0.0,
        balance=Balance(),
    )
    if recipe.checkpointing:
        stage.checkpoint_activations(roles)
    with pretended_group(processes), mesh_of(world) as mesh:
        if context > 1:
            stage.share_tokens(roles)
        starts = stage.starts(phase)
        if sharded:
            with fakes:
                roles = stage.shard(roles, mesh)
        weights = weights_of(stage, roles)
        roles = replace(roles, frozen={})
        trainer = CountedTrainer(stage.flow, phase, recipe, roles, starts, [0], world)
        with live, gathering(live, fakes):
            trainer.prepare(live, fakes, weights, several)
            trainer.update(0)
        trainer.release()
    return Counted(live.segments, rows, trainer.calls)
