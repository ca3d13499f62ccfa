"""Figures of the digits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdmd.config.paths import Paths
from pdmd.config.sections import Run
from pdmd.files.storage import load_tensors
from pdmd.report.figures import frontier as frontiers
from pdmd.report.figures.dots import dots
from pdmd.report.figures.results import first_samples
from pdmd.report.figures.style import TEXT, new_figure
from pdmd.report.figures.training import training as training
from pdmd.report.looks import look
from pdmd.scenarios.digits.pictures import CLASSES, SIDE, load_codec

if TYPE_CHECKING:
    from torch import Tensor

EACH = 8  # pictures of a class
COLUMNS = 4
GAP = 1  # pixels between pictures


def samples(runs: Sequence[Run]) -> Figure:
    """A panel a method, a row a class; one place holds one noise in every method's panel."""
    paths, panels = Paths(runs[0]), {}
    codec = load_codec(paths.data("codec.safetensors"))
    for run in runs:
        drawn = first_samples(run)
        panels[look(run.method).label] = mosaic(codec.decode(drawn["x"]), drawn["condition"])
    held = load_tensors(paths.data("heldout.safetensors"))
    panels["real, held out"] = mosaic(held["pictures"], held["labels"])
    rows = math.ceil(len(panels) / COLUMNS)
    figure = new_figure(TEXT, rows * (TEXT / COLUMNS * CLASSES / EACH + 0.2))
    axes = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for ax in axes:
        ax.set_axis_off()
    for ax, (title, picture) in zip(axes, panels.items(), strict=False):
        draw_mosaic(ax, picture, title)
    return figure


def mosaic(pictures: Tensor, labels: Tensor) -> np.ndarray:
    """The first pictures (N, 64) of each class, as one image in [-1, 1]; background between."""
    step = SIDE + GAP
    image = np.full((CLASSES * step - GAP, EACH * step - GAP), -1.0, dtype=np.float32)
    for label in range(CLASSES):
        for column, picture in enumerate(pictures[labels == label][:EACH]):
            top, left = label * step, column * step
            image[top : top + SIDE, left : left + SIDE] = picture.view(SIDE, SIDE).numpy()
    return image


def draw_mosaic(ax: Axes, image: np.ndarray, title: str) -> None:
    """Ink is black on white, as on paper."""
    ax.imshow(image, cmap="gray_r", vmin=-1, vmax=1, interpolation="nearest")
    ax.set_title(title)


def frontier(runs: Sequence[Run]) -> Figure:
    """Density against coverage and against the cosine within a class."""
    return frontiers.frontier(runs, ["coverage", "cosine"])


def diversity(runs: Sequence[Run]) -> Figure:
    """Diversity and fidelity of every method."""
    return dots(runs, ["coverage", "density", "cosine", "accuracy", "kid"])
