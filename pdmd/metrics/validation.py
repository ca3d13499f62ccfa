"""Do the metrics see what they are for?  Real samples against samples damaged in known ways.

What each metric should do under each damage was written down before it was measured, in
pdmd/metrics/expectations.py.  A metric that does not is in the table with "no".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pdmd.errors import UserError
from pdmd.metrics import checks
from pdmd.metrics.damages import Samples
from pdmd.metrics.diversity import LEAST
from pdmd.metrics.intervals import mean_interval
from pdmd.metrics.ranges import ANY, metric_range

if TYPE_CHECKING:
    import pandas as pd

Features = Callable[[Tensor], Tensor]  # (N, ...) samples -> (N, ...) features
Damage = Callable[[Tensor, torch.Generator], Tensor]  # of all samples, as many as before
Selection = Callable[["Samples"], Tensor]  # rows that stand in for all, as many as before

SPLITS = 5  # ways to part the real samples in three
CHUNK = 32  # samples at a time through a network
IDENTITY = "another draw"  # the damage that is none

Metric = Callable[[Samples, Samples], float]  # of samples, given a reference


@dataclass(frozen=True)
class Rule:
    """What metrics do under a damage if they measure what they are said to.

    Attributes:
        expected: "rises", "falls" or "stays", against undamaged samples.
    """

    damage: str
    metrics: tuple[str, ...]
    expected: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What is measured on what.

    Attributes:
        features: name -> network, run once over all samples and once over each damage's.
        transforms: damages that change samples; selections: damages that choose among them.
    """

    features: Mapping[str, Features]
    metrics: Mapping[str, Metric]
    transforms: Mapping[str, Damage]
    selections: Mapping[str, Selection]
    rules: Sequence[Rule] = field(default=())


@torch.no_grad()
def measure(x: Tensor, prompt: Tensor, mode: Tensor, features: Mapping[str, Features]) -> Samples:
    """Every feature of samples x (N, ...), a chunk at a time.

    Raises:
        UserError: a sample or a feature of one is not finite; names the network and the row.
    """
    x = checks.samples("validation", x, what="real samples")
    features_of: dict[str, list[Tensor]] = {name: [] for name in features}
    for part in x.split(CHUNK):
        for name, network in features.items():
            features_of[name].append(network(part))
    whole = {name: torch.cat(parts) for name, parts in features_of.items()}
    for name, values in whole.items():
        checks.samples(name, values, what="features")
    return Samples(prompt, mode, whole)


