"""The common style of all figures, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from pdmd.config.sections import Run
from pdmd.files.storage import replacing
from pdmd.report.looks import look

TEXT = 6.8  # width of a paper's text, inches
FAINT = "#B0B0B0"
HANDLE, LETTER = 0.56, 0.047  # inches of a legend: its line with gaps, and a letter

RC = {
    "font.family": "STIXGeneral",  # comes with matplotlib: the same on every machine
    "mathtext.fontset": "stix",
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
}

# Without these a file would hold the date or the version of matplotlib.
METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}

# Axis labels; an arrow points to what is better, a bare label has no better side: samples of a
# prompt that are less alike than the teacher's are no better than its own.
LABELS = {
    "inliers": "inliers ↑",
    "modes_covered": "modes covered ↑",
    "effective_modes": "effective modes ↑",
    "tv": "total variation ↓",
    "spread": "spread (1 is best)",
    "energy": "energy distance ↓",
    "coverage": "coverage ↑",
    "density": "density",
    "cosine": "pairwise cosine",
    "accuracy": "accuracy ↑",
    "kid": "kernel distance ↓",
    "lpips": "pairwise LPIPS",
    "vendi": "Vendi score",
    "entropy_coarse": "mode entropy ↑",
    "entropy_free": "motion entropy ↑",
    "speed": "speed, px a frame",
    "speed_w1": "W1 of speeds ↓",
    "control": "motion as told ↑",
    "control_camera": "camera as told ↑",
    "kvd": "kernel video distance ↓",
    "kid_teacher": "KID to the teacher ↓",
    "kvd_teacher": "KVD to the teacher ↓",
    "velocity_rmse": "RMSE of the velocity ↓",
    "trajectory_rmse": "RMSE of the trajectories ↓",
    "relative_lag": "fake lag / its loss",
    "generator_gradient_norm": "generator gradient norm",
    "sample_std": "std. of samples",
}


@contextmanager
def paper() -> Iterator[None]:
    """Matplotlib's defaults, whatever the user's own are, with the paper's changes."""
    with matplotlib.style.context(["default", RC]):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, inches; it has no window and no global state."""
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: Path) -> None:
    """Write <path>.png and <path>.pdf whole; equal data give equal bytes."""
    for end, metadata in METADATA.items():
        with replacing(path.with_name(f"{path.name}.{end}")) as beside:
            figure.savefig(beside, format=end, metadata=metadata)


def line_of(method: str) -> dict[str, Any]:
    """Keywords of a method's lines."""
    return {"color": look(method).colour, "linestyle": look(method).dash}


def draw_band(ax: Axes, method: str, x: Any, mean: Any, limits: tuple[Any, Any]) -> None:
    """A method's line in a band between two limits."""
    ax.fill_between(x, *limits, color=look(method).colour, alpha=0.15, linewidth=0)
    ax.plot(x, mean, **line_of(method))


def marker_of(method: str, size: float = 5) -> dict[str, Any]:
    """Keywords of a method's markers; the star is small for its size, a cross is edge alone."""
    shown = look(method)
    size *= 1.6 if shown.marker == "*" else 1.0
    filled = shown.marker in Line2D.filled_markers
    edge: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.4}
    edge = edge if filled else {"markeredgecolor": shown.colour, "markeredgewidth": 1.2}
    return {"color": shown.colour, "marker": shown.marker, "markersize": size, **edge}


def legend(figure: Figure, runs: Sequence[Run], more: Sequence[Line2D] = ()) -> None:
    """One legend below all panels, in the order of the tables; more: handles after the methods'."""
    handles = []
    for run in runs:
        method = run.method
        dash = look(method).dash if run.kind != "teacher" else "none"
        style = marker_of(method) | {"linestyle": dash}
        handles.append(Line2D([], [], label=look(method).label, **style))
    handles += more
    longest = max(len(str(handle.get_label())) for handle in handles)
    most = min(5, int(TEXT / (HANDLE + LETTER * longest)))
    columns = math.ceil(len(handles) / math.ceil(len(handles) / most))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def letter(axes: Sequence[Axes]) -> None:
    """Letter the panels: (a), (b), ..."""
    for index, ax in enumerate(axes):
        ax.set_title(f"({chr(ord('a') + index)}) {ax.get_title()}", loc="left")
        ax.set_title("")


def log_ticks(axis: Axis) -> None:
    """A log scale with plain numbers at 1, 2, 5, ..., or at powers of ten on a long axis."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})  # type: ignore[attr-defined]
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0,) if high > 50 * low else (1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
