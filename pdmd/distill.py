"""Distribution matching distillation of one phase.

Each iteration fits the fake score to the generator's present samples (`fake_updates` times, Eq. 13
or, in the last phase, Eq. 8) and then moves the generator once along teacher - fake (Eq. 10).
Plain DMD, DMD2 and Phased DMD are this loop with other phases and another cut of the gradient; the
loop knows no model family and no metric.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pdmd import objectives
from pdmd.config.sections import Distill
from pdmd.flow import Flow, renoise
from pdmd.models.base import Condition, Index, VelocityField
from pdmd.phases import Phase
from pdmd.roles import Roles, aligned, trained_parts
from pdmd.rollout import Rollout, exit_steps, sample, simulate_to_end, simulate_to_exit
from pdmd.streams import Stream
from pdmd.training.checkpoint import State
from pdmd.training.cost import Cost
from pdmd.training.optim import (
    average_gradients,
    check_finite,
    clip_gradients,
    gradient_norms,
    scale_lr,
)
from pdmd.training.world import ALONE, World


class Prompts(Protocol):
    """Where conditions come from."""

    def __call__(self, stream: Stream, batch: int) -> Condition: ...


class Starts(Protocol):
    """Where a phase's rollouts start."""

    calls: float

    def __call__(self, stream: Stream, batch: int) -> tuple[Tensor, Condition]: ...


@dataclass(frozen=True, kw_only=True)
class Recipe(Distill):
    """The hyper-parameters of a phase: the `distill` section, `updates` being the phase's share.

    Attributes:
        backward, exits: of the `student` section.
    """

    backward: str
    exits: str


class NoiseStarts:
    """Start from fresh noise and run the frozen experts of earlier phases online."""

    def __init__(
        self,
        flow: Flow,
        experts: Sequence[VelocityField],
        times: tuple[float, ...],
        shape: Sequence[int],
        prompts: Prompts,
    ):
        self.flow, self.experts, self.times = flow, list(experts), times
        self.shape, self.prompts, self.calls = shape, prompts, float(len(experts))

    @torch.no_grad()
    def __call__(self, stream: Stream, batch: int) -> tuple[Tensor, Condition]:
        noise, condition = stream.normal(batch, self.shape), self.prompts(stream, batch)
        return sample(self.flow, self.experts, self.times, noise, condition), condition


