"""Backward simulation: the student's own few-step sampling, and where its gradient is cut.

Euler steps run from a phase's start to an exit step; the exit step jumps straight to the phase's
end t_k (Eq. 9 and Fig. 1; in the last phase t_k = 0 and this is the stochastic gradient truncation
of DMD2 and Self-Forcing).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from pdmd.flow import Flow, per_sample, predict_x0, step_to
from pdmd.models.base import Condition, VelocityField, take
from pdmd.objectives import full_like_time
from pdmd.phases import Phase
from pdmd.streams import Stream


@dataclass(frozen=True)
class Rollout:
    """The end of a backward simulation.

    Attributes:
        x_s: (N, ...) samples at the phase's end; carries the gradient, if one was asked for.
        x0: (N, ...) the clean estimate of the last network call, detached.
        calls: network calls in units of the whole batch (a call on half the rows counts .5).
        x_exit: (N, ...) what the last network call was given.
    """

    x_s: Tensor
    x0: Tensor
    calls: float
    x_exit: Tensor


def exit_steps(phase: Phase, batch: int, runs: int, stream: Stream | None = None) -> Tensor:
    """Stratified exit steps, (batch * runs,), ascending in each run: an equal share for each step.

    Where the batch is no multiple of the steps, each run draws lots for which steps get one row
    more, so that the shares are equal over many updates.  Rows are exchangeable, so this has the
    uniform law of one draw per update with less variance, and every simulation stops paying for a
    row once that row has left.

    Args:
        stream: of the update; the lots come from a stream beside it.  Without one the rows left
            over always go to the same steps.
    """
    steps = phase.last - phase.first
    share = torch.arange(batch) * steps // batch
    if stream is None or batch % steps == 0:
        return phase.first + share.repeat_interleave(runs)
    lots = stream.beside("exits").order(steps)  # (runs, steps)
    counts = batch // steps + (lots < batch % steps).long()
    blocks = [torch.arange(steps).repeat_interleave(count) for count in counts]
    return phase.first + torch.stack(blocks, 1).flatten()


def late_exit_steps(phase: Phase, batch: int, runs: int, stream: Stream) -> Tensor:
    """Exit steps with shares that rise with the step's number, (batch * runs,), ascending in a run.

    The i-th of n steps has the share 2 i / (n (n + 1)); positions are evenly spaced from one draw a
    run, so that shares are exact in the mean.
    """
    steps = phase.last - phase.first
    ends = torch.arange(1, steps + 1).cumsum(0) / (steps * (steps + 1) / 2)
    offset = stream.beside("exits").uniform(1).cpu()  # (runs,)
    at = (torch.arange(batch)[:, None] + offset) / batch
    return phase.first + torch.bucketize(at, ends, right=True).clamp(max=steps - 1).flatten()


def simulate_to_end(
    flow: Flow, velocity: VelocityField, phase: Phase, x: Tensor, condition: Condition
) -> Rollout:
    """Take every step of the phase; with gradients on, all calls stay in the graph (vanilla)."""
    x0 = given = x
    for i in range(phase.first, phase.last):
        given = x
        t, s = full_like_time(phase.times[i], x), full_like_time(phase.times[i + 1], x)
        v = velocity(x, t, condition)
        x0 = predict_x0(flow, x.detach(), v.detach(), t)
        x = step_to(flow, x, v, t, s)
    return Rollout(x, x0, phase.last - phase.first, given.detach())


def simulate_to_exit(
    flow: Flow,
    velocity: VelocityField,
    phase: Phase,
    x: Tensor,
    condition: Condition,
    exits: Tensor,
    runs: int = 1,
) -> Rollout:
    """Leave at each row's exit step; only that last call can carry a gradient (SGTS).

    Args:
        x: (N, ...) rows at the phase's first step.
        exits: (N,) grid indices, first <= exit < last; cheapest where each run's ascend.
        runs: rows are taken in groups of this size, as stacked networks want them.
    """
    x, calls = approach(flow, velocity, phase, x, condition, exits, runs)
    last = leave(flow, velocity, phase, x, condition, exits)
    return Rollout(last.x_s, last.x0, 1 + calls, last.x_exit)


@torch.no_grad()
def approach(
    flow: Flow,
    velocity: VelocityField,
    phase: Phase,
    x: Tensor,
    condition: Condition,
    exits: Tensor,
    runs: int = 1,
    at_once: int | None = None,
) -> tuple[Tensor, float]:
    """Carry each row to its exit step; a step is one call, or calls on `at_once` rows at most.

    Args:
        x, condition, exits, runs: as of simulate_to_exit; at_once: a multiple of `runs`.
    Returns:
        like x, and the network calls in units of all rows.
    """
    calls, exits = 0, exits.cpu()  # what is known here asks no device
    x = x.clone()
    for i in range(phase.first, int(exits.max())):
        gone = exits <= i
        start = int(gone.cumprod(0).sum())  # rows before the first that is still under way
        start -= start % runs
        for rows in _even(start, len(x), at_once or len(x), runs):
            given = x[rows]
            t, s = (full_like_time(phase.times[j], given) for j in (i, i + 1))
            moved = step_to(flow, given, velocity(given, t, take(condition, rows)), t, s)
            if bool(gone[rows].any()):
                moved = torch.where(per_sample(gone[rows].to(x.device), moved), given, moved)
            x[rows] = moved
        calls += len(x) - start
    return x, calls / len(x)


def _even(start: int, stop: int, most: int, runs: int) -> list[slice]:
    """Rows start .. stop - 1 in as few parts as may be, of about one size, whole groups of runs."""
    groups, parts = (stop - start) // runs, -(-(stop - start) // most)
    edges = [start + groups * part // parts * runs for part in range(parts + 1)]
    return [slice(*pair) for pair in pairwise(edges)]


def leave(
    flow: Flow,
    velocity: VelocityField,
    phase: Phase,
    x: Tensor,
    condition: Condition,
    exits: Tensor,
) -> Rollout:
    """The last call alone: from each row's exit step straight to the phase's end.

    Args:
        x: (N, ...) rows at their exit steps; exits: (N,) grid indices.
    """
    t = torch.tensor(phase.times, dtype=x.dtype)[exits.cpu()].to(x.device)
    v = velocity(x, t, condition)
    x_s = step_to(flow, x, v, t, full_like_time(phase.end, x))
    return Rollout(x_s, predict_x0(flow, x, v.detach(), t), 1.0, x)


def sample(
    flow: Flow,
    velocities: Sequence[VelocityField],
    times: Sequence[float],
    x: Tensor,
    condition: Condition,
) -> Tensor:
    """Plain inference: step i calls velocities[i] and moves from times[i] to times[i + 1]."""
    for i, velocity in enumerate(velocities):
        t, s = full_like_time(times[i], x), full_like_time(times[i + 1], x)
        x = step_to(flow, x, velocity(x, t, condition), t, s)
    return x
