"""The picture of the method in README: DMD2 beside Phased DMD, from the code's own rollouts.

`python -m pdmd.report.paper.method docs/method.png` writes it (`make picture`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pdmd.config.experiment import Experiment, merge
from pdmd.config.sections import Run
from pdmd.config.yaml_files import read_yaml
from pdmd.files.storage import replacing
from pdmd.report.figures.style import FAINT, METADATA, paper
from pdmd.report.looks import BLUE, VERMILION
from pdmd.report.paper.schemes import Call, paths_of, phases_drawn

if TYPE_CHECKING:
    from pdmd.phases import Phase

SCENARIO, METHODS = "qwenimage", ("dmd2", "phased2")  # on the paper's grid of shift 3
ONE, EXPERTS, BAND = "#444444", (BLUE, VERMILION), "#F2D388"  # one network, experts, scores
INK, QUIET, PALE = "#111111", "#555555", 0.35
WIDTH, ROW, DPI = 8.0, 0.24, 200  # inches, inches, dots an inch
LEFT, RIGHT, TOP, BOTTOM = 1.12, 0.14, 0.1, 1.32  # margins, inches
ARROW = 0.055  # length, in noise levels


@dataclass(frozen=True)
class Block:
    """One part of the picture: what is trained at a time, or sampling.

    Attributes:
        title, note: what stands above its rows, left and right; rows: name -> calls; phase: whose
            scores are matched, None of sampling; own: the expert that is trained, None for all;
            colours: of the networks, by expert.
    """

    title: str
    note: str
    rows: dict[str, tuple[Call, ...]]
    colours: Sequence[str]
    phase: Phase | None = None
    own: int | None = None

    @property
    def height(self) -> float:
        """Rows that it takes, with title and gap."""
        return len(self.rows) + (1.2 if self.phase else 0) + 1.9


def training(run: Run, titles: Sequence[tuple[str, str]], colours: Sequence[str]) -> list[Block]:
    """A block a phase: its rollouts, an exit a row."""
    blocks, paths = [], paths_of(run)
    for phase, (title, note) in zip(phases_drawn(run), titles, strict=True):
        rows = {f"exit {path.exit}": path.calls for path in paths if path.phase == phase.number}
        blocks.append(Block(title, note, rows, colours, phase, phase.number))
    return blocks


def sampling(run: Run) -> Block:
    """What a trained student does: every expert's steps, one after another."""
    calls = max((path.calls for path in paths_of(run)), key=len)
    note = f"{len(calls)} steps, no guidance: each expert ends where the next one starts"
    return Block("Sampling", note, {"experts 1, 2": calls}, EXPERTS)


def draw(dmd2: Run, phased: Run) -> Figure:
    """The whole picture, noise at its left and data at its right."""
    end = _end(phases_drawn(phased)[0])
    before = [("DMD2 with SGTS: one network", "every exit jumps to data; exit 1 is one-step DMD")]
    now = [
        ("Phased DMD, phase 1: expert 1", f"ends at {end}: no exit jumps to data"),
        ("Phased DMD, phase 2: expert 2", f"starts where the frozen expert 1 ends, at {end}"),
    ]
    blocks = [
        *training(dmd2, before, (ONE,)),
        *training(phased, now, EXPERTS),
        sampling(phased),
    ]
    height = sum(block.height for block in blocks)
    figure = Figure(figsize=(WIDTH, TOP + BOTTOM + ROW * height))
    _, inches = figure.get_size_inches()
    box = (LEFT / WIDTH, BOTTOM / inches, 1 - (LEFT + RIGHT) / WIDTH, ROW * height / inches)
    ax = figure.add_axes(box)
    _dress(ax, phases_drawn(phased), height)
    y = 0.0
    for block in blocks:
        _draw_block(ax, block, y)
        y += block.height
    _explain(figure)
    return figure


def _end(phase: Phase) -> str:
    """What the noise level at a phase's end is called."""
    return f"$t_{phase.number}$" if phase.end else "0"


def _dress(ax: Axes, phases: Sequence[Phase], height: float) -> None:
    """Noise levels along the axis, with the ends of phases by name."""
    times = phases[0].times
    named = {phase.end: _end(phase) for phase in phases[:-1]}
    extra = {times[0]: "noise", times[-1]: "data"} | named
    ax.set(xlim=(1.015, -0.015), ylim=(height - 0.6, 0))
    ax.set_xticks(times, [f"{t:.3g}\n{extra.get(t, '')}" for t in times])
    ax.tick_params(axis="x", labelsize=10, colors=INK)
    ax.set_yticks([])
    ax.set_xlabel("noise level $t$", fontsize=10.5, labelpad=-9)
    ax.grid(axis="x", color=FAINT, linewidth=0.6, linestyle=(0, (1, 2.5)), zorder=0)
    ax.spines["left"].set_visible(False)