class BankStarts:
    """Start from precomputed outputs of the frozen experts.

    Args:
        x: (rows, runs, ...) intermediate latents; index: (rows, runs) or (rows, runs, 2) of
            conditions, or None; values: what indices stand for.
    """

    calls = 0.0

    def __init__(
        self, x: Tensor, index: Index, values: Callable[[Index], Condition] = lambda index: index
    ):
        self.x, self.index, self.values = x, index, values

    def __call__(self, stream: Stream, batch: int) -> tuple[Tensor, Condition]:
        rows, runs = self.x.shape[:2]
        row = stream.integers(batch, rows).to(self.x.device)
        run = torch.arange(runs, device=self.x.device).repeat(len(row) // runs)
        index = None if self.index is None else self.index[row, run]
        return self.x[row, run], self.values(index)


def spread(world: World, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each run's samples in the whole batch.

    With several processes they come from the first two moments in double precision, averaged
    over processes; the deviation is the unbiased one over all of the batch's elements.

    Args:
        x: (B, runs, D) this process's samples.
    Returns:
        (runs,), (runs,).
    """
    if world.size == 1:
        return x.mean((0, 2)), x.std((0, 2))
    wide = x.double()
    mean, square = world.mean(torch.stack([wide.mean((0, 2)), wide.square().mean((0, 2))]))
    count = world.size * x[:, 0].numel()
    variance = (square - mean.square()).clamp_min(0) * count / (count - 1)
    return mean.to(x.dtype), variance.sqrt().to(x.dtype)


class PhaseTrainer:
    """One phase's training state and its update."""

    kept = "average"

    def __init__(
        self,
        flow: Flow,
        phase: Phase,
        recipe: Recipe,
        roles: Roles,
        starts: Starts,
        seeds: Sequence[int],
        world: World = ALONE,
    ):
        world.check_batch(recipe.batch)
        self.world = world
        self.flow, self.phase, self.recipe, self.roles = flow, phase, recipe, roles
        self.starts, self.seeds, self.runs = starts, seeds, len(seeds)
        self.cost = Cost()
        self.rates = {"fake": recipe.fake_lr, "generator": recipe.generator_lr}
        self.states: Mapping[str, State] = roles.states()
        self.parts = {
            "fake": trained_parts("fake", roles.fake),
            "generator": trained_parts("generator", roles.generator),
        }
        self.parameters = {
            role: [p for part in parts for p in part.parameters]
            for role, parts in self.parts.items()
        }
        self.averaged = aligned(roles.average, roles.generator)
        self.optimizers: Mapping[str, torch.optim.Optimizer] = {
            part.name: torch.optim.AdamW(
                part.parameters,
                lr=self.rates[role],
                betas=recipe.betas,
                weight_decay=recipe.weight_decay,
                fused=True,
            )
            for role, parts in self.parts.items()
            for part in parts
        }

    def update(self, step: int) -> dict[str, Tensor]:
        """One iteration; returns (runs,) values to log. Raises FloatingPointError."""
        factor = 1 - (1 - self.recipe.decay) * step / self.recipe.updates
        for role, parts in self.parts.items():
            for part in parts:
                scale_lr(self.optimizers[part.name], factor, self.rates[role])
        fakes = [self._update_fake(step, i) for i in range(self.recipe.fake_updates)]
        losses = torch.stack([loss for loss, _ in fakes])
        record = self._update_generator(step)
        record["fake_loss"] = losses.mean(0)
        record["fake_lag"] = losses[0] - losses[-1]
        record["fake_gradient_norm"] = torch.stack([norm for _, norm in fakes]).mean(0)
        return record

    def _stream(self, step: int, role: str) -> Stream:
        """This process's share of the draws of one update."""
        return Stream(self.seeds, step, role, self.world.device, self.world.samples)

    def _rollout(self, stream: Stream) -> tuple[Rollout, Condition]:
        recipe, phase = self.recipe, self.phase
        x, condition = self.starts(stream, recipe.batch)
        if recipe.backward == "all":
            out = simulate_to_end(self.flow, self.roles.generator, phase, x, condition)
        else:
            if recipe.exits == "stratified":
                exits = exit_steps(phase, recipe.batch, self.runs, stream)  # the whole batch's
                exits = self.world.share(exits, self.runs)
            elif recipe.exits == "last":
                exits = torch.full((len(x),), phase.last - 1)
            else:
                drawn = stream.choice(phase.last - phase.first)
                exits = phase.first + drawn.repeat(len(x) // self.runs)
            out = simulate_to_exit(
                self.flow, self.roles.generator, phase, x, condition, exits, self.runs
            )
        return out, condition

    def _renoise(self, stream: Stream, x_s: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Carry samples to a drawn noise level: (x_t, eps, s, t)."""
        uniform = stream.uniform(self.recipe.batch)
        if self.recipe.region == "update":
            side = stream.beside("region").uniform(1).to(uniform.device)  # for all processes alike
            t = self.phase.region_times(uniform, side.repeat(len(uniform) // self.runs))
        else:
            t = self.phase.renoise_times(uniform)
        s = objectives.full_like_time(self.phase.end, t)
        eps = stream.normal(self.recipe.batch, x_s.shape[1:])
        return renoise(self.flow, x_s, eps, s, t), eps, s, t

    def _fake_loss(self, v: Tensor, x_s: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> Tensor:
        if self.recipe.target == "biased":
            return objectives.biased_loss(v, x_s, eps)
        if self.phase.end == 0:
            return objectives.flow_loss(v, x_s, eps)
        return objectives.subinterval_loss(self.flow, v, x_s, eps, s, t)

    def _update_fake(self, step: int, number: int) -> tuple[Tensor, Tensor]:
        stream = self._stream(step, f"fake{number}")
        with torch.no_grad(), self.cost.time("rollout"):
            rollout, condition = self._rollout(stream)
        self.cost.count("rollout", rollout.calls + self.starts.calls)
        with self.cost.time("fake"):
            x_t, eps, s, t = self._renoise(stream, rollout.x_s)
            v = self.roles.fake(x_t, t, condition)
            loss = objectives.per_run_mean(self._fake_loss(v, rollout.x_s, eps, s, t), self.runs)
            loss, norms = self._descend("fake", loss, step)
        self.cost.count("fake", 3)
        return loss, norms

    @torch.no_grad()
    def _gradient(self, stream: Stream, rollout: Rollout, condition: Condition) -> Tensor:
        """teacher - fake where the rollout's samples, noised again, come to lie; like x_s."""
        x_t, _, s, t = self._renoise(stream, rollout.x_s.detach())
        with self.cost.time("teacher"):
            teacher = self.roles.teacher(x_t, t, condition)
        self.cost.count("teacher", getattr(self.roles.teacher, "calls", 1))
        with self.cost.time("fake"):
            fake = self.roles.fake(x_t, t, condition)
        self.cost.count("fake", 1)
        if self.recipe.gradient == "literal":
            return objectives.generator_gradient(self.flow, teacher, fake, s, t)
        per, across = self.recipe.normaliser, self.world.mean
        return objectives.normalised_gradient(
            self.flow, x_t, teacher, fake, t, rollout.x0, self.runs, per, across
        )

    def _update_generator(self, step: int) -> dict[str, Tensor]:
        stream = self._stream(step, "generator")
        with self.cost.time("generator"):
            rollout, condition = self._rollout(stream)
        gradient = self._gradient(stream, rollout, condition)
        with self.cost.time("generator"):
            loss = objectives.surrogate_loss(rollout.x_s, gradient)
            _, norms = self._descend("generator", objectives.per_run_mean(loss, self.runs), step)
            self._average()
        taken = self.phase.last - self.phase.first if self.recipe.backward == "all" else 1
        self.cost.count("generator", rollout.calls + self.starts.calls + 2 * taken)
        x_s = rollout.x_s.detach()
        squares = objectives.per_run_mean(gradient.square().flatten(1).mean(1), self.runs)
        mean, deviation = spread(self.world, x_s.flatten(1).view(-1, self.runs, x_s[0].numel()))
        return {
            "generator_loss": self.world.mean(squares).sqrt(),
            "generator_gradient_norm": norms,
            "sample_mean": mean,
            "sample_std": deviation,
        }

    def _descend(self, role: str, loss: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """One optimiser step on the sum over runs; returns (runs,) losses and gradient norms."""
        optimizers = [self.optimizers[part.name] for part in self.parts[role]]
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()
        loss = average_gradients(self.world, self.parameters[role], loss)
        norms = gradient_norms(self.parameters[role], self.runs)
        check_finite(step, role, loss, norms)
        clip_gradients(self.parameters[role], norms, self.recipe.clip)
        for optimizer in optimizers:
            optimizer.step()
        return loss, norms

    @torch.no_grad()
    def _average(self) -> None:
        torch._foreach_lerp_(self.averaged, self.parameters["generator"], 1 - self.recipe.ema)
