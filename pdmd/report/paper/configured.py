"""What of the paper shows the configuration alone: Table 1, the schemes of Figs. 1 and 9."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pdmd.config.experiment import Experiment, merge, read_yaml
from pdmd.config.paper import SCALES, Artefact, Made
from pdmd.config.sections import Run
from pdmd.report.looks import name_methods
from pdmd.report.paper.make import MAKE, Source

CONFIG = Path("config")
KINDS = ("settings", "rollouts", "intervals")


def configured(root: Path, artefact: Artefact, scale: str) -> list[Source]:
    """The methods that such an artefact shows at a scale, by the repository's own overlays.

    Args:
        root: the repository.
    """
    if artefact.kind not in KINDS:
        return []
    return [
        Source(replace(made, parts=("",)), root, _runs(root, made)) for made in artefact.at(scale)
    ]


def _runs(root: Path, made: Made) -> tuple[Run, ...]:
    """Its methods as the part that is named last has them."""
    settings: dict[str, Any] = read_yaml(root / CONFIG / "config.yaml")
    if made.parts[-1]:
        settings = merge(settings, read_yaml(root / CONFIG / f"{made.parts[-1]}.yaml"))
    experiment = Experiment(root, merge(settings, {"scenarios": [made.scenario]}))
    there = {method for scenario, method in experiment.runs if scenario == made.scenario}
    return tuple(experiment.runs[made.scenario, name] for name in made.methods if name in there)


def draw_schemes(root: Path, listed: Iterable[Artefact], folder: Path) -> None:
    """Draw Figs. 1 and 9 at every scale, as <folder>/<scale>/<id>.png."""
    for artefact in (one for one in listed if one.drawn):
        for scale in SCALES:
            sources = configured(root, artefact, scale)
            if not sources:
                continue
            name_methods(run for one in sources for run in one.runs)
            path = folder / scale / artefact.id
            MAKE[artefact.kind](artefact, sources, path)
            path.with_suffix(".pdf").unlink()
