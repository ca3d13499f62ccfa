"""What the training logs say: the fake score's fit, the generator's gradient, the samples' size."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdmd.config.sections import Run
from pdmd.report.figures.results import phase_logs, trained
from pdmd.report.figures.selected import selected
from pdmd.report.figures.style import FAINT, LABELS, TEXT, draw_band, log_ticks, new_figure
from pdmd.report.looks import title, wrapped

NAMES = ("relative_lag", "generator_gradient_norm", "sample_std")
LOG = {"generator_gradient_norm"}
MOST, TITLE = 6, 18  # methods; letters in a line of their titles


def training(runs: Sequence[Run]) -> Figure:
    """A row a logged value, a column a method, its phases laid one after another.

    The fake score's loss itself is left out: those of phases that end at different levels do not
    compare.
    """
    methods = selected(trained(runs), MOST)
    figure = new_figure(TEXT, 0.4 + 1.15 * len(NAMES))
    axes = figure.subplots(len(NAMES), len(methods), sharex=True, sharey="row", squeeze=False)
    for column, run in zip(axes.T, methods, strict=True):
        column[0].set_title(title(run.method, TITLE))
        for ax, name in zip(column, NAMES, strict=True):
            draw_method(ax, run, name)
    for row, name in zip(axes, NAMES, strict=True):
        row[0].set_ylabel(wrapped(LABELS[name], 16))
        if name in LOG:
            log_ticks(row[0].yaxis)
    figure.supxlabel("generator updates, all phases", fontsize=8.5)
    return figure


def draw_method(ax: Axes, run: Run, name: str) -> None:
    """Mean over seeds in the band of their range, one line a phase, dotted lines between phases."""
    ends = []
    for log in phase_logs(run):
        seeds = log.groupby("update")[name]
        mean = seeds.mean(skipna=False)  # a gap where a seed has diverged
        draw_band(ax, run.method, mean.index, mean, (seeds.min(), seeds.max()))
        ends.append(int(mean.index[-1]))
    for end in ends[:-1]:
        ax.axvline(end, color=FAINT, linewidth=0.6, linestyle=(0, (1, 2)), zorder=0)
