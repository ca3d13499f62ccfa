"""Noise schedules, the shift of a step grid, and the transition between two noise levels.

Time runs from t = 0 (data) to t = 1 (noise): x_t = alpha_t x_0 + sigma_t eps.  The velocity is
eps - x_0 for every schedule, as in Eq. 4 of Phased DMD (arXiv 2510.27684).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Schedule = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Flow:
    """A noise schedule.

    Attributes:
        name: the name it has in a config.
        alpha: t -> alpha_t, elementwise.
        sigma: t -> sigma_t, elementwise.
        gap: (s, t) -> sigma_t alpha_s - alpha_t sigma_s, written so that it keeps its relative
            precision as t -> s; everything that vanishes at t = s is built from it.
    """

    name: str
    alpha: Schedule
    sigma: Schedule
    gap: Callable[[Tensor, Tensor], Tensor]


RECTIFIED = Flow("rectified", lambda t: 1 - t, lambda t: t, lambda s, t: t - s)
COSINE = Flow(
    "cosine",
    lambda t: torch.sin((1 - t) * (math.pi / 2)),  # the cosine, exact at t = 1
    lambda t: torch.sin(t * (math.pi / 2)),
    lambda s, t: torch.sin((t - s) * (math.pi / 2)),
)
FLOWS = {flow.name: flow for flow in (RECTIFIED, COSINE)}


def per_sample(value: Tensor, like: Tensor) -> Tensor:
    """Give a (N,) tensor the trailing axes it needs to multiply a (N, ...) tensor."""
    return value.view(-1, *[1] * (like.ndim - 1))


def shift_time(u: Tensor, shift: float) -> Tensor:
    """Warp raw times u in [0, 1] towards noise: t = k u / (1 + (k - 1) u) (sec. 4, App. C)."""
    return shift * u / (1 + (shift - 1) * u)


def unshift_time(t: Tensor, shift: float) -> Tensor:
    """The raw times that `shift_time` warps to t, the inverse of it."""
    return t / (shift - (shift - 1) * t)


def transition(flow: Flow, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients of p(x_t | x_s) = N(alpha_ts x_s, sigma_ts^2 I), Eq. 2.

    sigma_ts^2 = sigma_t^2 - alpha_ts^2 sigma_s^2 cancels badly as t -> s; its two factors
    (sigma_t alpha_s -+ alpha_t sigma_s) / alpha_s do not.

    Args:
        s, t: broadcastable times with 0 <= s <= t <= 1 and s < 1.
    Returns:
        alpha_ts and sigma_ts, of the broadcast shape.
    """
    alpha_s, sigma_s, alpha_t, sigma_t = flow.alpha(s), flow.sigma(s), flow.alpha(t), flow.sigma(t)
    product = flow.gap(s, t) * (sigma_t * alpha_s + alpha_t * sigma_s)
    return alpha_t / alpha_s, product.clamp_min(0).sqrt() / alpha_s


def renoise(flow: Flow, x_s: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """Draw x_t from p(x_t | x_s) with the standard normal eps (Eq. 2). x_s, eps: (N, ...)."""
    alpha_ts, sigma_ts = transition(flow, s, t)
    return per_sample(alpha_ts, x_s) * x_s + per_sample(sigma_ts, x_s) * eps


def step_to(flow: Flow, x_t: Tensor, velocity: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """Carry x_t along its velocity to time s; for the rectified flow this is the Euler step.

    Solves x_t = alpha_t x_0 + sigma_t eps, velocity = eps - x_0 for (x_0, eps) and mixes them again
    at s, which is DDIM for a general schedule.
    """
    alpha_s, sigma_s, alpha_t, sigma_t = flow.alpha(s), flow.sigma(s), flow.alpha(t), flow.sigma(t)
    total = alpha_t + sigma_t
    keep, move = (alpha_s + sigma_s) / total, flow.gap(s, t) / total
    return per_sample(keep, x_t) * x_t - per_sample(move, x_t) * velocity


def predict_x0(flow: Flow, x_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
    """The clean sample that (x_t, velocity) implies."""
    alpha_t, sigma_t = flow.alpha(t), flow.sigma(t)
    total = per_sample(alpha_t + sigma_t, x_t)
    return (x_t - per_sample(sigma_t, x_t) * velocity) / total


def velocity_to_score(flow: Flow, x_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
    """The score grad log p(x_t) of an optimal velocity (Eq. 5, solved); safe at alpha_t = 0."""
    alpha_t, sigma_t = per_sample(flow.alpha(t), x_t), per_sample(flow.sigma(t), x_t)
    return -(alpha_t * velocity + x_t) / (alpha_t * sigma_t + sigma_t**2)
