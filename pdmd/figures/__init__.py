"""Figures of record: one module a kind of scenario, one function a figure."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from pdmd import provenance
from pdmd.catalogue import FIGURES
from pdmd.config import Config
from pdmd.outputs import PROVENANCE, figure_data, figure_reads
from pdmd.paths import Paths

MODULES = {
    "atoms": "toy1d",
    "grid": "mixture2d",
    "digits": "digits",
    "emoji": "emoji",
    "moving": "moving",
}


def draw_figures(configs: Sequence[Config]) -> None:
    """Draw every figure of one scenario from its resolved runs, as PNG and PDF.

    A figure of the catalogue is the function of that name in the scenario's module.

    Args:
        configs: one a method, in the order of tables and legends.
    """
    from pdmd.figures import style

    first = configs[0]
    kind, folder = first["data"]["kind"], Paths(first).scenario / "figures"
    module = import_module(f"pdmd.figures.{MODULES[kind]}")
    with style.paper():
        for name in FIGURES[kind]:
            style.save(getattr(module, name)(configs), folder / name)
    inputs = [*figure_data(first), *(path for c in configs for path in figure_reads(c))]
    written = [f"{name}.{end}" for name in FIGURES[kind] for end in ("png", "pdf")]
    provenance.record(folder / PROVENANCE, first, first["seeds"], inputs, written)
