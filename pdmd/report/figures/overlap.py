"""Overlap of the untrained student's noised samples with the teacher's, and the ranges chosen."""

from __future__ import annotations

from collections.abc import Sequence

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
                t, curve = phase["curve"]["t"], phase["curve"]["overlap"]
                (low, high), style = phase["range"], DASHES[number % len(DASHES)]
                colour, what = look(run.method).colour, f"phase {number + 1}: {low:g} to {high:g}"
                label = f"{look(run.method).label}, {what}"
                ax.plot(t, curve, color=colour, linestyle=style, linewidth=0.7)
                inside = [low, *(one for one in t if low < one < high), high]
                ax.plot(
                    inside,
                    [_between(t, curve, phase["end"], one) for one in inside],
                    color=colour,
                    linestyle=style,
                    linewidth=2.2,
                    label=label,
                )
            for share in value["overlap"]:
                ax.axhline(share, color="0.8", linewidth=0.6, zorder=0)
    ax.set(xlabel="noise level t", ylabel="overlap, at least", xlim=(0, 1), ylim=(0, 1.02))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _between(times: Sequence[float], values: Sequence[float], end: float, t: float) -> float:
    """A curve that begins with 0 at the phase's end, linear between its points."""
    import numpy as np

    return float(np.interp(t, [end, *times], [0.0, *values]))
