"""Metrics along one setting: a line a group of methods that share all else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdmd.config.methods import spelt
from pdmd.config.sections import Run
from pdmd.metrics.intervals import mean_interval
from pdmd.metrics.ranges import metric_range
from pdmd.report.figures.style import TEXT, new_figure
from pdmd.report.looks import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, look
from pdmd.report.reading import read_metrics

COLOURS = (VERMILION, BLUE, GREEN, PURPLE, ORANGE, SKY)
DASHES = ("-", "--", "-.", ":")


def curve(
    runs: Sequence[Run],
    along: str,
    metrics: Mapping[str, str],
    axis: str,
    labels: Mapping[str, str],
) -> Figure:
    """A panel a metric: mean and 95% interval over seeds, along a setting's values.

    Methods without the setting are lines across, each in its group's place in the legend.

    Args:
        along: such as `student.renoise.at`; metrics: ours, and the axis's label; axis: the label of
            the other axis; labels: of groups of methods, by what remains of their names.
    """
    scores = read_metrics(runs, list(metrics))
    figure = new_figure(TEXT, 2.6)
    axes = figure.subplots(1, len(metrics), squeeze=False)[0]
    lines, level = grouped(runs, along)
    for ax, (metric, label) in zip(axes, metrics.items(), strict=True):
        for place, (name, members) in enumerate(lines.items()):
            _draw(ax, place, labels.get(name, name), members, scores, metric)
        for place, run in enumerate(level):
            mean, low, high = _interval(scores[run.method], metric)
            style = {"color": COLOURS[place % len(COLOURS)], "linestyle": ":"}
            ax.axhline(mean, label=look(run.method).label, linewidth=0.9, **style)
            if math.isfinite(low):
                ax.axhspan(low, high, color=style["color"], alpha=0.08, linewidth=0)
        ax.set(xlabel=axis, ylabel=label)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _draw(
    ax: Axes,
    place: int,
    name: str,
    members: Sequence[tuple[float, Run]],
    scores: Mapping[str, Sequence[Mapping[str, float]]],
    metric: str,
) -> None:
    style: dict[str, Any] = {"color": COLOURS[place % len(COLOURS)]}
    at = [value for value, _ in members]
    ends = [_interval(scores[run.method], metric) for _, run in members]
    means = [mean for mean, _, _ in ends]
    errors = [[mean - low for mean, low, _ in ends], [high - mean for mean, _, high in ends]]
    dash = DASHES[place % len(DASHES)]
    ax.errorbar(at, means, errors, label=name, marker="o", markersize=3, linestyle=dash, **style)


def _interval(seeds: Sequence[Mapping[str, float]], metric: str) -> tuple[float, float, float]:
    return mean_interval([seed[metric] for seed in seeds], metric_range(metric))


def grouped(
    runs: Sequence[Run], along: str
) -> tuple[dict[str, list[tuple[float, Run]]], list[Run]]:
    """Lines: name -> (value, run) in rising order; and runs that have no value."""
    last = along.rpartition(".")[2].replace("_", "-")
    lines: dict[str, list[tuple[float, Run]]] = {}
    level: list[Run] = []
    for run in runs:
        value: Any = reduce(getattr, along.split("."), cast(Any, run))
        if value is None:
            level.append(run)
            continue
        part = f"-{last}-{spelt(value)}"  # what a grid adds to a name for it
        lines.setdefault(run.method.replace(part, "", 1), []).append((float(value), run))
    return {name: sorted(one, key=lambda pair: pair[0]) for name, one in lines.items()}, level
