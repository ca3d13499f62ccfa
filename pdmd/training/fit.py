"""Fit velocities to data: teachers, the network students start from, the curves of Fig. 2."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pdmd import objectives
from pdmd.config.sections import Fit
from pdmd.data.conditions import Classes, Conditions, drop_prompts
from pdmd.data.sources import Data
from pdmd.flow import Flow, renoise
from pdmd.models.base import Condition, Index, VelocityField, VelocityNetwork
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

WARMUP, CLIP = 100, 1.0


class FitTrainer:
    """Score matching on data; one update a call."""

    kept = "average"

    def __init__(
        self,
        flow: Flow,
        recipe: Fit,
        model: VelocityNetwork,
        data: Data,
        seeds: Sequence[int],
        exact: VelocityField | None = None,
        world: World = ALONE,
        conditions: Conditions | None = None,
    ):
        world.check_batch(recipe.batch, "fit.batch")
        self.world = world
        self.flow, self.recipe, self.data, self.seeds = flow, recipe, data, seeds
        self.runs, self.exact = len(seeds), exact
        self.conditions = conditions = conditions or Classes()
        self.null = model.null if conditions.null is None else conditions.null
        self.model, self.average = model, copy.deepcopy(model).requires_grad_(False)
        self.parameters: list[Tensor] = list(model.parameters())
        optimizer = torch.optim.AdamW(
            self.parameters,
            lr=recipe.lr,
            betas=(0.9, 0.99),
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        self.states: Mapping[str, State] = {"model": model, "average": self.average}
        self.optimizers: Mapping[str, torch.optim.Optimizer] = {"model": optimizer}
        self.cost = Cost()

    def update(self, step: int) -> dict[str, Tensor]:
        """One optimiser step; returns (runs,) values to log. Raises FloatingPointError."""
        recipe, optimizer = self.recipe, self.optimizers["model"]
        warm = min(1.0, (step + 1) / WARMUP)
        scale_lr(optimizer, warm * (1 - step / recipe.updates), recipe.lr)
        stream = Stream(self.seeds, step, "fit", self.world.device, self.world.samples)
        with self.cost.time("data"):
            x_0, index = self.data.draw(stream, recipe.batch)
            condition = self.conditions.values(self._drop(stream, index))
        with self.cost.time("model"):
            loss = objectives.per_run_mean(self._loss(stream, x_0, condition), self.runs)
            optimizer.zero_grad(set_to_none=True)
            loss.sum().backward()
            loss = average_gradients(self.world, self.parameters, loss)
            norms = gradient_norms(self.parameters, self.runs)
            check_finite(step, "model", loss, norms)
            clip_gradients(self.parameters, norms, CLIP)
            optimizer.step()
            weight = 1 - min(recipe.ema, (step + 1) / (step + 10))
            average: list[Tensor] = list(self.average.parameters())
            with torch.no_grad():
                torch._foreach_lerp_(average, self.parameters, weight)
        self.cost.count("model", 3)
        return {"loss": loss, "gradient_norm": norms}

    def _drop(self, stream: Stream, index: Index) -> Index:
        """Replace a share of the conditions by the null condition."""
        if index is None or self.null is None:
            return index
        gone = stream.uniform(self.recipe.batch) < self.recipe.null_share
        return drop_prompts(index, self.null, gone)

    def _loss(self, stream: Stream, x_0: Tensor, condition: Condition) -> Tensor:
        recipe, batch = self.recipe, self.recipe.batch
        s = torch.full((len(x_0),), recipe.start, device=x_0.device)
        t = draw_times(recipe.time, stream.uniform(batch), recipe.start)
        zero = torch.zeros_like(s)
        x_s = renoise(self.flow, x_0, stream.normal(batch, x_0.shape[1:]), zero, s)
        eps = stream.normal(batch, x_0.shape[1:])
        x_t = renoise(self.flow, x_s, eps, s, t)
        v = self.model(x_t, t, condition)
        if recipe.target == "teacher" and self.exact is not None:
            return (v - self.exact(x_t, t, condition)).square().flatten(1).mean(1)
        if recipe.target == "biased":
            return objectives.biased_loss(v, x_s, eps)
        if recipe.target == "unbiased":
            return objectives.subinterval_loss(self.flow, v, x_s, eps, s, t)
        return objectives.flow_loss(v, x_0, eps)


def draw_times(law: str, uniform: Tensor, start: float) -> Tensor:
    """Training times in (start, 1) from uniform draws: "uniform" or "logit-normal"."""
    if law == "logit-normal":
        inside = uniform.clamp(1e-4, 1 - 1e-4)
        uniform = torch.sigmoid(1.2 * torch.special.ndtri(inside))
    return start + (1 - start) * uniform


@torch.no_grad()
def heldout_loss(
    flow: Flow, field: VelocityField, x_0: Tensor, condition: Condition, draws: int
) -> float:
    """Mean flow-matching loss (Eq. 4, per element) on samples never trained on.

    Args:
        x_0: (N, ...); draws: noise draws for each sample.
    """
    stream = Stream([0], 0, "heldout")
    losses = []
    for _ in range(draws):
        t, eps = stream.uniform(len(x_0)), stream.normal(len(x_0), x_0.shape[1:])
        x_t = renoise(flow, x_0, eps, torch.zeros_like(t), t)
        losses.append(objectives.flow_loss(field(x_t, t, condition), x_0, eps))
    return float(torch.cat(losses).mean())
