"""Figures of the 2D mixture."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure

from pdmd.config.paths import Paths
from pdmd.config.sections import Run
from pdmd.data.sources import build_mixture
from pdmd.metrics.modes import INLIER_RADIUS
from pdmd.report.figures import frontier as frontiers
from pdmd.report.figures.dots import dots
from pdmd.report.figures.results import first_samples
from pdmd.report.figures.style import FAINT, TEXT, new_figure
from pdmd.report.figures.training import training as training
from pdmd.report.looks import look
from pdmd.report.reading import read_scores

SHOWN = 4000  # samples in a panel
LIMIT = 2.5


def samples(runs: Sequence[Run]) -> Figure:
    """The first seed's samples of every method over the true modes."""
    rows = math.ceil(len(runs) / 5)
    columns = math.ceil(len(runs) / rows)
    figure = new_figure(TEXT, rows * (TEXT / columns + 0.33))
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes:
        ax.set_axis_off()
    for ax, run in zip(axes, runs, strict=False):
        draw_modes(ax, run)
        x = first_samples(run)["x"][:SHOWN]
        colour = look(run.method).colour
        ax.scatter(x[:, 0], x[:, 1], s=1.0, color=colour, alpha=0.5, linewidths=0, rasterized=True)
        path = Paths(run).seed(run.seeds[0], "metrics.json")
        metrics = read_scores(path, ["inliers", "modes_covered"])
        modes = f"{metrics['modes_covered']:.0f}/{len(build_mixture(run.data).means)} modes"
        score = f"{100 * metrics['inliers']:.1f}% inliers, {modes}"
        ax.set_title(look(run.method).label, pad=12)
        ax.text(0.5, 1.02, score, transform=ax.transAxes, ha="center", fontsize=7.5)
        ax.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), aspect="equal")
    return figure


def draw_modes(ax: Axes, run: Run) -> None:
    """A circle round every true mode: what lies in it is an inlier."""
    mixture = build_mixture(run.data)
    size = [2 * INLIER_RADIUS * mixture.std] * len(mixture.means)
    style = {"facecolors": "none", "edgecolors": FAINT, "linewidths": 0.5, "zorder": 0}
    where = {"offsets": mixture.means.numpy(), "offset_transform": ax.transData}
    ax.add_collection(EllipseCollection(size, size, [0] * len(size), units="xy", **where, **style))


def frontier(runs: Sequence[Run]) -> Figure:
    """Inliers against two measures of mode coverage."""
    return frontiers.frontier(runs, ["effective_modes", "tv"])


def modes(runs: Sequence[Run]) -> Figure:
    """Every metric of record of every method."""
    return dots(runs, ["modes_covered", "tv", "inliers", "spread", "energy"])
