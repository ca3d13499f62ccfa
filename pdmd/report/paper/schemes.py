"""Figs. 1 and 9, drawn from what the code does: rollouts of its phases, and their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdmd.config.sections import Run
from pdmd.report.figures.style import FAINT, TEXT, new_figure
from pdmd.report.looks import BLUE, GREEN, PURPLE, VERMILION, title

if TYPE_CHECKING:
    from torch import Tensor

    from pdmd.models.base import Condition
    from pdmd.phases import Phase

EXPERTS = (BLUE, VERMILION, GREEN, PURPLE)  # of the phases, the first again after the last
ROW, TITLE = 0.2, 34  # inches of a row; letters in a line of titles


@dataclass(frozen=True)
class Call:
    """One call of a network in a rollout.

    Attributes:
        start, end: noise levels that it carries samples from and to; expert: the phase's number;
        gradient: whether it is in the graph.
    """

    start: float
    end: float
    expert: int
    gradient: bool


@dataclass(frozen=True)
class Path:
    """A rollout of one phase: what led to it, and how its own expert leaves.

    Attributes:
        phase: its number; exit: the step that it leaves at, of the phase, or None of all of them.
    """

    phase: int
    exit: int | None
    calls: tuple[Call, ...]

    @property
    def name(self) -> str:
        """What its row is called."""
        return f"phase {self.phase}, {'all' if self.exit is None else f'exit {self.exit}'}"


class Recorder:
    """A velocity that notes when it is called, and whether with a graph."""

    def __init__(self) -> None:
        self.starts: list[tuple[float, bool]] = []

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        import torch

        self.starts.append((float(t[0]), torch.is_grad_enabled()))
        return torch.zeros_like(x_t)

    def calls(self, end: float, expert: int) -> list[Call]:
        """What was noted, each call to where the next begins, the last to the end."""
        stops = [*(start for start, _ in self.starts[1:]), end]
        return [
            Call(start, stop, expert, graph)
            for (start, graph), stop in zip(self.starts, stops, strict=True)
        ]


def paths_of(run: Run) -> list[Path]:
    """Every rollout that a student's training makes: one an exit of each phase, or one a phase."""
    phases = phases_drawn(run)
    found = []
    for phase in phases:
        before = [call for one in phases[: phase.number - 1] for call in _frozen(one)]
        through, last = run.student.backward == "all", run.student.exits == "last"
        for step, calls in _exits(phase, through, last).items():
            found.append(Path(phase.number, step, (*before, *calls)))
    return found


def phases_drawn(run: Run) -> tuple[Phase, ...]:
    """A run's phases, the ranges of re-noising as they were chosen, if they were."""
    from pdmd.stages.grid import ranges_of, student_phases

    return student_phases(run, ranges_of(run))


def _frozen(phase: Phase) -> list[Call]:
    """What an earlier phase's expert does: every step, without a graph."""
    import torch

    from pdmd.flow import FLOWS
    from pdmd.rollout import simulate_to_end

    velocity = Recorder()
    with torch.no_grad():
        simulate_to_end(FLOWS["rectified"], velocity, phase, torch.zeros(1, 1), None)
    return velocity.calls(phase.end, phase.number)


def _exits(phase: Phase, through: bool, last: bool) -> dict[int | None, list[Call]]:
    """Exit, or None of all steps -> the calls of the phase's own expert."""
    import torch

    from pdmd.flow import FLOWS
    from pdmd.rollout import simulate_to_end, simulate_to_exit

    flow, x, found = FLOWS["rectified"], torch.zeros(1, 1), dict[int | None, list[Call]]()
    if through:
        velocity = Recorder()
        simulate_to_end(flow, velocity, phase, x, None)
        return {None: velocity.calls(phase.end, phase.number)}
    for step in range(phase.last - 1 if last else phase.first, phase.last):
        velocity = Recorder()
        simulate_to_exit(flow, velocity, phase, x, None, torch.tensor([step]))
        found[step - phase.first + 1] = velocity.calls(phase.end, phase.number)
    return found


def rollouts(runs: Sequence[Run]) -> Figure:
    """A panel a method, a row an exit: thick where the gradient is, pale of frozen experts."""
    every = [paths_of(run) for run in runs]
    columns = 2 if len(runs) > 1 else 1
    rows = -(-len(runs) // columns)
    height = max(map(len, every))
    figure = new_figure(TEXT, rows * (0.55 + ROW * height))
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=True).flat)
    for ax in axes[len(runs) :]:
        ax.set_axis_off()
    for ax, run, paths in zip(axes, runs, every, strict=False):
        for row, path in enumerate(paths):
            _draw_path(ax, row, path)
        _dress(ax, run, [path.name for path in paths], height)
    figure.supxlabel("noise level t", fontsize=8.5)
    return figure


def _draw_path(ax: Axes, row: int, path: Path) -> None:
    for call in path.calls:
        own = call.expert == path.phase
        colour = EXPERTS[(call.expert - 1) % len(EXPERTS)]
        style: dict[str, Any] = {
            "linewidth": 2.2 if call.gradient else 0.9,
            "alpha": 1.0 if own else 0.35,
        }
        ax.plot([call.start, call.end], [row, row], color=colour, **style)
        marker = "o" if call.gradient else "."
        ax.plot(call.start, row, marker, color=colour, markersize=4, alpha=style["alpha"])
    ax.plot(path.calls[-1].end, row, "|", color="black", markersize=7)


def _dress(ax: Axes, run: Run, names: Sequence[str], height: int) -> None:
    """Title, noise levels along the axis, names of rows."""
    times = phases_drawn(run)[0].times
    ax.set_title(title(run.method, TITLE))
    ax.set(xlim=(1.03, -0.03), ylim=(height - 0.4, -0.6))
    ax.set_xticks(times, [f"{t:.3g}" for t in times], rotation=60)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(labelbottom=True)
    ax.grid(axis="x", color=FAINT, linewidth=0.4, linestyle=(0, (1, 2)))
    ax.spines["left"].set_visible(False)


def intervals(runs: Sequence[Run]) -> Figure:
    """A panel a method, a row a phase: the range that its samples are noised again in.

    A bar begins where times are clamped to, if they are; a ring is the phase's end.
    """
    columns = 2 if len(runs) > 1 else 1
    rows, height = -(-len(runs) // columns), max(len(run.student.ends) for run in runs)
    figure = new_figure(TEXT, rows * (0.55 + ROW * height))
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=True).flat)
    for ax in axes[len(runs) :]:
        ax.set_axis_off()
    for ax, run in zip(axes, runs, strict=False):
        phases = phases_drawn(run)
        for row, phase in enumerate(phases):
            colour = EXPERTS[row % len(EXPERTS)]
            low = max(phase.low, phase.floor)
            ax.plot([low, phase.high], [row, row], color=colour, linewidth=5, solid_capstyle="butt")
            ax.plot(phase.end, row, "o", color="white", markeredgecolor=colour, markersize=4)
        _dress(ax, run, [f"phase {phase.number}" for phase in phases], height)
    figure.supxlabel("noise level t", fontsize=8.5)
    return figure
