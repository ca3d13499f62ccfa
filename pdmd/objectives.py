"""Score matching within a subinterval and the generator's gradient (Eqs. 7 and 10 to 13)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pdmd.flow import Flow, per_sample, predict_x0, transition


def _noise_coefficient(flow: Flow, s: Tensor, t: Tensor) -> Tensor:
    """(alpha_s^2 sigma_t + alpha_t sigma_s^2) / alpha_s^2: what multiplies eps in Eq. 13."""
    return flow.sigma(t) + flow.alpha(t) * (flow.sigma(s) / flow.alpha(s)) ** 2


def velocity_target(flow: Flow, x_s: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """Unbiased velocity target given only x_s, Eq. 11; at s = 0 it is eps - x_0 (Eq. 4).

    Args:
        x_s, eps: (N, ...) sample at noise level s and the noise that carries it to t.
        s, t: (N,) with 0 <= s < t; the target grows as 1 / sigma_ts when t -> s.
    """
    _, sigma_ts = transition(flow, s, t)
    coefficient = per_sample(_noise_coefficient(flow, s, t) / sigma_ts, x_s)
    return coefficient * eps - x_s / per_sample(flow.alpha(s), x_s)


def data_target(flow: Flow, x_s: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """Unbiased x_0-prediction target given only x_s, Eq. 12; shapes as in velocity_target."""
    _, sigma_ts = transition(flow, s, t)
    ratio = (flow.sigma(s) / flow.alpha(s)) ** 2
    coefficient = per_sample(flow.alpha(t) * ratio / sigma_ts, x_s)
    return x_s / per_sample(flow.alpha(s), x_s) - coefficient * eps


def subinterval_loss(
    flow: Flow,
    velocity: Tensor,
    x_s: Tensor,
    eps: Tensor,
    s: Tensor,
    t: Tensor,
    clamp: float = 10.0,
) -> Tensor:
    """Clamped score-matching loss of a velocity within (s, 1), Eq. 13.

    Equals min(1, clamp * sigma_ts^2) times the squared error of Eq. 11, but nothing here is
    divided by sigma_ts, so that float32 stays finite as t -> s.

    Args:
        velocity, x_s, eps: (N, ...); s, t: (N,).
        clamp: upper end of the weight 1 / sigma_ts^2.
    Returns:
        (N,) mean over all but the first axis.
    """
    _, sigma_ts = transition(flow, s, t)
    scale = per_sample(sigma_ts, x_s)
    target = per_sample(_noise_coefficient(flow, s, t), x_s) * eps
    target = target - per_sample(sigma_ts / flow.alpha(s), x_s) * x_s
    error = (scale * velocity - target).square().flatten(1).mean(1)
    return error * (1 / sigma_ts.square()).clamp(max=clamp)


def flow_loss(velocity: Tensor, x_0: Tensor, eps: Tensor) -> Tensor:
    """Flow-matching loss on clean samples, Eqs. 4 and 8. All (N, ...); returns (N,)."""
    return (velocity - (eps - x_0)).square().flatten(1).mean(1)


def biased_loss(velocity: Tensor, x_s: Tensor, eps: Tensor) -> Tensor:
    """The wrong control: Eq. 4 with x_s in the place of x_0 (sec. 3.2). Returns (N,)."""
    return flow_loss(velocity, x_s, eps)


def estimate_loss(
    flow: Flow,
    velocity: Tensor,
    x_t: Tensor,
    x0_student: Tensor,
    eps: Tensor,
    t: Tensor,
) -> Tensor:
    """The fake's loss of Trajectory Distribution Matching (arXiv 2503.06674): Eq. 4 with the
    student's own clean estimate in the place of x_0, and the noise that carries that to x_t.

    A row is weighted by the likelihood of that noise over that of the noise that was drawn, both
    per number, as in the authors' train_tdm_demo.py. Where the phase ends at data it is Eq. 8.

    Args:
        velocity, x_t, eps: (N, ...); x0_student: (N, ...) of the student's last call; t: (N,).
    Returns:
        (N,).
    """
    noise = (x_t - per_sample(flow.alpha(t), x_t) * x0_student) / per_sample(flow.sigma(t), x_t)
    weight = ((eps.square() - noise.square()).flatten(1).mean(1) / 2).exp()
    return weight * flow_loss(velocity, x0_student, noise)


def generator_weight(flow: Flow, s: Tensor, t: Tensor) -> Tensor:
    """w_{t|s} = alpha_t alpha_ts / (alpha_t sigma_t + sigma_t^2), Eq. 10; Eq. 7 where s = 0."""
    alpha_t, sigma_t = flow.alpha(t), flow.sigma(t)
    return alpha_t * alpha_t / (flow.alpha(s) * (alpha_t * sigma_t + sigma_t**2))


def generator_gradient(
    flow: Flow,
    teacher: Tensor,
    fake: Tensor,
    s: Tensor,
    t: Tensor,
) -> Tensor:
    """Gradient of the reverse KL with respect to x_s, Eq. 10: w_{t|s} (T - F).

    Args:
        teacher, fake: (N, ...) velocities at x_t.
    """
    return per_sample(generator_weight(flow, s, t), teacher) * (teacher - fake)


def normalised_gradient(
    flow: Flow,
    x_t: Tensor,
    teacher: Tensor,
    fake: Tensor,
    t: Tensor,
    x0_student: Tensor,
    runs: int = 1,
    per: str = "sample",
    across: Callable[[Tensor], Tensor] = lambda mean: mean,
    project: bool = False,
) -> Tensor:
    """The residual in x_0 space divided by the student's distance from the teacher.

    (x0_fake - x0_teacher) / mean |x0_student - x0_teacher|, as DMD2 and its successors use it in
    the place of w_{t|s} (tianweiy/DMD2 sd_guidance.py); same direction as generator_gradient.
    Projected DMD (arXiv 2609.35768, Eq. 4) takes from it, sample by sample, what is parallel to
    x0_student - x0_fake, and divides by the same distance.

    Args:
        x_t, teacher, fake, x0_student: (N, ...); x0_student is the generator's own clean estimate.
        runs: independent runs interleaved along the first axis (row = sample * runs + run).
        per: "sample": each sample has its own denominator; "batch": one for each run.
        across: makes a mean over these samples, (runs,), one over the samples of all processes.
        project: whether the residual is projected.
    """
    x0_teacher, x0_fake = predict_x0(flow, x_t, teacher, t), predict_x0(flow, x_t, fake, t)
    residual = x0_fake - x0_teacher
    if project:
        residual = without_parallel(residual, x0_student - x0_fake)
    distance = (x0_student - x0_teacher).abs().flatten(1).mean(1)
    if per not in ("sample", "batch"):
        raise ValueError(f"per: {per!r}: expected 'sample' or 'batch'")
    if per == "batch":
        distance = across(distance.view(-1, runs).mean(0)).repeat(len(distance) // runs)
    return residual / per_sample(distance.clamp_min(1e-4), residual)


def without_parallel(direction: Tensor, axis: Tensor, least: float = 1e-8) -> Tensor:
    """What of a direction is orthogonal to an axis, sample by sample. All (N, ...).

    Args:
        least: added to the axis's squared length; a direction stays as it is where that is 0.
    """
    flat, along = direction.flatten(1), axis.flatten(1)
    share = (flat * along).sum(1) / (along.square().sum(1) + least)
    return direction - per_sample(share, axis) * axis


def surrogate_loss(x_s: Tensor, gradient: Tensor) -> Tensor:
    """A scalar per sample, (N,), whose gradient with respect to x_s is `gradient` / size of x_s."""
    return (x_s * gradient.detach()).flatten(1).mean(1)


def per_run_mean(per_sample_loss: Tensor, runs: int) -> Tensor:
    """Mean over the samples of each run: (N,) -> (runs,), rows interleaved by run."""
    return per_sample_loss.view(-1, runs).mean(0)


def full_like_time(value: float, like: Tensor) -> Tensor:
    """(N,) times of one value on the device and in the type of a (N, ...) tensor."""
    return torch.full((len(like),), value, dtype=like.dtype, device=like.device)
