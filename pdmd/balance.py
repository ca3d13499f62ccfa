"""What each sample weighs in the generator's gradient, from measured gaps of teacher and fake.

The raw re-noising time is cut into bands. Where the fake score is far from the teacher's the
gradient is large, and most of it may be the fake's lag: DMAD (arXiv 2610.02188) lets such bands
weigh less. The gap is one of velocities, what both networks are trained on; that of clean
estimates has t as a further factor. Where a sharp teacher makes velocities differ most at low
noise, as on the exact mixture, this all but switches the lowest bands off.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pdmd.config.sections import Balance
from pdmd.flow import per_sample
from pdmd.models.base import Condition, given
from pdmd.phases import Phase
from pdmd.training.world import ALONE, World

BANDS = 10  # of the raw re-noising time, which is in [0, 1)


def weights_of(gaps: Tensor, rows: Tensor, tau: float) -> Tensor:
    """Weights of one run's bands, (B,): sigmoid((median - gap) / (tau median)), scaled.

    Over all samples so far the mean weight is 1, so that the rate of learning stays what it is.
    All are 1 until half of the bands have a gap; a band without one weighs 1.

    Args:
        gaps: (B,) running means; rows: (B,) samples that each has had.
    """
    seen, weights = rows > 0, torch.ones_like(gaps)
    if 2 * int(seen.sum()) < len(gaps):
        return weights
    median = gaps[seen].quantile(0.5).clamp_min(1e-12)
    raw = torch.sigmoid((1 - gaps[seen] / median) / tau)
    weights[seen] = raw * rows[seen].sum() / (raw * rows[seen]).sum()
    return weights


@dataclass(frozen=True)
class Strata:
    """The strata of prompts.

    Attributes:
        names: of the strata; of_prompts: (P,) which one each prompt of the store is of, -1 of none.
    """

    names: tuple[str, ...]
    of_prompts: Tensor


def number_strata(strata: Sequence[str | None]) -> Strata:
    """Strata by name, of each prompt, None of one that has none."""
    names = tuple(sorted({one for one in strata if one is not None}))
    return Strata(names, torch.tensor([-1 if one is None else names.index(one) for one in strata]))


class Balancer:
    """The gaps of a phase's bands, of each run by itself, and the weights that follow from them.

    With strata each stratum of prompts has bands of its own, B in all.

    An update's samples weigh by the gaps of the updates before it, so that microbatches add up to
    the batch. What is kept lies on the CPU, in double precision, the same in all processes.

    Attributes:
        gaps, rows: (runs, B) see `weights_of`, of the bands that the phase's re-noising reaches;
        weights: (runs, B).
    """

    def __init__(
        self,
        law: Balance,
        phase: Phase,
        runs: int,
        world: World = ALONE,
        strata: Strata | None = None,
    ):
        self.law, self.phase, self.runs, self.world = law, phase, runs, world
        self.strata = strata
        low, high = phase.raw_range
        first = int(low * BANDS)
        self.bands = range(first, max(math.ceil(high * BANDS), first + 1))
        self.gaps, self.rows, self.sums, self.counts = (
            torch.zeros(runs, len(self.names), dtype=torch.float64) for _ in range(4)
        )
        self.weights = torch.ones_like(self.gaps)

    @property
    def names(self) -> list[str]:
        """The lower end of each band, of strata behind their names."""
        ends = [f"{band / BANDS:.1f}" for band in self.bands]
        if self.strata is None:
            return ends
        return [f"{name}/{end}" for name in self.strata.names for end in ends]

    def __call__(
        self, gradient: Tensor, difference: Tensor, t: Tensor, condition: Condition = None
    ) -> Tensor:
        """Rows of a gradient by their weights; their gaps are kept for the end of the update.

        Args:
            gradient: (N, ...) rows interleaved by run; difference: like it, teacher - fake
                velocity; t: (N,) re-noising times; condition: N prompts, where there are strata.
        """
        band = self._bands(t, condition)
        run = torch.arange(len(t)) % self.runs
        gap = difference.abs().flatten(1).mean(1).cpu().double()
        self.sums.index_put_((run, band), gap, accumulate=True)
        self.counts.index_put_((run, band), torch.ones_like(gap), accumulate=True)
        return per_sample(self.weights[run, band].to(gradient), gradient) * gradient

    def _bands(self, t: Tensor, condition: Condition) -> Tensor:
        """(N,) the place of each row's band. Raises ValueError for a prompt without a stratum."""
        raw = self.phase.raw_times(t.cpu().double())
        band = (raw * BANDS).long().clamp(self.bands.start, self.bands.stop - 1) - self.bands.start
        if self.strata is None:
            return band
        numbers = given(condition).numbers
        stratum = torch.tensor([-1]) if numbers is None else self.strata.of_prompts[numbers.cpu()]
        if int(stratum.min()) < 0:
            raise ValueError("condition: a prompt without a stratum: expected one for each sample")
        return stratum * len(self.bands) + band

    def close(self) -> None:
        """Take this update's gaps, of all processes, into the running means, and weigh anew."""
        sums, counts = self.world.mean(torch.stack([self.sums, self.counts])) * self.world.shares
        new = sums / counts.clamp_min(1)
        kept = torch.where(self.rows > 0, self.gaps.lerp(new, 1 - self.law.decay), new)
        self.gaps = torch.where(counts > 0, kept, self.gaps)
        self.rows = self.rows + counts.round()
        self.sums.zero_()
        self.counts.zero_()
        self._weigh()

    def record(self) -> dict[str, Tensor]:
        """(runs,) the weight of each band, to log."""
        weights = self.weights.to(self.world.device)
        return {f"weight/{name}": weights[:, i] for i, name in enumerate(self.names)}

    def summary(self) -> dict[str, list[dict[str, float | None]]]:
        """By run, each band's weight and gap, None where it has none."""
        gaps = self.gaps.where(self.rows > 0, math.nan)
        return {
            "weight_by_band": [
                dict(zip(self.names, one, strict=True)) for one in self.weights.tolist()
            ],
            "gap_by_band": [
                {
                    name: None if math.isnan(gap) else gap
                    for name, gap in zip(self.names, one, strict=True)
                }
                for one in gaps.tolist()
            ],
        }

    def _weigh(self) -> None:
        pairs = zip(self.gaps, self.rows, strict=True)
        self.weights = torch.stack([weights_of(*pair, self.law.tau) for pair in pairs])

    # ---- what a checkpoint keeps, see training.checkpoint.State

    def parameters(self) -> Iterator[Tensor]:
        """What must stay finite."""
        return iter([self.gaps])

    def state_dict(self) -> Mapping[str, Tensor]:
        """Gaps and rows; weights follow from them."""
        return {"gaps": self.gaps.clone(), "rows": self.rows.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> None:
        """Go on from a checkpoint."""
        self.gaps, self.rows = state["gaps"].clone(), state["rows"].clone()
        self._weigh()
