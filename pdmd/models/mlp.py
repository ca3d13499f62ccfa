"""Small velocity networks, several independent runs in one module.

A parameter has a leading axis of runs and a batched matrix product serves them all; rows of the
batch are interleaved (row = sample * runs + run).  Run r computes what it would compute alone.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from pdmd.models.base import Condition, VelocityNetwork


class RunsLinear(nn.Module):
    """A linear layer for each run: (runs, B, inputs) -> (runs, B, outputs)."""

    def __init__(self, runs: int, inputs: int, outputs: int, zero: bool = False):
        super().__init__()
        bound = 0.0 if zero else 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(runs, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(runs, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


def wave_features(values: Tensor, frequencies: Tensor) -> Tensor:
    """sin and cos of pi f v: (..., D) -> (..., 2 D len(frequencies))."""
    angles = (values[..., None] * (math.pi * frequencies)).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], -1)


class VelocityMLP(VelocityNetwork):
    """A plain network of x and features of t, for the toys.

    Args:
        runs: independent networks; dim: size of x; width, depth: of the hidden layers.
        waves: frequencies f of the sin, cos (pi f x) features; none by default.
    """

    stacked = True
    time_waves: Tensor
    x_waves: Tensor

    def __init__(self, runs: int, dim: int, width: int, depth: int, waves: int = 0):
        super().__init__()
        self.runs, self.dim, self.inputs = runs, dim, dim * (1 + 2 * waves) + 1 + 8
        self.register_buffer("time_waves", torch.tensor([0.5, 1.0, 2.0, 4.0]), persistent=False)
        self.register_buffer("x_waves", torch.arange(1.0, waves + 1) / 2, persistent=False)
        sizes = [self.inputs, *[width] * depth]
        self.hidden = nn.ModuleList(RunsLinear(runs, a, b) for a, b in pairwise(sizes))
        self.out = RunsLinear(runs, width, dim)

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = None) -> Tensor:
        """Velocity at x_t (N, dim), t (N,) -> (N, dim)."""
        t = t[:, None]
        parts = [x_t, t, wave_features(t, self.time_waves)]
        if len(self.x_waves):
            parts.append(wave_features(x_t, self.x_waves))
        h = torch.cat(parts, -1).view(-1, self.runs, self.inputs).transpose(0, 1)
        for layer in self.hidden:
            h = functional.silu(layer(h))
        return self.out(h).transpose(0, 1).reshape(x_t.shape)


class ConditionalMLP(VelocityNetwork):
    """A residual network modulated by (t, class), for small latents.

    Args:
        classes: number of classes; index `classes` is the null condition.
    """

    stacked = True
    time_waves: Tensor

    def __init__(self, runs: int, dim: int, width: int, depth: int, classes: int):
        super().__init__()
        self.runs, self.dim, self.null = runs, dim, classes
        self.register_buffer("time_waves", 2.0 ** torch.arange(-1, 5), persistent=False)
        self.time = RunsLinear(runs, 12, width)
        self.label = nn.Parameter(torch.randn(runs, classes + 1, width) * 0.5)
        self.inward = RunsLinear(runs, dim, width)
        self.modulation = RunsLinear(runs, width, 2 * depth * width, zero=True)
        self.up = nn.ModuleList(RunsLinear(runs, width, 2 * width) for _ in range(depth))
        self.down = nn.ModuleList(RunsLinear(runs, 2 * width, width) for _ in range(depth))
        self.out = RunsLinear(runs, width, dim)

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = None) -> Tensor:
        """Velocity at x_t (N, dim), t (N,), class index (N,) or None for null -> (N, dim)."""
        x = x_t.view(-1, self.runs, self.dim).transpose(0, 1)
        time = wave_features(t[:, None], self.time_waves).view(-1, self.runs, 12).transpose(0, 1)
        if condition is None:
            label = self.label[:, -1:]
        else:
            assert isinstance(condition, Tensor)
            rows = torch.arange(self.runs, device=x.device)[:, None]
            label = self.label[rows, condition.view(-1, self.runs).T]
        context = functional.silu(self.time(time) + label)
        modulation = self.modulation(context).chunk(2 * len(self.up), -1)
        h = self.inward(x)
        for i, (up, down) in enumerate(zip(self.up, self.down, strict=True)):
            normal = functional.layer_norm(h, h.shape[-1:])
            normal = normal * (1 + modulation[2 * i]) + modulation[2 * i + 1]
            h = h + down(functional.silu(up(normal)))
        h = functional.layer_norm(h, h.shape[-1:])
        return self.out(h).transpose(0, 1).reshape(x_t.shape)