def thirds(mode: Tensor, prompt: Tensor, seed: int) -> list[Tensor]:
    """Rows, in random order, of three disjoint sets with as many samples of each prompt's modes.

    Sets that are alike in this way are closer than independent draws: an unbiased distance between
    two of them is below 0 on average.

    Raises:
        UserError: a prompt would have too few samples for its diversity to be measured.
    """
    if not len(prompt):
        raise UserError(f"real samples: 0: expected at least {LEAST} of a prompt in each third")
    generator = torch.Generator().manual_seed(seed)
    parts: list[list[Tensor]] = [[], [], []]
    _, group = torch.stack([prompt, mode], 1).unique(dim=0, return_inverse=True)
    for number in range(int(group.max()) + 1):
        rows = (group == number).nonzero().flatten()
        rows = rows[torch.randperm(len(rows), generator=generator)]
        for i in range(3):
            parts[i].append(rows[i : len(rows) // 3 * 3 : 3])
    order = torch.randperm(sum(len(rows) for rows in parts[0]), generator=generator)
    ordered = [torch.cat(part)[order] for part in parts]
    least = min(int((prompt[ordered[0]] == number).sum()) for number in prompt.unique())
    if least < LEAST:
        raise UserError(
            f"real samples: {least} of a prompt in each third: expected at least {LEAST}"
        )
    return ordered


def validate(
    x: Tensor, prompt: Tensor, mode: Tensor, plan: Plan, splits: int = SPLITS
) -> pd.DataFrame:
    """One row a rule and metric: the value on real samples and on damaged ones.

    Real samples are parted in three, in `splits` ways: samples, another draw, and the reference.
    Each network sees each sample and each damaged sample once.

    Args:
        x: (N, ...) real samples; prompt, mode: (N,).
    Returns:
        damage, metric, the mean and 95% interval over splits (they share samples, so it is narrower
        than of independent draws; cut to what the metric can be) of real, damaged and change;
        expected and reason; ordered: "yes" if the interval of the change lies on the expected side
        of 0, or holds 0 for "stays" (by chance it does not, one time in twenty or more).
    Raises:
        UserError: too few samples, or one that is not finite; a metric has no value; a rule names a
            damage that the plan lacks or expects what nothing does.
    """
    import pandas as pd

    known = {IDENTITY, *plan.transforms, *plan.selections}
    for rule in plan.rules:
        if rule.damage not in known:
            raise UserError(f"rule: damage {rule.damage!r}: expected one of {sorted(known)}")
        is_ordered([], rule.expected)  # refuses before anything is measured
    parts = [thirds(mode, prompt, seed) for seed in range(splits)]
    real = measure(x, prompt, mode, plan.features)
    with checks.telling("no damage"):
        whole = [_values(real.take(first), real.take(ref), plan.metrics) for first, _, ref in parts]
    rows = []
    for damage in dict.fromkeys(rule.damage for rule in plan.rules):
        spoilt = real
        with checks.telling(f"damage: {damage}"):
            if damage in plan.transforms:
                damaged = plan.transforms[damage](x, torch.Generator().manual_seed(0))
                spoilt = measure(damaged, prompt, mode, plan.features)
            values = [
                _values(_damaged(damage, spoilt, first, other, plan), real.take(ref), plan.metrics)
                for first, other, ref in parts
            ]
        rows += _rows(damage, whole, values, plan)
    return pd.DataFrame(rows)


def _damaged(damage: str, spoilt: Samples, first: Tensor, other: Tensor, plan: Plan) -> Samples:
    if damage == IDENTITY:
        return spoilt.take(other)
    taken = spoilt.take(first)
    return taken.take(plan.selections[damage](taken)) if damage in plan.selections else taken


def _values(x: Samples, reference: Samples, metrics: Mapping[str, Metric]) -> dict[str, float]:
    by_metric = {name: metric(x, reference) for name, metric in metrics.items()}
    for name, value in by_metric.items():
        if not math.isfinite(value):
            raise UserError(f"{name}: {value}: expected a finite number")
    return by_metric


def _rows(
    damage: str,
    whole: Sequence[Mapping[str, float]],
    values: Sequence[Mapping[str, float]],
    plan: Plan,
) -> list[dict[str, object]]:
    rows = []
    for rule in plan.rules:
        for metric in rule.metrics if rule.damage == damage else ():
            if metric not in plan.metrics:
                continue  # its network was not given
            real, damaged = ([one[metric] for one in thirds_of] for thirds_of in (whole, values))
            change = [after - before for before, after in zip(real, damaged, strict=True)]
            row: dict[str, object] = {"damage": damage, "metric": metric}
            limits = metric_range(metric)
            for name, thirds_of, ends in (
                ("real", real, limits),
                ("damaged", damaged, limits),
                ("change", change, ANY),
            ):
                row[f"{name}_mean"], row[f"{name}_low"], row[f"{name}_high"] = mean_interval(
                    thirds_of, ends
                )
            row |= {"expected": rule.expected, "ordered": is_ordered(change, rule.expected)}
            rows.append(row | {"reason": rule.reason})
    return rows


def is_ordered(change: Sequence[float], expected: str) -> str:
    """ "yes" if the 95% interval of the mean change is where it is expected, else "no"."""
    _, low, high = mean_interval(change)
    # equal changes have an interval without width: rounding must not decide
    near = 1e-9
    holds = {"rises": low > near, "falls": high < -near, "stays": low <= near and high >= -near}
    if expected not in holds:
        raise UserError(f"expected: {expected!r}: expected one of {', '.join(holds)}")
    return "yes" if holds[expected] else "no"
