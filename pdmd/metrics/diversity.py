"""How much samples of one prompt differ from each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pdmd.errors import UserError
from pdmd.metrics.pictures import pairwise_cosine
from pdmd.models.base import prompt_of

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


def rows_by_prompt(condition: Tensor) -> list[Tensor]:
    """The samples, as row numbers, of each prompt of (N,) or (N, 2) conditions.

    Raises:
        UserError: a prompt has fewer than LEAST samples.
    """
    prompts = prompt_of(condition)
    found = []
    for prompt in prompts.unique():
        rows = (prompts == prompt).nonzero().flatten()
        if len(rows) < LEAST:
            raise UserError(
                f"prompt {int(prompt)}: {len(rows)} samples: expected at least {LEAST}, "
                "the fewest that diversity is measured on"
            )
        found.append(rows)
    return found


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def within_prompt(features: Tensor, condition: Tensor, centre: Tensor) -> float:
    """Mean pairwise cosine of a prompt's samples, mean over prompts; lower is more diverse.

    Args:
        features: (N, D); condition: (N,) or (N, 2); centre: (D,) mean feature of real pictures,
            taken off first: what all pictures share would otherwise drown what tells them apart.
    Raises:
        UserError: a prompt has fewer than LEAST samples.
    """
    centred = features - centre
    return _mean([pairwise_cosine(centred[rows]) for rows in rows_by_prompt(condition)])


def vendi_score(features: Tensor, condition: Tensor) -> float:
    """Effective number of different samples of a prompt, mean over prompts.

    exp of the entropy of the eigenvalues of K / n, K the samples' cosines (Friedman & Dieng 2023,
    arXiv:2210.02410, Eq. 1): 1 when all are equal, n when all are orthogonal.

    Args:
        features: (N, D), centred by the caller where that is wanted.
    Raises:
        UserError: a prompt has fewer than LEAST samples.
    """
    unit = torch.nn.functional.normalize(features.double(), dim=-1)
    scores = []
    for rows in rows_by_prompt(condition):
        # singular values of the unit rows are the roots of K's eigenvalues
        values = torch.linalg.svdvals(unit[rows]).square() / len(rows)
        scores.append(float(torch.special.entr(values).sum().exp()))
    return _mean(scores)


def mode_shares(modes: Tensor, n: int, truth: Tensor | None = None) -> ModeShares:
    """How (N,) mode numbers spread over n known modes.

    Args:
        truth: (n,) true shares, equal ones when left out.
    Raises:
        UserError: a number is not one of the n modes.
    """
    if len(modes) and not 0 <= int(modes.min()) <= int(modes.max()) < n:
        raise UserError(
            f"modes: {int(modes.min())} to {int(modes.max())}: expected 0 to {n - 1}, "
            "without samples of no mode"
        )
    wanted = torch.full((n,), 1 / n) if truth is None else truth
    wanted = wanted.double() / wanted.double().sum()
    shares = torch.bincount(modes, minlength=n).double() / max(len(modes), 1)
    entropy = torch.special.entr(shares).sum() / torch.tensor(float(n)).double().log()
    return ModeShares(
        covered=float(((shares > COVERED_SHARE * wanted) & (wanted > 0)).sum()),
        entropy=float(entropy) if n > 1 else 1.0,
        tv=float((shares - wanted).abs().sum() / 2) if len(modes) else 1.0,
    )


def lpips_pairwise(
    pairwise: Callable[[Tensor], Tensor], pictures: Tensor, condition: Tensor
) -> float:
    """Mean LPIPS between samples of a prompt, mean over prompts; higher is more diverse.

    Args:
        pairwise: (M, 3, H, W) in [-1, 1] -> mean distance over all pairs, such as `Lpips.pairwise`.
        pictures: (N, 3, H, W).
    Raises:
        UserError: a prompt has fewer than LEAST samples.
    """
    with torch.no_grad():
        return _mean([float(pairwise(pictures[rows])) for rows in rows_by_prompt(condition)])
