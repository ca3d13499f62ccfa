"""Read the configuration once, merge its diffs, refuse what is wrong in one line each."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from pdmd.catalogue import PROMPTED
from pdmd.checks import (
    BESIDE_METHODS,
    BESIDE_SCENARIOS,
    check_base,
    check_name,
    check_shares,
    check_together,
    check_validated,
)
from pdmd.checks import Config as Config
from pdmd.complaints import refusal, shown
from pdmd.schema import check, partial
from pdmd.scopes import PLACES, check_method, check_scenario
from pdmd.yaml_files import plain, read_mapping
from pdmd.yaml_files import read_yaml as read_yaml


def merge(base: Config, diff: Config) -> Config:
    """A new mapping: `diff` over `base`, mappings merged key by key, all else replaced."""
    merged = dict(base)
    for key, value in diff.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


class Experiment:
    """The whole configuration: scenarios, methods and every resolved run.

    Args:
        root: the repository; config/ and workflow/schemas/ lie below it.
        settings: the parsed config.yaml, overlays and command-line values already merged.
    Raises:
        UserError: something is wrong, whether it is asked for or not; one line says what and where.
    """

    def __init__(self, root: Path, settings: Config):
        self.root = root
        schemas = root / "workflow" / "schemas"
        self.settings: Config = plain(settings, "config")
        check(self.settings, read_yaml(schemas / "config.schema.yaml"), "config")
        self.run_schema = read_yaml(schemas / "run.schema.yaml")
        self.methods: Config = read_mapping(root / "config" / "methods.yaml")
        self.scenarios: list[str] = self.settings["scenarios"]
        self._merged: dict[str, Config] = {}
        self._check_diffs()
        for scenario in self.scenarios:
            self._check_shared(scenario)
        self.runs = {
            (scenario, method): self._resolve(scenario, method)
            for scenario in self.scenarios
            for method in self.method_names(scenario)
        }
        for run in self.runs:
            self.beside(*run)
        check_validated(self.settings["validate"], self.scenarios, self.scenario)

    def scenario(self, name: str) -> Config:
        """One scenario's settings: defaults, its file, then the overlay."""
        if name not in self._merged:
            self._merged[name] = self._merge(name, ("all", name))
        return self._merged[name]

    def shared(self, scenario: str) -> Config:
        """What the jobs that serve all methods of a scenario read: its run without a method."""
        run = {key: value for key, value in self.scenario(scenario).items() if key != "methods"}
        return run | {"results": self.settings["results"], "scenario": scenario}

    def method_names(self, scenario: str) -> list[str]:
        """The methods of a scenario, in the order of its tables."""
        return self._known_methods(scenario, self.scenario(scenario))

    def parts(self, scenario: str) -> dict[str, Config]:
        """Name below results/<scenario> -> what the jobs that read it need, and nothing else."""
        from pdmd.parts import parts

        return parts(self, scenario)

    def seeds(self, scenario: str) -> list[int]:
        """The seeds of a scenario."""
        return self.scenario(scenario)["seeds"]

    def groups(self, scenario: str) -> list[list[int]]:
        """Seeds that train in one job."""
        settings = self.scenario(scenario)
        seeds = settings["seeds"]
        return [seeds] if settings["together"] else [[seed] for seed in seeds]

    def select(self, scenario: str, kinds: Iterable[str]) -> list[str]:
        """The methods of a scenario whose kind is one of `kinds`."""
        wanted = set(kinds)
        names = self.method_names(scenario)
        return [name for name in names if self.runs[scenario, name]["kind"] in wanted]

    def hardware(self, scenario: str) -> dict[str, int]:
        """What a scenario's base network is fitted on; it serves all methods."""
        found: dict[str, int] = self.scenario(scenario)["hardware"]
        return found

    def phases(self, scenario: str, method: str) -> int:
        """The number of phases that a method trains."""
        run = self.runs[scenario, method]
        return len(run["student"]["boundaries"]) if run["kind"] == "distill" else 1

    def beside(self, scenario: str, method: str) -> str | None:
        """The method, a teacher, whose samples a method's are compared with; None: nobody's.

        Raises:
            UserError: it is not among the scenario's methods, no teacher, scored otherwise, or
                compared with itself in the end.
        """
        run = self.runs[scenario, method]
        if run["data"]["kind"] not in PROMPTED:
            return None
        where, found = f"{scenario}/{method}", str(run["evaluate"]["beside"])
        if self.runs.get((scenario, found), {}).get("kind") != "teacher":
            names = ", ".join(self.method_names(scenario))
            expected = f"a method of kind teacher among {names}"
            raise refusal(where, "evaluate.beside", found, expected)
        spec, theirs = run["evaluate"], self.runs[scenario, found]["evaluate"]
        for key in ("samples", "video_samples", "networks"):
            if spec.get(key) != theirs.get(key):
                whose = f"as of {found}, whose samples these are compared with"
                expected = f"{shown(theirs.get(key))}, {whose}"
                raise refusal(where, f"evaluate.{key}", spec.get(key), expected)
        last, after = method, found
        for _ in self.methods:  # a chain is shorter than this, a ring is not
            last, after = after, self.runs[scenario, after]["evaluate"]["beside"]
            if (scenario, after) not in self.runs or after == last:
                return None if found == method else found
        raise refusal(where, "evaluate.beside", found, "teachers that are not compared in a ring")

    def _merge(self, name: str, overrides: Iterable[str]) -> Config:
        """Defaults, a scenario's file and some overrides, one over the other."""
        path = self.root / "config" / "scenarios" / f"{name}.yaml"
        if name not in self._files():
            known = ", ".join(self._files())
            raise refusal("config", "scenarios", name, f"one of {known}")
        diff = read_mapping(path)
        self._check_diff(path, "", diff)
        merged = merge(self.settings["defaults"], diff)
        for key in overrides:
            merged = merge(merged, self.settings.get("overrides", {}).get(key, {}))
        return merged

    def _files(self) -> list[str]:
        """The scenarios that have a file."""
        return sorted(path.stem for path in (self.root / "config" / "scenarios").glob("*.yaml"))

    def _check_diffs(self) -> None:
        """Every diff that is written down, of whatever is not asked for too."""
        for name, diff in self.methods.items():
            where = "config/methods.yaml"
            check(name, self.run_schema["properties"]["method"], where, name)
            check_name(name, BESIDE_METHODS, where)
            if not isinstance(diff, dict):
                raise refusal(where, name, diff, "a mapping")
            check(diff, self._diff_schema, f"{where}: {name}")
            check_method(name, diff)
        self._check_diff("config", "defaults", self.settings["defaults"])
        overrides = self.settings.get("overrides", {})
        for name, diff in overrides.items():
            if name not in ("all", *self._files()):
                expected = "`all` or a scenario's name"
                raise refusal("config", f"overrides.{name}", diff, expected)
            self._check_diff("config", f"overrides.{name}", diff)
        for name in sorted(overrides.keys() - {"all", *self.scenarios}):
            self._known_methods(name, self._merge(name, (name,)))

    def _check_diff(self, where: Any, root: str, diff: Config) -> None:
        """A scenario's file, or a part of the configuration: keys of scenarios alone."""
        check_scenario(where, root, diff)
        check(diff, self._scenario_schema, where, root)

    @cached_property
    def _diff_schema(self) -> Config:
        """The schema of a method's diff over its scenario; `methods` is refused by name."""
        found = partial(self.run_schema)
        names = {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"type": "string"}}
        return {**found, "properties": {**found["properties"], "methods": names}}

    @cached_property
    def _scenario_schema(self) -> Config:
        """The schema of a scenario's diff over the defaults."""
        found = self._diff_schema["properties"].items()
        own = {name: schema for name, schema in found if name not in PLACES}
        return {**self._diff_schema, "properties": own}

    def _known_methods(self, scenario: str, settings: Config) -> list[str]:
        names: list[str] = settings.get("methods") or []
        if not names:
            raise refusal(scenario, "methods", names, "a list of different methods")
        for name in names:
            if name not in self.methods:
                raise refusal(scenario, "methods", name, f"one of {', '.join(self.methods)}")
        return names

    def _check_shared(self, scenario: str) -> None:
        """What serves all methods: above all the base network, where one is fitted."""
        check_name(scenario, BESIDE_SCENARIOS, "config: scenarios")
        shared, names = self.shared(scenario), self.method_names(scenario)
        check({**shared, "method": "shared", "kind": "teacher"}, self.run_schema, scenario)
        if {self.methods[name]["kind"] for name in names} != {"fit"}:
            check_base(shared, scenario)
            check_shares(shared["hardware"], "fit", shared["fit"]["batch"], scenario)

    def _resolve(self, scenario: str, method: str) -> Config:
        run = merge(self.shared(scenario), self.methods[method]) | {"method": method}
        where = f"{scenario}/{method}"
        check(run, self.run_schema, where)
        check_together(run, where)
        if run["kind"] != "teacher":
            check_shares(run["hardware"], run["kind"], run[run["kind"]]["batch"], where)
        return run
