"""Distribution matching distillation of one phase.

Each iteration fits the fake score to the generator's present samples (`fake_updates` times, Eq. 13
or, in the last phase, Eq. 8) and then moves the generator once along teacher - fake (Eq. 10). With
`rollout: reuse` all of them see the samples that the generator's update is made with.
Plain DMD, DMD2 and Phased DMD are this loop with other phases and another cut of the gradient; the
loop knows no model family and no metric.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pdmd import objectives
from pdmd.balance import Balancer, Strata
from pdmd.config.sections import Distill
from pdmd.flow import Flow, renoise
from pdmd.models.base import Condition, join, take
from pdmd.models.rows import local
from pdmd.phases import Phase
from pdmd.roles import Roles, aligned, trained_parts
from pdmd.rollout import (
    Rollout,
    approach,
    exit_steps,
    late_exit_steps,
    leave,
    simulate_to_end,
    simulate_to_exit,
)
from pdmd.starts import Starts, slices
from pdmd.streams import Stream
from pdmd.training.average import taken
from pdmd.training.checkpoint import State
from pdmd.training.cost import Cost
from pdmd.training.moved import Watch
from pdmd.training.optim import (
    average_gradients,
    check_finite,
    clip_gradients,
    gradient_norms,
    scale_lr,
)
from pdmd.training.world import ALONE, World


@dataclass(frozen=True, kw_only=True)
class Recipe(Distill):
    """The hyper-parameters of a phase: the `distill` section, `updates` being the phase's share.

    Attributes:
        backward, exits: of the `student` section.
    """

    backward: str
    exits: str


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
    count = world.shares * x[:, 0].numel()
    variance = (square - mean.square()).clamp_min(0) * count / (count - 1)
    return mean.to(x.dtype), variance.sqrt().to(x.dtype)


@dataclass(frozen=True)
class Begun:
    """Where an update's rollouts start, and where they leave.

    Attributes:
        x: (N, ...) at the phase's first step; condition: of each row; exits: (N,) grid indices.
    """

    x: Tensor
    condition: Condition
    exits: Tensor

    def __getitem__(self, rows: slice) -> Begun:
        return Begun(self.x[rows], take(self.condition, rows), self.exits[rows])


def together(begun: Sequence[Begun]) -> Begun:
    """Several of one shape, one after another."""
    given = [one.condition for one in begun if one.condition is not None]
    x, exits = torch.cat([one.x for one in begun]), torch.cat([one.exits.cpu() for one in begun])
    return Begun(x, join(given) if given else None, exits)


@dataclass(frozen=True)
class Noised:
    """How samples at a phase's end are noised again.

    Attributes:
        t: (N,) re-noising times; eps: like x, the noise that carries x_s there.
    """

    t: Tensor
    eps: Tensor

    def __getitem__(self, rows: slice) -> Noised:
        return Noised(self.t[rows], self.eps[rows])


@dataclass(frozen=True)
class Samples:
    """What a whole update is made with, under `rollout: reuse`.

    Attributes:
        stream: of the generator's draws, at its re-noising; rollouts: one for each microbatch.
    """

    stream: Stream
    begun: Begun
    rollouts: list[Rollout]


@dataclass(frozen=True)
class Draws:
    """What one update of the fake is made with.

    Attributes:
        stream: of its draws, at its re-noising; begun: where its rollouts start; rollouts: those
            that are made already, one for each microbatch; carried: whether begun's rows are at
            their exit steps.
    """

    stream: Stream
    begun: Begun
    rollouts: list[Rollout] | None = None
    carried: bool = False


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
        strata: Strata | None = None,
    ):
        world.check_batch(recipe.batch, "distill.batch")
        self.world = world
        self.flow, self.phase, self.recipe, self.roles = flow, phase, recipe, roles
        self.starts, self.seeds, self.runs = starts, seeds, len(seeds)
        self.cost = Cost(world.device)
        self.rates = {"fake": recipe.fake_lr, "generator": recipe.generator_lr}
        law, own = recipe.balance, dict[str, State]()
        self.balancer = None
        if law.law == "adaptive":
            self.balancer = Balancer(law, phase, self.runs, world, strata)
            own["balance"] = self.balancer
        self.states: Mapping[str, State] = {**roles.states(), **own}
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
        every = [part for role, parts in self.parts.items() if self.rates[role] for part in parts]
        self.watch = Watch(every, roles.frozen, roles.idle, world)

    def update(self, step: int) -> dict[str, Tensor]:
        """One iteration; returns (runs,) values to log. Raises FloatingPointError."""
        factor = 1 - (1 - self.recipe.decay) * step / self.recipe.updates
        for role, parts in self.parts.items():
            for part in parts:
                scale_lr(self.optimizers[part.name], factor, self.rates[role])
        made = self._samples(step) if self.recipe.rollout == "reuse" else None
        fakes = [self._update_fake(step, draws) for draws in self._draws(step, made)]
        losses = torch.stack([loss for loss, _ in fakes])
        record = self._update_generator(step, made)
        record["fake_loss"] = losses.mean(0)
        record["fake_lag"] = losses[0] - losses[-1]
        record["fake_gradient_norm"] = torch.stack([norm for _, norm in fakes]).mean(0)
        return record

    def _stream(self, step: int, role: str) -> Stream:
        """This process's share of the draws of one update."""
        return Stream(self.seeds, step, role, self.world.device, self.world.samples)

    @torch.no_grad()
    def _begin(self, stream: Stream) -> Begun:
        """Where rollouts start and leave; frozen experts may run for that."""
        x, condition = self.starts(stream, self.recipe.batch)
        return Begun(x, condition, self._exits(stream, len(x)))

    def _noise(self, stream: Stream, shape: Sequence[int]) -> Noised:
        """How samples of some shape are noised again."""
        batch = self.recipe.batch
        t = self._times(stream.uniform(batch), stream)
        return Noised(t, stream.normal(batch, shape))

    def _exits(self, stream: Stream, rows: int) -> Tensor:
        """The exit step of each row."""
        recipe, phase = self.recipe, self.phase
        if recipe.exits in ("stratified", "late"):  # the whole batch's
            draw = exit_steps if recipe.exits == "stratified" else late_exit_steps
            return self.world.share(draw(phase, recipe.batch, self.runs, stream), self.runs)
        if recipe.exits == "last":
            return torch.full((rows,), phase.last - 1)
        drawn = stream.choice(phase.last - phase.first)
        return phase.first + drawn.repeat(rows // self.runs)

    def _times(self, uniform: Tensor, stream: Stream) -> Tensor:
        """The re-noising time of each row."""
        if self.recipe.region == "row":
            return self.phase.renoise_times(uniform)
        side = stream.beside("region").uniform(1).to(uniform.device)  # for all processes alike
        return self.phase.region_times(uniform, side.repeat(len(uniform) // self.runs))

    def _parts(self, rows: int) -> list[tuple[slice, float]]:
        """Microbatches, and the share of the rows that each has."""
        wanted = self.recipe.microbatch
        parts = slices(rows, wanted * self.runs if wanted else None)
        return [(part, (min(part.stop, rows) - part.start) / rows) for part in parts]

    def _draws(self, step: int, made: Samples | None) -> Iterator[Draws]:
        """What each update of the fake is made with, one after another."""
        names = [f"fake{number}" for number in range(self.recipe.fake_updates)]
        if made:
            yield from (Draws(self._stream(step, one), made.begun, made.rollouts) for one in names)
        elif self.recipe.microbatch or self.recipe.backward == "all":
            yield from (self._drawn(self._stream(step, one)) for one in names)
        else:
            yield from self._carried([self._drawn(self._stream(step, one)) for one in names])

    def _drawn(self, stream: Stream) -> Draws:
        with self.cost.time("rollout"):
            begun = self._begin(stream)
        self.cost.count("rollout", self.starts.calls)
        return Draws(stream, begun)

    def _carried(self, draws: list[Draws]) -> list[Draws]:
        """Several updates' rows, brought to their exit steps together.

        The generator is the same in all of them. Few rows of a batch make long rollouts, and calls
        on few rows cost more a row: those of all updates fill calls as large as a batch.
        """
        begun = [one.begun for one in draws]
        if len({one.x.shape for one in begun}) > 1:
            return draws
        with self.cost.time("rollout"):
            every = together(begun)
            ascending = every.exits.view(-1, self.runs).amax(1).argsort(stable=True)
            rows = (ascending[:, None] * self.runs + torch.arange(self.runs)).flatten()
            at = rows.to(every.x.device)
            moved, calls = approach(
                *(self.flow, self.roles.generator, self.phase),
                *(every.x[at], take(every.condition, at), every.exits[rows]),
                *(self.runs, len(begun[0].x)),
            )
            x = torch.empty_like(moved).index_copy_(0, at, moved).chunk(len(draws))
        self.cost.count("rollout", calls * len(draws))
        return [
            replace(one, begun=replace(one.begun, x=part), carried=True)
            for one, part in zip(draws, x, strict=True)
        ]

    def _rollout(self, begun: Begun, carried: bool = False) -> Rollout:
        velocity, phase, x = self.roles.generator, self.phase, begun.x
        if carried:
            return leave(self.flow, velocity, phase, x, begun.condition, begun.exits)
        if self.recipe.backward == "all":
            return simulate_to_end(self.flow, velocity, phase, x, begun.condition)
        return simulate_to_exit(
            self.flow, velocity, phase, x, begun.condition, begun.exits, self.runs
        )

    def _samples(self, step: int) -> Samples:
        """The samples of a whole update, made once.

        In one part they keep their graph for the generator's backward pass; in several, which
        would hold a graph each, the last call is made again there.
        """
        stream = self._stream(step, "generator")
        with self.cost.time("rollout"):
            begun = self._begin(stream)
            parts = self._parts(len(begun.x))
            with torch.set_grad_enabled(len(parts) == 1):
                rollouts = [self._rollout(begun[rows]) for rows, _ in parts]
        calls = sum(made.calls * share for made, (_, share) in zip(rollouts, parts, strict=True))
        self.cost.count("rollout", self.starts.calls + calls)
        return Samples(stream, begun, rollouts)

    def _again(self, begun: Begun, made: Rollout) -> Rollout:
        """A part's rollout with a graph, from where its samples left without one."""
        if made.x_s.requires_grad:
            return made
        if self.recipe.backward == "all":
            return self._rollout(begun)
        return leave(
            self.flow, self.roles.generator, self.phase, made.x_exit, begun.condition, begun.exits
        )

    def _renoised(self, x_s: Tensor, noised: Noised) -> tuple[Tensor, Tensor]:
        """Samples at a phase's end, carried to their re-noising times: x_t, and s of each row."""
        s = objectives.full_like_time(self.phase.end, noised.t)
        return renoise(self.flow, x_s, noised.eps, s, noised.t), s

    def _fake_loss(
        self, v: Tensor, x_t: Tensor, made: Rollout, noised: Noised, s: Tensor
    ) -> Tensor:
        x_s = made.x_s.detach()
        if self.recipe.target == "biased":
            return objectives.biased_loss(v, x_s, noised.eps)
        if self.phase.end == 0:
            return objectives.flow_loss(v, x_s, noised.eps)
        if self.recipe.target == "estimate":
            return objectives.estimate_loss(self.flow, v, x_t, made.x0, noised.eps, noised.t)
        return objectives.subinterval_loss(self.flow, v, x_s, noised.eps, s, noised.t)

    def _update_fake(self, step: int, draws: Draws) -> tuple[Tensor, Tensor]:
        begun = draws.begun
        with self.cost.time("rollout"):
            noised = self._noise(draws.stream, begun.x.shape[1:])
        self._clear("fake")
        losses = []
        for index, (rows, share) in enumerate(self._parts(len(begun.x))):
            if draws.rollouts:
                rollout = draws.rollouts[index]
            else:
                with torch.no_grad(), self.cost.time("rollout"):
                    rollout = self._rollout(begun[rows], draws.carried)
                self.cost.count("rollout", rollout.calls * share)
            with self.cost.time("fake"):
                x_t, s = self._renoised(rollout.x_s.detach(), noised[rows])
                v = self.roles.fake(x_t, noised[rows].t, begun[rows].condition)
                losses.append(
                    self._backward(self._fake_loss(v, x_t, rollout, noised[rows], s), share)
                )
        self.cost.count("fake", 3)
        with self.cost.time("fake"):
            return self._descend("fake", torch.stack(losses).sum(0), step)

    @torch.no_grad()
    def _gradient(
        self, condition: Condition, noised: Noised, rollout: Rollout, share: float
    ) -> Tensor:
        """teacher - fake where the rollout's samples, noised again, come to lie; like x_s.

        Rows weigh as `balance` has it.
        """
        x_t, s = self._renoised(rollout.x_s.detach(), noised)
        with self.cost.time("teacher"):
            teacher = self.roles.teacher(x_t, noised.t, condition)
        self.cost.count("teacher", getattr(self.roles.teacher, "calls", 1) * share)
        with self.cost.time("fake"):
            fake = self.roles.fake(x_t, noised.t, condition)
        self.cost.count("fake", share)
        recipe, t = self.recipe, noised.t
        if recipe.gradient == "literal":
            gradient = objectives.generator_gradient(self.flow, teacher, fake, s, t)
        else:
            gradient = objectives.normalised_gradient(
                *(self.flow, x_t, teacher, fake, t, rollout.x0, self.runs, recipe.normaliser),
                across=self.world.mean,
                project=recipe.gradient == "projected",
            )
        if self.balancer is None:
            return gradient
        return self.balancer(gradient, teacher - fake, t, condition)

    def _update_generator(self, step: int, made: Samples | None) -> dict[str, Tensor]:
        stream = made.stream if made else self._stream(step, "generator")
        with self.cost.time("generator"):
            begun = made.begun if made else self._begin(stream)
            noised = self._noise(stream, begun.x.shape[1:])
        self._clear("generator")
        losses, squares, ends, calls = [], [], [], 0.0 if made else self.starts.calls
        for index, (rows, share) in enumerate(self._parts(len(begun.x))):
            with self.cost.time("generator"):
                if made:
                    rollout = self._again(begun[rows], made.rollouts[index])
                    calls += 0 if rollout is made.rollouts[index] else rollout.calls * share
                else:
                    rollout = self._rollout(begun[rows])
                    calls += rollout.calls * share
            gradient = self._gradient(begun[rows].condition, noised[rows], rollout, share)
            with self.cost.time("generator"):
                loss = objectives.surrogate_loss(rollout.x_s, gradient)
                losses.append(self._backward(loss, share))
            size = gradient.square().flatten(1).mean(1)
            squares.append(objectives.per_run_mean(size, self.runs) * share)
            ends.append(rollout.x_s.detach())
        with self.cost.time("generator"):
            _, norms = self._descend("generator", torch.stack(losses).sum(0), step)
            self._average(step)
        steps = self.phase.last - self.phase.first if self.recipe.backward == "all" else 1
        self.cost.count("generator", calls + 2 * steps)
        x_s = torch.cat(ends)
        mean, deviation = spread(self.world, x_s.flatten(1).view(-1, self.runs, x_s[0].numel()))
        return self._rebalance() | {
            "generator_loss": self.world.mean(torch.stack(squares).sum(0)).sqrt(),
            "generator_gradient_norm": norms,
            "sample_mean": mean,
            "sample_std": deviation,
        }

    def _rebalance(self) -> dict[str, Tensor]:
        """Take the update's gaps into the weights of the next; returns (runs,) values to log."""
        if self.balancer is None:
            return {}
        weighed = self.balancer.record()
        self.balancer.close()
        return weighed

    def _clear(self, role: str) -> None:
        for part in self.parts[role]:
            self.optimizers[part.name].zero_grad(set_to_none=True)

    def _backward(self, loss: Tensor, share: float) -> Tensor:
        """Add the gradient of rows' losses, a share of the batch's; returns (runs,), detached."""
        of_runs = objectives.per_run_mean(loss, self.runs) * share
        # Processes that share tokens have a part of its gradient each, which are averaged.
        (of_runs.sum() * self.world.context).backward()
        return of_runs.detach()

    def _descend(self, role: str, loss: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """One optimiser step on what was added up; returns (runs,) losses and gradient norms."""
        loss = average_gradients(self.world, self.parameters[role], loss)
        norms = gradient_norms(self.parameters[role], self.runs, self.world)
        check_finite(step, role, loss, norms)
        clip_gradients(self.parameters[role], norms, self.recipe.clip)
        for part in self.parts[role]:
            self.optimizers[part.name].step()
            self.watch.after(part)
        return loss, norms

    @torch.no_grad()
    def _average(self, step: int) -> None:
        share = taken(self.recipe.average, step)
        new = [local(p) for p in self.parameters["generator"]]
        torch._foreach_lerp_([local(p) for p in self.averaged], new, share)