def _draw_block(ax: Axes, block: Block, y: float) -> None:
    """Title and note, a row an exit, and below them where scores are matched."""
    first = block.colours[((block.own or 1) - 1) % len(block.colours)]
    colour = first if block.own else INK
    title: dict[str, Any] = {
        "color": colour,
        "weight": "bold",
        "fontsize": 11,
        "backgroundcolor": "white",
    }
    ax.text(1, y + 0.45, block.title, va="center", **title)
    italic: dict[str, Any] = {
        "color": QUIET,
        "fontsize": 10,
        "style": "italic",
        "backgroundcolor": "white",
    }
    ax.text(0, y + 0.45, block.note, va="center", ha="right", **italic)
    for row, (name, calls) in enumerate(block.rows.items()):
        _label(ax, y + 1.4 + row, name)
        _draw_calls(ax, block, calls, y + 1.4 + row)
    if block.phase is not None:
        _draw_scores(ax, block.phase, y + 1.4, y + 1.5 + len(block.rows))


def _label(ax: Axes, y: float, text: str) -> None:
    ax.annotate(
        text, (0, y), (-8, 0), ("axes fraction", "data"), "offset points",
        ha="right", va="center", fontsize=10, color=INK,
    )  # fmt: skip


def _draw_calls(ax: Axes, block: Block, calls: Sequence[Call], y: float) -> None:
    for call in calls:
        colour = block.colours[(call.expert - 1) % len(block.colours)]
        frozen = block.own is not None and call.expert != block.own
        thick = call.gradient and block.own is not None
        style: dict[str, Any] = {
            "color": faded(colour, PALE) if frozen else colour,
            "solid_capstyle": "butt",
        }
        ax.plot([call.start, call.end], [y, y], lw=3.4 if thick else 1.3, **style)
        ax.plot(call.start, y, "o", markersize=7.5 if thick else 4, **style)
    ax.plot(calls[-1].end, y, "|", color=INK, markersize=11, markeredgewidth=1.8, zorder=5)


def faded(colour: str, strength: float) -> str:
    """A colour mixed with white, of which nothing shines through."""
    red, green, blue = (1 - strength * (1 - value) for value in to_rgb(colour))
    return to_hex((red, green, blue))


def _draw_scores(ax: Axes, phase: Phase, top: float, y: float) -> None:
    """The range that samples are noised again in, from the phase's end towards noise."""
    low = max(phase.low, phase.floor)
    ax.barh(y, phase.high - low, left=low, height=0.82, color=BAND, linewidth=0, zorder=1)
    text = rf"$t \in$ ({_end(phase)}, 1)"
    middle = (low + phase.high + ARROW) / 2
    ax.text(middle, y + 0.03, text, fontsize=10, ha="center", va="center", color=INK)
    arrow = {"arrowstyle": "-|>", "color": INK, "lw": 1.0, "shrinkA": 0, "shrinkB": 0}
    ax.plot([phase.end, phase.end], [top, y], color=INK, lw=1.0, zorder=2)
    ax.annotate("", (phase.end + ARROW, y), (phase.end, y), arrowprops=arrow)
    _label(ax, y, "score matching")


def _explain(figure: Figure) -> None:
    """The legend, below."""
    thick: dict[str, Any] = {"lw": 3.4, "marker": "o", "markersize": 7.5}
    thin: dict[str, Any] = {"lw": 1.3, "marker": "o", "markersize": 4}
    end: dict[str, Any] = {"lw": 0, "marker": "|", "markersize": 11, "markeredgewidth": 1.8}
    handles = [
        Line2D([], [], color=BLUE, label="network call that carries the gradient", **thick),
        Line2D([], [], color=BLUE, label="network call without gradient", **thin),
        Line2D([], [], color=faded(BLUE, PALE), label="call of a frozen expert", **thin),
        Line2D([], [], color=INK, label="sample, which is noised again to $t$ (Eq. 2)", **end),
        Patch(color=BAND, label="fake score fitted, teacher compared with it (Eqs. 7, 8, 10, 13)"),
    ]
    figure.legend(handles=handles, loc="lower center", ncols=2, fontsize=10, frameon=False)


def main(path: Path, root: Path = Path()) -> None:
    """Draw the picture of the repository's own configuration."""
    one = {"scenarios": [SCENARIO], "validate": []}
    settings = merge(read_yaml(root / "config" / "config.yaml"), one)
    runs = Experiment(root, settings).runs
    with paper():
        figure = draw(*(runs[SCENARIO, method] for method in METHODS))
        with replacing(path) as beside:
            figure.savefig(beside, format="png", dpi=DPI, metadata=METADATA["png"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
