"""The teacher's measured errors of single steps, and the grids that methods take through them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from pdmd.config.paths import Paths
from pdmd.config.sections import Run
from pdmd.config.times import chooses
from pdmd.files.storage import read_json, reading
from pdmd.report.figures.style import TEXT, new_figure
from pdmd.report.looks import BLUE, GREEN, PURPLE, VERMILION
from pdmd.stages.grid import Measured, read_measured
from pdmd.stages.outputs import CHOSEN, choice_reads

WORDS = {"end": "error at t = 0", "step": "error of the step"}
DECADES = 6  # of errors that colours tell apart
Grid = tuple[float, ...]


def steps(runs: Sequence[Run]) -> Figure:
    """Squared error of one step from t to s, and a mark for each step of a grid.

    Grids of shift are the scenario's own, with as many steps; sums are of the steps' errors.
    """
    choosing = [run for run in runs if chooses(run)]
    figure = new_figure(0.8 * TEXT, 0.5 * TEXT)
    ax = figure.subplots()
    draw_errors(figure, ax, read_measured(choice_reads(choosing[0])[0]))
    for number, (label, times, colour) in enumerate(grids(choosing)):
        (line,) = ax.plot(times[:-1], times[1:], color=colour, linewidth=0.8, label=label)
        line.set(marker="o", markeredgecolor="white", markeredgewidth=0.6, zorder=3 + number)
    ax.set(xlabel="step from t", ylabel="to s", xlim=(1.02, -0.02), ylim=(-0.02, 1.02))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def draw_errors(figure: Figure, ax: Axes, measured: Measured) -> None:
    """The errors as an image whose cells are centred on the levels; none where s is not below t."""
    levels = np.array(measured.levels)
    middles = (levels[1:] + levels[:-1]) / 2
    edges = np.concatenate([[1.0], middles, [0.0]])
    known = np.triu(np.ones_like(measured.errors, dtype=bool), 1)
    errors = np.where(known, measured.errors, np.nan).T
    top = float(measured.errors.max())
    image = ax.pcolormesh(
        edges, edges, errors, norm=LogNorm(top / 10**DECADES, top), cmap="cividis", rasterized=True
    )
    figure.colorbar(image, ax=ax, label=f"squared {WORDS[measured.kind]}, a number of x")


def grids(choosing: Sequence[Run]) -> list[tuple[str, Grid, str]]:
    """(label, times, colour) of each different grid: those of shift, then those of methods."""
    by_shift, chosen = dict[Grid, str](), dict[Grid, str]()
    for run in choosing:
        path = Paths(run).method / CHOSEN[0]
        value = read_json(path, dict, ("times", "predicted", "of_shift"))
        with reading(path, "what `pdmd grid` writes"):
            hand, times = value["of_shift"], tuple(map(float, value["times"]))
            count, total = len(times) - 1, value["predicted"]["total"]
            by_hand = f"{count} steps of shift {hand['shift']:g}, sum {hand['total']:.3g}"
            by_shift[tuple(map(float, hand["times"]))] = by_hand
            chosen[times] = f"{count} steps chosen, sum {total:.3g}"
    colours = [VERMILION, BLUE, GREEN, PURPLE]
    found = [(label, times, "black") for times, label in by_shift.items()]
    shown = zip(chosen.items(), itertools.cycle(colours), strict=False)
    return found + [(label, times, colour) for (times, label), colour in shown]
