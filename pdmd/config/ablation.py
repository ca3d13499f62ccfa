"""An ablation: one method of one scenario, with some of its keys over some values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdmd.config.claims import NAME
from pdmd.config.complaints import refusal
from pdmd.config.experiment import Config, Experiment, merge
from pdmd.config.methods import NAME as METHOD_NAME
from pdmd.config.schema import check
from pdmd.config.typed import Schema, build, derived, key, schema
from pdmd.config.yaml_files import read_mapping
from pdmd.metrics.ranges import RANGES

BESIDE = ("teacher", "dmd2")  # rows that every table has, where the scenario has them


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """What a file of an ablation says."""

    scenario: str = key("its name", pattern=NAME, maxLength=60)
    of: str = key("the method whose keys are changed", pattern=METHOD_NAME.pattern)
    grid: Mapping[str, tuple[Any, ...]] = derived(())
    seeds: tuple[int, ...] | None = key(
        "of all of it (default: the scenario's)", least=0, most=2**31 - 1, absent=None
    )
    metrics: tuple[str, ...] | None = key(
        "of the table and figure (default: those of the scenario's first table)", absent=None
    )
    name: str = derived("")  # of its file

    def overlay(self, settings: Config) -> Config:
        """Settings that run its cells beside the scenario's own methods, in the same results."""
        listed = settings.get("methods", {})
        own = {"kind": "distill", "grid": {k: list(v) for k, v in self.grid.items()}}
        known: Config = read_mapping(Path("config/methods.yaml"))
        of = known.get(self.of) or listed.get(self.of)
        if of is None:
            raise refusal(self.name, "of", self.of, "a method of config/methods.yaml")
        cells = {self.name: merge({**own, "label": self.of}, of)}
        return {**settings, "scenarios": [self.scenario], "methods": {**listed, **cells}}


def ablation_schema() -> Schema:
    """The JSON schema of a file."""
    whole = schema(Ablation)
    values = {"type": "array", "minItems": 1, "maxItems": 100}
    whole["properties"]["grid"] = {"type": "object", "additionalProperties": values}
    whole["required"] = [*whole["required"], "grid"]
    return whole


def read_ablation(path: Path) -> Ablation:
    """An ablation from its file, whose name is its own.

    Raises:
        UserError: one line that names the file, the key, its value and what was expected.
    """
    content = read_mapping(path)
    check(content, ablation_schema(), path)
    if not content["grid"]:
        raise refusal(path, "grid", {}, "keys with lists of values")
    for name in content.get("metrics") or ():
        if name not in RANGES:
            raise refusal(path, "metrics", name, "a metric with a known range")
    return build(Ablation, {**content, "name": path.stem.replace("_", "-")})


def cells_of(ablation: Ablation, experiment: Experiment) -> dict[str, str]:
    """Each cell of the grid -> the method that it is: itself, or one that the scenario has.

    A cell that changes nothing of another method's settings is that method, and is not run again.
    """
    names = experiment.overlay.cells[ablation.name]
    own = {name: _settings(experiment, ablation.scenario, name) for name in names}
    others = [name for name in experiment.method_names(ablation.scenario) if name not in own]
    known = {str(_settings(experiment, ablation.scenario, name)): name for name in reversed(others)}
    return {name: known.get(str(value), name) for name, value in own.items()}


def _settings(experiment: Experiment, scenario: str, method: str) -> Config:
    return {k: v for k, v in experiment.configs[scenario, method].items() if k != "method"}
