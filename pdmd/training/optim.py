"""Around one optimiser step: rates, gradients by run and over processes, what is not finite."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pdmd.models.rows import is_sharded, local
from pdmd.training.world import ALONE, World


def scale_lr(optimizer: torch.optim.Optimizer, factor: float, base: float) -> None:
    """Set every group's learning rate to factor * base."""
    for group in optimizer.param_groups:
        group["lr"] = factor * base


def sharded(parameters: Sequence[Tensor]) -> bool:
    """Whether a job's trained tensors are spread over its processes: all of them are, or none."""
    return any(map(is_sharded, parameters[:1]))


def gradient_norms(parameters: Sequence[Tensor], runs: int, world: World = ALONE) -> Tensor:
    """(runs,) gradient norm of each run; stacked parameters have a leading axis of runs."""
    grads = [local(p.grad) for p in parameters if p.grad is not None]
    if runs == 1:
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)), keepdim=True)
        return world.total(norm.square()).sqrt() if sharded(parameters) else norm
    squares = [grad.square().reshape(runs, -1).sum(1) for grad in grads]
    return torch.stack(squares).sum(0).sqrt()


def clip_gradients(parameters: Sequence[Tensor], norms: Tensor, limit: float) -> None:
    """Scale the gradients of each run whose norm is above `limit`, in place."""
    factor = (limit / norms.clamp_min(1e-12)).clamp(max=1.0)
    if bool((factor == 1).all()):
        return
    for p in parameters:
        if p.grad is not None and (grad := local(p.grad)).numel():
            grad.view(len(factor), -1).mul_(factor[:, None])


def average_gradients(world: World, parameters: Sequence[Tensor], loss: Tensor) -> Tensor:
    """Average gradients over all processes, in place; returns the (runs,) loss, averaged as well.

    Losses are means over equal shares of the batch, so this gives the whole batch's.  Two experts
    of one network may be used in different processes: a gradient that a process lacks is zero, and
    a parameter that no process used is left without one, as in a single process.  Those of sharded
    parameters were averaged in the backward pass.
    """
    loss = loss.detach().clone()
    if world.size == 1:
        return loss
    if sharded(parameters):
        return world.mean(loss)
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    used = loss.new_tensor([p.grad is not None for p in parameters])
    world.average([*grads, used, loss])  # of one size everywhere: it depends on no process's rows
    for p, grad, share in zip(parameters, grads, used.tolist(), strict=True):
        p.grad = grad if share > 0 else None
    return loss


def check_finite(step: int, role: str, loss: Tensor, norms: Tensor) -> None:
    """Stop before an update that would spoil the weights. Raises FloatingPointError."""
    if not bool(torch.isfinite(loss.detach() + norms).all()):
        raise FloatingPointError(f"step {step}: {role}: loss or gradient is not finite")
