"""Fidelity against diversity while the students train."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdmd.config import Config
from pdmd.figures.results import frontiers, trained
from pdmd.figures.style import (
    DRAWN_FROM,
    LABELS,
    TEXT,
    legend,
    letter,
    line_of,
    marker_of,
    new_figure,
)
from pdmd.metrics.intervals import mean_interval
from pdmd.tables import FIDELITY, read_metrics

LOWER_IS_BETTER = {"tv", "cosine"}


def frontier(configs: Sequence[Config], names: Sequence[str]) -> Figure:
    """A column a measure of diversity; better is up and to the right in all of them.

    One-step students go their own way, so a second row leaves them out.
    """
    several = [config for config in configs if config["student"]["steps"] > 1]
    rows = [configs] if len(several) in (0, len(configs)) else [configs, several]
    figure = new_figure(TEXT, 0.5 + 2.5 * len(rows))
    axes = figure.subplots(len(rows), len(names), squeeze=False)
    for row, shown in zip(axes, rows, strict=True):
        for ax, name in zip(row, names, strict=True):
            draw_panel(ax, shown, name)
    letter(list(axes.flat))
    legend(figure, configs)
    return figure


def draw_panel(ax: Axes, configs: Sequence[Config], name: str) -> None:
    """Fidelity against one measure of diversity."""
    fidelity, metrics = FIDELITY[configs[0]["data"]["kind"]], read_metrics(configs)
    for config in trained(configs):
        draw_training(ax, config, fidelity, name)
    for config in configs:
        draw_end(ax, config["method"], metrics[config["method"]], fidelity, name)
    ax.set(xlabel=LABELS[fidelity], ylabel=LABELS[name])
    if name in LOWER_IS_BETTER:
        ax.invert_yaxis()


def draw_training(ax: Axes, config: Config, x: str, y: str) -> None:
    """The path of the mean over seeds from a dot on, and faintly of every seed."""
    import pandas as pd

    seeds, style = frontiers(config), line_of(config["method"])
    mean = pd.concat(seeds).groupby("step").mean()
    for seed in seeds:
        ax.plot(seed[x], seed[y], color=style["color"], linewidth=0.5, alpha=0.25)
    ax.plot(mean[x], mean[y], **style)
    ax.plot(mean[x].iloc[0], mean[y].iloc[0], ".", color=style["color"])


def draw_end(ax: Axes, method: str, seeds: Sequence[dict[str, float]], x: str, y: str) -> None:
    """The samples of record: a marker with a cross of 95% intervals."""
    centre, *bars = zip(*(mean_interval([s[name] for s in seeds]) for name in (x, y)), strict=True)
    if len(seeds) >= DRAWN_FROM and all(math.isfinite(bound) for bound in bars[0]):
        (left, bottom), (right, top) = bars
        style = {"color": marker_of(method)["color"], "linewidth": 0.9, "zorder": 3}
        ax.plot([left, right], [centre[1]] * 2, **style)
        ax.plot([centre[0]] * 2, [bottom, top], **style)
    ax.plot(*centre, **marker_of(method, 6), zorder=4)
