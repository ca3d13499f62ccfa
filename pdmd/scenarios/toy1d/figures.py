"""Figures of the 1D toy: four atoms, whose exact velocity is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdmd.config.paths import Paths
from pdmd.config.run import read_run
from pdmd.config.sections import Run
from pdmd.data.sources import build_mixture
from pdmd.files.storage import read_json
from pdmd.flow import FLOWS, renoise
from pdmd.metrics import checks
from pdmd.metrics.intervals import mean_interval
from pdmd.metrics.ranges import SIZE
from pdmd.models.base import Space
from pdmd.models.build import load_files
from pdmd.report.figures.results import first_samples, samples_of
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
from pdmd.report.looks import look
from pdmd.report.reading import read_metrics
from pdmd.streams import REFERENCE_SEED, Stream

STRONG = 9  # trajectories that a panel stresses
TIMES, DRAWS = 32, 256  # of the velocity's error over time
RECORDED = ("velocity_rmse", "trajectory_rmse")
MARGIN = 0.02  # of the fitted range that the error over time leaves out


def trajectories(runs: Sequence[Run]) -> Figure:
    """Euler trajectories of each fitted velocity over those of the exact field, as in Fig. 2."""
    figure = new_figure(TEXT, 2.5)
    drawn = [first_samples(run) for run in runs]
    ends = [float(tensors["times"][-1]) for tensors in drawn]
    widths = [1 - end for end in ends]
    axes = figure.subplots(1, len(drawn), sharey=True, squeeze=False, width_ratios=widths)[0]
    for ax, run, tensors, end in zip(axes, runs, drawn, ends, strict=True):
        draw_trajectories(ax, run.method, tensors)
        ax.set(xlim=(1, end), xlabel="$t$", title=look(run.method).label)
        ax.set_xticks(np.linspace(1, end, round((1 - end) / 0.25) + 1))
        if end == 0:
            atoms = build_mixture(run.data).means[:, 0].tolist()
            ax.plot([0] * len(atoms), atoms, "ko", clip_on=False, zorder=5)
    axes[0].set_ylabel("$x_t$")
    letter(axes)
    return figure


def draw_trajectories(ax: Axes, method: str, tensors: dict[str, torch.Tensor]) -> None:
    """All thinly over the exact field's in grey; a few strongly under the exact ones dashed."""
    times, colour = tensors["times"].numpy(), look(method).colour
    fitted, exact = (tensors[name].squeeze(-1).numpy() for name in ("trajectory", "reference"))
    ranks = np.linspace(0, fitted.shape[1] - 1, STRONG + 2).round().astype(int)[1:-1]
    strong = fitted[0].argsort()[ranks]
    ax.plot(times, exact, color=FAINT, linewidth=0.5)
    ax.plot(times, fitted, color=colour, linewidth=0.4, alpha=0.3)
    ax.plot(times, fitted[:, strong], color=colour, linewidth=1.5)
    ax.plot(times, exact[:, strong], color="black", linewidth=0.8, linestyle=(0, (3, 3)))


def velocity_error(runs: Sequence[Run]) -> Figure:
    """Error against the exact field: of velocity and trajectories over time, and of record."""
    figure = new_figure(TEXT, 2.5)
    axes = figure.subplots(1, 3, width_ratios=[1.5, 1.5, 1])
    metrics = read_metrics(runs, RECORDED)
    for run in runs:
        method, seeds = run.method, run.seeds
        draw_curve(axes[0], method, [velocity_curve(run, seed) for seed in seeds])
        draw_curve(axes[1], method, [trajectory_curve(run, seed) for seed in seeds])
    for group, name in enumerate(RECORDED):
        for column, (method, by_seed) in enumerate(metrics.items()):
            x = group + (column + 0.5) / len(metrics) * 0.8
            draw_interval(axes[2], method, x, [seed[name] for seed in by_seed])
    for ax, name in zip(axes, RECORDED, strict=False):
        ax.set(xlim=(1, 0), xlabel="$t$", ylabel=LABELS[name])
    axes[2].set_xticks([0.4, 1.4], ["velocity,\n$0.52 < t < 0.98$", "trajectories,\n$t = 0.5$"])
    axes[2].set(xlim=(-0.1, 1.9), ylabel="RMSE ↓")
    axes[2].tick_params(axis="x", length=0)
    for ax in axes:
        log_ticks(ax.yaxis)
    letter(axes)
    legend(figure, runs)
    return figure


Curve = tuple[np.ndarray, np.ndarray]  # times and errors


def draw_curve(ax: Axes, method: str, seeds: Sequence[Curve]) -> None:
    """The mean over seeds and their range."""
    times, errors = seeds[0][0], np.array([error for _, error in seeds])
    draw_band(ax, method, times, errors.mean(0), (errors.min(0), errors.max(0)))


def draw_interval(ax: Axes, method: str, x: float, seeds: Sequence[float]) -> None:
    """Mean and 95% interval, every seed a little to the right."""
    (mean, low, high), colour = mean_interval(seeds, SIZE), look(method).colour
    ax.plot([x + 0.1] * len(seeds), seeds, "_", color=colour, markersize=4, alpha=0.8)
    ax.plot([x, x], [low, high], color=colour, linewidth=1.4)
    ax.plot(x, mean, **marker_of(method))


@torch.no_grad()
def velocity_curve(run: Run, seed: int) -> Curve:
    """RMSE of the fitted velocity on x_t ~ p(x_t), the same draws at every time."""
    paths, mixture = Paths(run), build_mixture(run.data)
    made = read_run(read_json(paths.seed(seed, "config.json")))  # a table's part has no network
    expert = paths.phase(seed, 1, "expert.safetensors")
    field = load_files(made.model, Space(tuple(mixture.means.shape[1:])), [expert])
    times = torch.linspace(1 - MARGIN, made.fit.start + MARGIN, TIMES)
    stream = Stream([REFERENCE_SEED], 0, "error over time")
    x_0 = mixture.draw(stream, DRAWS)
    noise = stream.normal(DRAWS, x_0.shape[1:]).repeat(TIMES, 1)
    t = times.repeat_interleave(DRAWS)
    x_t = renoise(FLOWS[made.flow], x_0.repeat(TIMES, 1), noise, torch.zeros_like(t), t)
    error = (field(x_t, t, None) - mixture.velocity(x_t, t)).square()
    curve = checks.samples("velocity", error.view(TIMES, -1).mean(1).sqrt(), what=str(expert))
    return times.numpy(), curve.numpy()


def trajectory_curve(run: Run, seed: int) -> Curve:
    """RMSE of trajectories against the exact field's from the same noise; their start is exact."""
    tensors = samples_of(run, seed)
    error = (tensors["trajectory"] - tensors["reference"]).square().flatten(1).mean(1).sqrt()
    what = f"{run.method}, seed {seed}"
    return tensors["times"][1:].numpy(), checks.samples("trajectories", error[1:], 0, what).numpy()
