"""Fidelity against diversity while the students train."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pdmd.config.sections import Run
from pdmd.metrics.intervals import mean_interval
from pdmd.metrics.ranges import DIRECTIONS, Range, ranges
from pdmd.report.figures.results import frontiers, trained
from pdmd.report.figures.selected import selected
from pdmd.report.figures.style import (
    FAINT,
    LABELS,
    TEXT,
    legend,
    letter,
    line_of,
    marker_of,
    new_figure,
)
from pdmd.report.reading import read_metrics
from pdmd.report.tables import compared_at

MOST = 8  # methods
START: dict[str, Any] = {"marker": "o", "markersize": 4.5, "markerfacecolor": "white"}


def frontier(runs: Sequence[Run], names: Sequence[str]) -> Figure:
    """A column a measure of diversity; better is up and to the right in all of them.

    One-step students go their own way, so a second row leaves them out. Of many methods the
    paper's are shown.
    """
    runs = selected(runs, MOST)
    several = [run for run in runs if run.student.steps > 1]
    rows = [runs] if len(several) in (0, len(runs)) else [runs, several]
    figure = new_figure(TEXT, 0.5 + 2.5 * len(rows))
    axes = figure.subplots(len(rows), len(names), squeeze=False)
    for row, shown in zip(axes, rows, strict=True):
        for ax, name in zip(row, names, strict=True):
            draw_panel(ax, shown, name)
    letter(list(axes.flat))
    ring = Line2D([], [], label="before the last phase", linestyle="none", color=FAINT, **START)
    legend(figure, runs, [ring])
    return figure


def draw_panel(ax: Axes, runs: Sequence[Run], name: str) -> None:
    """Fidelity against one measure of diversity."""
    data = runs[0].data
    fidelity = compared_at(data)
    metrics, limits = read_metrics(runs, [fidelity, name]), ranges([fidelity, name], data)
    for run in trained(runs):
        draw_training(ax, run, fidelity, name)
    for run in runs:
        draw_end(ax, run.method, metrics[run.method], limits)
    ax.set(xlabel=LABELS[fidelity], ylabel=LABELS[name])
    if DIRECTIONS.get(name) == "lower":
        ax.invert_yaxis()


def draw_training(ax: Axes, run: Run, x: str, y: str) -> None:
    """The path of the mean over seeds, a dot a snapshot, from a ring on."""
    import pandas as pd

    style = line_of(run.method)
    # where a metric is undefined for a seed, a mean over the others would not be comparable
    every = pd.concat(frontiers(run, [x, y]))
    mean = every[["step", x, y]].groupby("step").mean(skipna=False)
    ax.plot(mean[x], mean[y], **style, marker=".", markersize=2.5)
    ax.plot(mean[x].iloc[0], mean[y].iloc[0], color=style["color"], zorder=3, **START)


def draw_end(
    ax: Axes, method: str, seeds: Sequence[dict[str, float]], limits: Mapping[str, Range]
) -> None:
    """The samples of record: a marker with a cross of 95% intervals; limits: of both metrics."""
    values = {name: [seed[name] for seed in seeds] for name in limits}
    intervals = (mean_interval(values[name], ends) for name, ends in limits.items())
    centre, *bars = zip(*intervals, strict=True)
    if all(math.isfinite(bound) for bound in bars[0]):
        (left, bottom), (right, top) = bars
        style = {"color": marker_of(method)["color"], "linewidth": 0.9, "zorder": 3}
        ax.plot([left, right], [centre[1]] * 2, **style)
        ax.plot([centre[0]] * 2, [bottom, top], **style)
    ax.plot(*centre, **marker_of(method, 6), zorder=4)
