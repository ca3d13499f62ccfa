"""Overlap of the untrained student's noised samples with the teacher's, and the ranges chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdmd.config.sections import Run
from pdmd.config.times import ranges
from pdmd.files.storage import read_json, reading
from pdmd.report.figures.style import TEXT, new_figure
from pdmd.report.looks import look
from pdmd.stages.outputs import ranged_reads

DASHES = ("-", "--", "-.", ":")  # of phases, the first again after the last


def overlap(runs: Sequence[Run]) -> Figure:
    """The least overlap by noise level, a curve for each phase, thick in the range chosen."""
    figure = new_figure(0.8 * TEXT, 0.45 * TEXT)
    ax = figure.subplots()
    for run in filter(ranges, runs):
        (path,) = ranged_reads(run)
        value = read_json(path, dict, ("phases", "overlap"))
        with reading(path, "what `pdmd range` writes"):
            for number, phase in enumerate(value["phases"]):
                _draw_phase(ax, run.method, number, phase)
            for share in value["overlap"]:
                ax.axhline(share, color="0.8", linewidth=0.6, zorder=0)
    ax.set(xlabel="noise level t", ylabel="overlap, at least", xlim=(0, 1), ylim=(0, 1.02))
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def _draw_phase(ax: Axes, method: str, number: int, phase: dict[str, Any]) -> None:
    """A phase's curve, which begins with 0 at its end, and the part of it that was chosen."""
    t, curve = [phase["end"], *phase["curve"]["t"]], [0.0, *phase["curve"]["overlap"]]
    low, high = phase["range"]
    chosen = [low, *(one for one in t if low < one < high), high]
    style: dict[str, Any] = {"color": look(method).colour}
    style["linestyle"] = DASHES[number % len(DASHES)]
    label = f"{look(method).label}, phase {number + 1}: {low:.3g} to {high:.3g}"
    ax.plot(t, curve, linewidth=0.7, **style)
    ax.plot(chosen, np.interp(chosen, t, curve), linewidth=2.2, label=label, **style)
