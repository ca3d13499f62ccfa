"""The step grid of a few-step student and its division into phases (sec. 3, Fig. 9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from pdmd.config.sections import Renoise
from pdmd.config.times import has_room, raw_time, renoise_range
from pdmd.flow import shift_time


@dataclass(frozen=True)
class Phase:
    """One phase: the steps its expert takes and the interval its scores are matched in.

    Attributes:
        number: 1 for the noisiest phase.
        first, last: indices into the step grid; the expert takes steps first .. last - 1.
        times: the whole step grid, times[0] = 1 down to times[-1] = 0.
        raw_low, raw_high: range of the raw (unshifted) re-noising time u; equal where t is fixed.
        shift: warps u to t; that of re-noising, which may be another than the step grid's.
        low, high: least and greatest re-noising time, the warped range.
        floor: to which smaller times are clamped, where a phase has a high-noise expert alone
            (App. C.3).
        switch: noise level at and above which the model's high-noise expert works, 0 without one.
    """

    number: int
    first: int
    last: int
    times: tuple[float, ...]
    raw_low: float
    raw_high: float
    shift: float
    low: float
    high: float
    floor: float = 0.0
    switch: float = 0.0

    @property
    def end(self) -> float:
        """t_k, the noise level that the phase's samples have."""
        return self.times[self.last]

    @property
    def called(self) -> tuple[str, ...]:
        """The experts that the phase's steps call, of a model that has two."""
        return self._sides([t >= self.switch for t in self.times[self.first : self.last]])

    @property
    def scored(self) -> tuple[str, ...]:
        """The experts whose scores are matched, where samples are noised again."""
        return self._sides([high for high, share in self._shares().items() if share])

    def _shares(self) -> dict[bool, float]:
        return {True: self.high_share, False: 1 - self.high_share}

    @staticmethod
    def _sides(high: Sequence[bool]) -> tuple[str, ...]:
        return tuple(name for name, side in (("high", True), ("low", False)) if side in high)

    def renoise_times(self, uniform: Tensor) -> Tensor:
        """Map uniform draws in [0, 1), any shape, to re-noising times t ~ T(t_k, .)."""
        raw = self.raw_low + (self.raw_high - self.raw_low) * uniform
        return shift_time(raw, self.shift).clamp(max(self.low, self.floor), self.high)

    def raw_times(self, t: Tensor) -> Tensor:
        """The raw times of re-noising times, any shape: the inverse of `renoise_times`'s shift."""
        return t / (self.shift - (self.shift - 1) * t)

    @property
    def raw_range(self) -> tuple[float, float]:
        """Least and greatest raw time that samples are noised to, the floor looked at."""
        return max(self.raw_low, raw_time(self.floor, self.shift)), self.raw_high

    @property
    def high_share(self) -> float:
        """The share of re-noising times that the high-noise expert works at, P(t >= switch)."""
        if self.floor or not self.switch:
            return 1.0
        if self.raw_low == self.raw_high:
            return float(self.low >= self.switch)
        raw = raw_time(self.switch, self.shift)
        return min(max((self.raw_high - raw) / (self.raw_high - self.raw_low), 0.0), 1.0)

    def region_times(self, uniform: Tensor, side: Tensor) -> Tensor:
        """Re-noising times of one expert alone: the side is drawn first, then t within it.

        Over many draws of both the law is that of `renoise_times`.

        Args:
            uniform: (N,) draws in [0, 1); side: (N,) the same, equal where the expert shall be.
        """
        low = 1 - self.high_share
        high = side >= low
        t = self.renoise_times(torch.where(high, low + (1 - low) * uniform, low * uniform))
        if low in (0, 1):
            return t
        below = torch.nextafter(t.new_tensor(self.switch), t.new_tensor(0.0))
        return torch.where(high, t.clamp(min=self.switch), torch.minimum(t, below))


def step_grid(steps: int, shift: float) -> tuple[float, ...]:
    """The steps + 1 times from 1 to 0, evenly spaced before the shift."""
    raw = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return tuple(shift_time(raw, shift).tolist())


def split_phases(
    steps: int,
    boundaries: Sequence[int],
    shift: float,
    interval: str,
    margin: float,
    switch: float = 0.0,
    law: Renoise | None = None,
    times: Sequence[float] | None = None,
    ranges: Sequence[tuple[float, float]] | None = None,
) -> tuple[Phase, ...]:
    """Cut the step grid into phases.

    Args:
        boundaries: for each phase the number of steps taken when it ends, e.g. (2, 4).
        interval: "nested": re-noise in (t_k, 1), each phase's range contains the one before;
            "disjoint": in (t_k, t_{k-1}), the ablation of Fig. 10.
        margin: keeps the re-noising time this far from the end of the phase and from 1.
        switch: noise level at and above which the model's high-noise expert works, 0 without one.
        law: of re-noising; None is that of the grid's shift on the whole interval.
        times: the step grid, steps + 1 noise levels from 1 to 0; None is that of the shift, which
            else is of re-noising alone.
        ranges: least and greatest re-noising time of each phase, in the place of the law's.
    Raises:
        ValueError: boundaries that do not rise to `steps`, times that do not fall from 1 to 0, an
            unknown interval, or no room for re-noising in a phase.
    """
    rising = list(boundaries) == sorted(set(boundaries)) and min(boundaries, default=0) > 0
    if not rising or boundaries[-1] != steps:
        raise ValueError(f"boundaries: {list(boundaries)}: expected rising steps ending at {steps}")
    if interval not in ("nested", "disjoint"):
        raise ValueError(f"interval: {interval!r}: expected 'nested' or 'disjoint'")
    law = law or Renoise()
    if times is not None:
        falls = all(t > s for t, s in pairwise(times))
        if len(times) != steps + 1 or (times[0], times[-1]) != (1, 0) or not falls:
            raise ValueError(f"times: {list(times)}: expected {steps + 1} that fall from 1 to 0")
    times, warp = step_grid(steps, shift) if times is None else tuple(times), law.shift or shift
    phases, first = [], 0
    for number, last in enumerate(boundaries, start=1):
        top = times[first] if interval == "disjoint" else 1.0
        if ranges is not None:
            law = replace(law, low=ranges[number - 1][0], high=ranges[number - 1][1])
        low, high = renoise_range(law, times[last], top, margin)
        if not has_room(law, times[last], top, margin):
            raise ValueError(
                f"re-noising: {low:.4f} to {high:.4f}: expected rising times in phase {number}'s"
                f" ({times[last]:.4f}, {top:.4f})"
            )
        phases.append(
            Phase(
                number=number,
                first=first,
                last=last,
                times=times,
                raw_low=raw_time(low, warp),
                raw_high=raw_time(high, warp),
                shift=warp,
                low=low,
                high=high,
                switch=switch,
                floor=switch if times[last - 1] >= switch else 0.0,
            )
        )
        first = last
    return tuple(phases)
