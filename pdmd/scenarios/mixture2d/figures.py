"""Figures of the 2D mixture."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from torch import Tensor

from pdmd.config.paths import Paths
from pdmd.config.sections import Run
from pdmd.data.sources import build_mixture
from pdmd.metrics.intervals import mean_interval
from pdmd.metrics.modes import INLIER_RADIUS, covered, mode_shares
from pdmd.report.figures import frontier as frontiers
from pdmd.report.figures.dots import dots
from pdmd.report.figures.results import first_samples
from pdmd.report.figures.style import FAINT, TEXT, new_figure
from pdmd.report.figures.training import training as training
from pdmd.report.looks import look, title
from pdmd.report.reading import read_scores

SHOWN = 4000  # samples in a panel
LIMIT = 2.5
ABREAST, TITLE = 4, 26  # panels in a row, letters in a line of their titles
LOST = "#F6C9A8"  # fills the circle of a mode that is not covered


def samples(runs: Sequence[Run]) -> Figure:
    """The first seed's samples of every method over the true modes, those that it lost filled."""
    rows = math.ceil(len(runs) / ABREAST)
    columns = math.ceil(len(runs) / rows)
    titles = [title(run.method, TITLE) for run in runs]
    lines = max(text.count("\n") for text in titles) + 2
    figure = new_figure(TEXT, rows * (TEXT / columns + 0.14 * lines + 0.08))
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes:
        ax.set_axis_off()
    for ax, run, text in zip(axes, runs, titles, strict=False):
        x = first_samples(run)["x"]
        draw_modes(ax, run, x)
        some = x[:SHOWN]
        colour = look(run.method).colour
        ax.scatter(some[:, 0], some[:, 1], s=1.5, color=colour, linewidths=0, rasterized=True)
        ax.set_title(f"{text}\n{_of_all_seeds(run)}", fontsize=7.5, linespacing=1.1)
        ax.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), aspect="equal")
    return figure


def _of_all_seeds(run: Run) -> str:
    """Inliers and modes covered, means over seeds."""
    names = ["inliers", "modes_covered"]
    scores = [read_scores(Paths(run).seed(seed, "metrics.json"), names) for seed in run.seeds]
    inliers, covered = (mean_interval([seed[name] for seed in scores])[0] for name in names)
    return f"{100 * inliers:.1f}% inliers, {covered:.3g}/{len(build_mixture(run.data).means)} modes"


def draw_modes(ax: Axes, run: Run, x: Tensor) -> None:
    """A circle round every true mode, filled if samples x do not cover it: inliers lie in it."""
    mixture = build_mixture(run.data)
    lost = ~covered(mode_shares(x, mixture)[2], mixture)
    size = [2 * INLIER_RADIUS * mixture.std] * len(mixture.means)
    fills = [LOST if one else "none" for one in lost.tolist()]
    style = {"facecolors": fills, "edgecolors": FAINT, "linewidths": 0.5, "zorder": 0}
    where = {"offsets": mixture.means.numpy(), "offset_transform": ax.transData}
    ax.add_collection(EllipseCollection(size, size, [0] * len(size), units="xy", **where, **style))


def frontier(runs: Sequence[Run]) -> Figure:
    """Inliers against two measures of mode coverage."""
    return frontiers.frontier(runs, ["effective_modes", "tv"])


def modes(runs: Sequence[Run]) -> Figure:
    """Every metric of record of every method."""
    return dots(runs, ["modes_covered", "tv", "inliers", "spread", "energy"])
