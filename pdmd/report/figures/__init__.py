"""Figures of record: one module a kind of scenario, one function a figure."""

from __future__ import annotations

from collections.abc import Sequence

from pdmd.config.experiment import Config
from pdmd.config.paths import Paths
from pdmd.config.run import read_run
from pdmd.files import provenance
from pdmd.report.looks import name_methods
from pdmd.report.registry import figure_names, figures_from
from pdmd.scenarios.kind import kind_of
from pdmd.stages.outputs import PROVENANCE


def draw_figures(configs: Sequence[Config]) -> None:
    """Draw every figure of one scenario from its resolved runs, as PNG and PDF.

    A figure is the function of that name in the kind's room.

    Args:
        configs: one a method, in the order of tables and legends.
    """
    from pdmd.report.figures import style
    from pdmd.report.figures.overlap import overlap
    from pdmd.report.figures.steps import steps

    choosing = {"steps": steps, "overlap": overlap}
    runs = [read_run(config) for config in configs]
    name_methods(runs)
    first = runs[0]
    kind, folder = kind_of(first.data), Paths(first).scenario / "figures"
    names = figure_names(runs)
    with style.paper():
        for name in names:
            draw = choosing[name] if name in choosing else kind.figure(name)
            style.save(draw(runs), folder / name)
    written = [f"{name}.{end}" for name in names for end in ("png", "pdf")]
    made_from = figures_from(runs)
    provenance.record_drawn(folder / PROVENANCE, configs[0], first.seeds, made_from, written)
