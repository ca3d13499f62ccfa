"""What the training logs say: the fake score's fit, the generator's gradient, the samples' size."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdmd.config.sections import Run
from pdmd.report.figures.results import phase_logs, trained
from pdmd.report.figures.style import (
    FAINT,
    LABELS,
    TEXT,
    draw_band,
    legend,
    letter,
    log_ticks,
    marker_of,
    new_figure,
)

NAMES = ("fake_loss", "relative_lag", "generator_gradient_norm", "sample_std")
LOG = {"fake_loss", "generator_gradient_norm"}


def training(runs: Sequence[Run]) -> Figure:
    """Logged values over generator updates, phases laid one after another."""
    figure = new_figure(TEXT, 4.4)
    axes = list(figure.subplots(2, 2, sharex=True).flat)
    for ax, name in zip(axes, NAMES, strict=True):
        ends = {end for run in trained(runs) for end in draw_method(ax, run, name)}
        for end in sorted(ends)[:-1]:
            ax.axvline(end, color=FAINT, linewidth=0.6, linestyle=(0, (1, 2)), zorder=0)
        ax.set_ylabel(LABELS[name])
        if name in LOG:
            log_ticks(ax.yaxis)
    for ax in axes[2:]:
        ax.set_xlabel("generator updates, all phases")
    letter(axes)
    legend(figure, trained(runs))
    return figure


def draw_method(ax: Axes, run: Run, name: str) -> list[int]:
    """Mean over seeds and their range, one line a phase; returns the updates where phases end."""
    ends = []
    for log in phase_logs(run):
        seeds = log.groupby("update")[name]
        mean = seeds.mean(skipna=False)  # a gap where a seed has diverged
        draw_band(ax, run.method, mean.index, mean, (seeds.min(), seeds.max()))
        ax.plot(mean.index[-1], mean.iloc[-1], **marker_of(run.method, 4))
        ends.append(int(mean.index[-1]))
    return ends
