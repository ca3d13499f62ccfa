"""Two experts behind one velocity: high noise and low noise, as in Wan2.2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pdmd.models.base import Condition, VelocityNetwork, take


class Absent(VelocityNetwork):
    """The place of an expert that a job never calls, and whose weights it does not load."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Identity()

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = None) -> Tensor:
        """Raises RuntimeError."""
        raise RuntimeError(f"t = {float(t.flatten()[0]):.4f}: expected the other of two experts")


class Experts(VelocityNetwork):
    """Rows at t >= boundary go to the high-noise expert, the others to the low-noise one.

    The same rule as WanPipeline's; gradients reach the expert that was used alone.
    """

    def __init__(self, high: VelocityNetwork, low: VelocityNetwork, boundary: float):
        super().__init__()
        self.high, self.low, self.boundary = high, low, boundary

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = None) -> Tensor:
        """(N, ...), (N,), N conditions or None -> (N, ...)."""
        high = t >= self.boundary
        if bool(high.all()):
            return self.high(x_t, t, condition)
        if not bool(high.any()):
            return self.low(x_t, t, condition)
        parts, order = [], []
        for expert, where in ((self.high, high), (self.low, ~high)):
            rows = where.nonzero().flatten()
            parts.append(expert(x_t[rows], t[rows], take(condition, rows)))
            order.append(rows)
        return torch.cat(parts)[torch.cat(order).argsort()]
