"""The one rule of all metrics: the right value, or a UserError that names metric and sample.

Every sample is a finite number, there are as many as the metric needs, and sets that are compared
are equally wide.  A value that is not defined (coverage of no prompts, spread of no inliers) is
None, in files null or an empty cell: what is NaN is broken, and no metric returns it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pdmd.errors import UserError

LARGEST = 1e15  # its square, times any width, is still a float32
BRIGHTEST = 16.0  # of pictures in [-1, 1]: decoders overshoot, bytes and features go far beyond

Scores = dict[str, float | None]


def samples(metric: str, x: Tensor, least: int = 1, what: str = "samples") -> Tensor:
    """Samples (N, ...) as float32 or float64, all finite and at least so many.

    Args:
        metric: whose they are; what: the set among those that the metric compares.
    Raises:
        UserError: names the metric and the set, and the first row that is not finite.
    """
    if x.ndim == 0 or len(x) < least:
        shape = "one number" if x.ndim == 0 else f"{len(x)} rows"
        raise UserError(f"{metric}: {what}: {shape}: expected at least {least}")
    ready = x.detach()
    if ready.dtype not in (torch.float32, torch.float64):
        ready = ready.float()
    bounded(metric, ready, LARGEST, "a finite number", what)
    return ready


def features(metric: str, x: Tensor, least: int = 1, what: str = "samples") -> Tensor:
    """The same as rows (N, D)."""
    ready = samples(metric, x, least, what)
    if ready.numel() == 0:
        raise UserError(f"{metric}: {what}: shape {list(x.shape)}: expected at least one feature")
    return ready.reshape(len(ready), -1)


def pictures(metric: str, x: Tensor, dimensions: int, smallest: int = 1) -> Tensor:
    """Pictures (N, 3, H, W), or clips (N, 3, T, H, W) of two frames and more, in [-1, 1]."""
    wanted = "(N, 3, H, W)" if dimensions == 4 else "(N, 3, T, H, W) with T at least 2"
    if x.ndim != dimensions or x.shape[1] != 3 or (dimensions == 5 and x.shape[2] < 2):
        raise UserError(f"{metric}: samples: shape {list(x.shape)}: expected {wanted}")
    if min(x.shape[-2:]) < smallest:
        raise UserError(
            f"{metric}: samples: shape {list(x.shape)}: expected sides of at least {smallest}"
        )
    ready = samples(metric, x)
    bounded(metric, ready, BRIGHTEST, "-1 to 1")
    return ready


def bounded(metric: str, x: Tensor, limit: float, expected: str, what: str = "samples") -> None:
    """Raise UserError for the first row of (N, ...) with a number that is not within a limit."""
    if x.numel() == 0:
        return
    low, high = (float(end) for end in x.aminmax())
    if -limit < low and high < limit:  # false for NaN
        return
    row = int((~(x.abs() < limit)).reshape(len(x), -1).any(1).nonzero()[0])
    values = x[row].flatten()
    value = float(values[~(values.abs() < limit)][0])
    raise UserError(f"{metric}: {what}, row {row}: {value:.6g}: expected {expected}")


def same_width(metric: str, x: Tensor, y: Tensor, what: str = "samples") -> None:
    """Raise UserError unless rows of two sets (N, D) and (M, D) are equally wide."""
    if x.shape[1:] != y.shape[1:]:
        raise UserError(f"{metric}: {what}: width {x.shape[-1]}: expected {y.shape[-1]}")


def labels(metric: str, values: Tensor, rows: int, count: int | None = None) -> Tensor:
    """Integer labels (N, ...), one a sample and, where `count` is given, from 0 to count - 1.

    Raises:
        UserError: names the metric and the row.
    """
    if values.is_floating_point() or values.ndim == 0 or len(values) != rows:
        raise UserError(
            f"{metric}: labels: {values.dtype} {list(values.shape)}: expected {rows} integers"
        )
    if count is not None and rows and not 0 <= int(values.min()) <= int(values.max()) < count:
        row = int(((values < 0) | (values >= count)).nonzero()[0, 0])
        raise UserError(
            f"{metric}: labels, row {row}: {values[row].tolist()}: expected 0 to {count - 1}"
        )
    return values


def number(metric: str, name: str, value: int, least: int, most: int | None = None) -> None:
    """Raise UserError unless a parameter of a metric is from `least` to `most`."""
    if value < least or (most is not None and value > most):
        wanted = f"at least {least}" if most is None else f"{least} to {most}"
        raise UserError(f"{metric}: {name}: {value}: expected {wanted}")


def weights(metric: str, network: nn.Module) -> None:
    """Raise UserError unless a network that scores has finite weights: it would guess nothing."""
    for name, values in network.state_dict().items():
        if values.is_floating_point() and not bool(values.isfinite().all()):
            raise UserError(f"{metric}: weights {name}: not finite: expected finite numbers")


def mean(values: Tensor) -> float | None:
    """Mean of (N,) values; None of none."""
    return float(values.double().mean()) if len(values) else None


@contextmanager
def telling(where: str) -> Iterator[None]:
    """Add to the UserError of a metric what part of the samples it was of."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error} ({where})") from error
