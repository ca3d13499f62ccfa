"""Dot plots: a row a method, a column a metric, 95% intervals and every seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pdmd.config.sections import Run
from pdmd.metrics.intervals import mean_interval
from pdmd.metrics.ranges import ANY, Range, metric_range
from pdmd.report.figures.style import FAINT, LABELS, TEXT, marker_of, new_figure
from pdmd.report.looks import look, wrapped
from pdmd.report.reading import read_metrics

LETTERS = 17  # in a line of a column's title


def dots(runs: Sequence[Run], names: Sequence[str]) -> Figure:
    """Metrics of record; the teacher's mean is a line through all rows."""
    values = read_metrics(runs, names)
    heads = [wrapped(LABELS[name], LETTERS) for name in names]
    lines = max(head.count("\n") for head in heads) + 1
    figure = new_figure(TEXT, 0.21 * len(values) + 0.15 * lines + 0.4)
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for ax, name, head in zip(axes, names, heads, strict=True):
        column = {
            method: [seed.get(name, math.nan) for seed in seeds] for method, seeds in values.items()
        }
        draw_column(ax, column, metric_range(name, runs[0].data))
        ax.set_xlabel(head)
        ax.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10], min_n_ticks=2))
    return figure


def draw_column(ax: Axes, values: dict[str, list[float]], limits: Range = ANY) -> None:
    """One metric: method -> its seeds' values, first method on top; limits: its range."""
    if "teacher" in values:
        teacher, _, _ = mean_interval(values["teacher"])
        ax.axvline(teacher, color=FAINT, linewidth=0.8, zorder=0)
    for row, (method, seeds) in enumerate(values.items()):
        mean, low, high = mean_interval(seeds, limits)
        colour = look(method).colour
        ax.plot(seeds, [row + 0.28] * len(seeds), "|", color=colour, markersize=3, alpha=0.8)
        if math.isfinite(low):
            ax.plot([low, high], [row, row], color=colour, linewidth=1.4)
        ax.plot(mean, row, **marker_of(method))
    ax.set_yticks(range(len(values)), [look(method).label for method in values])
    ax.set_ylim(len(values) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
