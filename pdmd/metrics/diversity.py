"""How much samples of one prompt differ from each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pdmd.data.conditions import prompt_of
from pdmd.errors import UserError
from pdmd.metrics import checks
from pdmd.metrics.distances import mean_cosine, rounding, unit_rows

LEAST = 8  # samples of a prompt, below which its diversity says little
COVERED_SHARE = 0.2  # of a mode's true share


@dataclass(frozen=True)
class ModeShares:
    """How samples spread over known modes.

    Attributes:
        covered: modes with more than a fifth of their true share.
        entropy: of the shares over that of equal shares: 0 for one mode, 1 for all equally.
        tv: total variation to the true shares, 0 best.
    """

    covered: float
    entropy: float
    tv: float


def rows_by_prompt(condition: Tensor, metric: str = "diversity") -> list[Tensor]:
    """The samples, as row numbers, of each prompt of (N,) or (N, 2) conditions.

    Raises:
        UserError: a prompt has fewer than LEAST samples, or there is no prompt.
    """
    prompts = prompt_of(condition)
    if not len(prompts):
        raise UserError(f"{metric}: 0 samples: expected at least {LEAST} of a prompt")
    groups = []
    for prompt in prompts.unique():
        rows = (prompts == prompt).nonzero().flatten()
        if len(rows) < LEAST:
            raise UserError(
                f"{metric}: prompt {int(prompt)}: {len(rows)} samples: expected at least {LEAST}, "
                "the fewest that diversity is measured on"
            )
        groups.append(rows)
    return groups


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def centred_unit(
    features: Tensor,
    condition: Tensor,
    centre: Tensor | None,
    metric: str,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Directions (N, D) of features from a centre (D,), or from zero.

    What equals the centre, but for rounding, has no direction: such rows are equal to one another.

    Args:
        metric: what errors call it; dtype: of the directions.
    Raises:
        UserError: a feature is not finite; conditions or the centre do not fit.
    """
    x, floor = checks.features(metric, features), 0.0
    checks.labels(metric, condition, len(x))
    if centre is not None:
        middle = checks.features(metric, centre.reshape(1, -1), what="centre")
        if middle.shape[1] != 1:
            checks.same_width(metric, middle, x, "centre")
        floor = rounding(features, middle.expand(1, x.shape[1]))
        x = x - middle.to(x.dtype)  # far from zero this difference of like numbers is exact
    return unit_rows(x.to(dtype or x.dtype), floor, spare=centre is not None)


def within_prompt(
    features: Tensor, condition: Tensor, centre: Tensor, metric: str = "cosine"
) -> float:
    """Mean pairwise cosine of a prompt's samples, mean over prompts; lower is more diverse.

    Equal samples have the cosine 1, also where all lie on the centre.

    Args:
        features: (N, D); condition: (N,) or (N, 2); centre: (D,) mean feature of real pictures,
            taken off first: what all pictures share would otherwise drown what tells them apart.
        metric: what errors call it.
    Raises:
        UserError: a prompt has fewer than LEAST samples, a feature is not finite, or widths differ.
    """
    unit = centred_unit(features, condition, centre, metric)
    return _mean([mean_cosine(unit[rows]) for rows in rows_by_prompt(condition, metric)])


def vendi_score(features: Tensor, condition: Tensor, centre: Tensor | None = None) -> float:
    """Effective number of different samples of a prompt, mean over prompts.

    exp of the entropy of the eigenvalues of K / n, K the samples' cosines (Friedman & Dieng 2023,
    arXiv:2210.02410, Eq. 1): 1 when all are equal, also where all lie on the centre; n when all are
    orthogonal.

    Args:
        features: (N, D); centre: (D,), taken off first; none when left out.
    Raises:
        UserError: a prompt has fewer than LEAST samples, a feature is not finite, or widths differ.
    """
    unit = centred_unit(features, condition, centre, "vendi", torch.float64)
    scores = []
    for rows in rows_by_prompt(condition, "vendi"):
        # singular values of the unit rows are the roots of K's eigenvalues
        values = torch.linalg.svdvals(unit[rows]).square() / len(rows)
        scores.append(max(1.0, float(torch.special.entr(values).sum().exp())))
    return _mean(scores)


def mode_shares(modes: Tensor, n: int, truth: Tensor | None = None) -> ModeShares:
    """How (N,) mode numbers spread over n known modes; no samples cover none, at distance 1.

    Args:
        truth: (n,) true shares, equal ones when left out.
    Raises:
        UserError: a number is not one of the n modes, or shares are not n positive numbers.
    """
    checks.number("modes", "known modes", n, 1)
    checks.labels("modes", modes, len(modes), n)
    wanted = torch.full((n,), 1 / n) if truth is None else _true_shares(truth, n)
    wanted = wanted.double() / wanted.double().sum()
    shares = torch.bincount(modes, minlength=n).double() / max(len(modes), 1)
    entropy = torch.special.entr(shares).sum() / torch.tensor(float(n)).double().log()
    return ModeShares(
        covered=float(((shares > COVERED_SHARE * wanted) & (wanted > 0)).sum()),
        entropy=min(1.0, float(entropy)) if n > 1 else float(len(modes) > 0),
        tv=float((shares - wanted).abs().sum() / 2) if len(modes) else 1.0,
    )


def _true_shares(truth: Tensor, n: int) -> Tensor:
    shares = checks.samples("modes", truth, what="true shares")
    if shares.shape != (n,) or bool((shares < 0).any()) or not float(shares.sum()) > 0:
        raise UserError(
            f"modes: true shares: {shares.tolist()[:4]}: expected {n} numbers, none negative"
        )
    return shares


def lpips_pairwise(
    pairwise: Callable[[Tensor], Tensor], pictures: Tensor, condition: Tensor
) -> float:
    """Mean LPIPS between samples of a prompt, mean over prompts; higher is more diverse.

    Args:
        pairwise: (M, 3, H, W) in [-1, 1] -> mean distance over all pairs, such as `Lpips.pairwise`.
        pictures: (N, 3, H, W).
    Raises:
        UserError: a prompt has fewer than LEAST samples, a picture is not finite or no picture.
    """
    ready = checks.pictures("lpips", pictures, 4)
    checks.labels("lpips", condition, len(ready))
    distances = []
    with torch.no_grad():
        for rows in rows_by_prompt(condition, "lpips"):
            value = pairwise(ready[rows]).reshape(1)
            with checks.telling(f"prompt of row {int(rows[0])}"):
                checks.samples("lpips", value, what="distances")
            distances.append(float(value))
    return _mean(distances)
