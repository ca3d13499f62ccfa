"""Figures of the digits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdmd.config import Config
from pdmd.digits import CLASSES, SIDE, load_codec
from pdmd.figures import frontier as frontiers
from pdmd.figures.dots import dots
from pdmd.figures.results import first_samples
from pdmd.figures.style import TEXT, new_figure
from pdmd.figures.training import training as training
from pdmd.naming import look
from pdmd.paths import Paths
from pdmd.storage import load_tensors

if TYPE_CHECKING:
    from torch import Tensor

EACH = 8  # pictures of a class
COLUMNS = 4
GAP = 1  # pixels between pictures


def samples(configs: Sequence[Config]) -> Figure:
    """A panel a method, a row a class; one place holds one noise in every method's panel."""
    paths, panels = Paths(configs[0]), {}
    codec = load_codec(paths.data("codec.safetensors"))
    for config in configs:
        found = first_samples(config)
        panels[look(config["method"]).label] = mosaic(codec.decode(found["x"]), found["condition"])
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


def frontier(configs: Sequence[Config]) -> Figure:
    """Density against coverage and against the cosine within a class."""
    return frontiers.frontier(configs, ["coverage", "cosine"])


def diversity(configs: Sequence[Config]) -> Figure:
    """Diversity and fidelity of every method."""
    return dots(configs, ["coverage", "density", "cosine", "accuracy", "kid"])
