"""Read the configuration once, merge its diffs, refuse what is wrong in one line each."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from pdmd.config.checks import (
    BESIDE_METHODS,
    BESIDE_SCENARIOS,
    check_base,
    check_measured,
    check_name,
    check_together,
    check_validated,
)
from pdmd.config.checks import Config as Config
from pdmd.config.complaints import refusal, shown
from pdmd.config.hardware_checks import check_context, check_sharded, check_shares
from pdmd.config.methods import WHERE, of_overlay
from pdmd.config.run import read_run, run_schema
from pdmd.config.schema import check, partial
from pdmd.config.scopes import PLACES, check_method, check_scenario
from pdmd.config.sections import Listed, Run, Settings
from pdmd.config.times import chooses
from pdmd.config.typed import schema
from pdmd.config.yaml_files import plain, read_mapping
from pdmd.config.yaml_files import read_yaml as read_yaml
from pdmd.scenarios.kind import kind_of


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
        root: the repository; config/ lies below it.
        settings: the parsed config.yaml, overlays and command-line values already merged.
    Raises:
        UserError: something is wrong, whether it is asked for or not; one line says what and where.
    """

    def __init__(self, root: Path, settings: Config):
        self.root = root
        self.settings: Config = plain(settings, "config")
        check(self.settings, schema(Settings), "config")
        self.run_schema = run_schema()
        kept: Config = read_mapping(root / "config" / "methods.yaml")
        self.overlay = of_overlay(self.settings.get("methods", {}), kept)
        self.methods: Config = {**kept, **self.overlay.diffs}
        self.scenarios: list[str] = self.settings["scenarios"]
        self._merged: dict[str, Config] = {}
        self._shared: dict[str, Run] = {}
        self._check_diffs()
        for scenario in self.scenarios:
            self._check_shared(scenario)
        self.configs = {
            (scenario, method): self._resolve(scenario, method)
            for scenario in self.scenarios
            for method in self.method_names(scenario)
        }
        self.runs: dict[tuple[str, str], Run] = {}
        for (scenario, method), config in self.configs.items():
            run = self.runs[scenario, method] = read_run(config)
            check_together(run, config, where := f"{scenario}/{method}")
            if run.kind != "teacher":
                of = getattr(run, run.kind)
                context = of.parallel.context if run.kind == "distill" else 1
                check_shares(run.hardware, run.kind, of.batch, where, context)
            if run.kind == "distill":
                steps = [last - first for first, last in pairwise((0, *run.student.ends))]
                shares = run.hardware.nodes * run.hardware.processes // context
                check_sharded(run, steps, shares, where)
                check_context(run, where)
        for pair, run in self.runs.items():
            self.beside(*pair)
            if chooses(run):
                check_measured(run, self.shared(pair[0]), "/".join(pair))
        check_validated(self.settings["validate"], self.scenarios, self.scenario)

    def scenario(self, name: str) -> Config:
        """One scenario's settings: defaults, its file, then the overlay."""
        if name not in self._merged:
            self._merged[name] = self._merge(name, ("all", name))
        return self._merged[name]

    def shared(self, scenario: str) -> Run:
        """What the jobs that serve all methods of a scenario read: its run without a method."""
        if scenario not in self._shared:
            self._shared[scenario] = read_run(self.shared_config(scenario))
        return self._shared[scenario]

    def shared_config(self, scenario: str) -> Config:
        """The same as it is written."""
        run = {key: value for key, value in self.scenario(scenario).items() if key != "methods"}
        return run | {"results": self.settings["results"], "scenario": scenario}

    def method_names(self, scenario: str) -> list[str]:
        """The methods of a scenario, in the order of its tables."""
        return self._known_methods(scenario, self.scenario(scenario))

    def parts(self, scenario: str) -> dict[str, Config]:
        """Name below results/<scenario> -> what the jobs that read it need, and nothing else."""
        from pdmd.config.parts import parts

        return parts(self, scenario)

    def runs_of(self, scenario: str) -> list[Run]:
        """The runs of a scenario, in the order of its tables."""
        return [self.runs[scenario, name] for name in self.method_names(scenario)]

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
        return [name for name in names if self.runs[scenario, name].kind in wanted]

    def phases(self, scenario: str, method: str) -> int:
        """The number of phases that a method trains."""
        run = self.runs[scenario, method]
        return len(run.student.ends) if run.kind == "distill" else 1

    def beside(self, scenario: str, method: str) -> str | None:
        """The method, a teacher, whose samples a method's are compared with; None: nobody's.

        Raises:
            UserError: it is not among the scenario's methods, no teacher, scored otherwise, or
                compared with itself in the end.
        """
        evaluate = self.runs[scenario, method].evaluate
        kind = kind_of(self.runs[scenario, method].data)
        if not (kind.prompted or kind.frozen):
            return None
        where, beside = f"{scenario}/{method}", evaluate.beside
        teacher = self.runs.get((scenario, beside))
        if teacher is None or teacher.kind != "teacher":
            names = ", ".join(self.method_names(scenario))
            expected = f"a method of kind teacher among {names}"
            raise refusal(where, "evaluate.beside", beside, expected)
        for key in ("samples", "video_samples", "networks", "size"):
            if getattr(evaluate, key) != getattr(teacher.evaluate, key):
                value, theirs = (
                    self.configs[scenario, name]["evaluate"].get(key) for name in (method, beside)
                )
                whose = f"as of {beside}, whose samples these are compared with"
                raise refusal(where, f"evaluate.{key}", value, f"{shown(theirs)}, {whose}")
        last, after = method, beside
        for _ in self.methods:  # a chain is shorter than this, a ring is not
            last, after = after, self.runs[scenario, after].evaluate.beside
            if (scenario, after) not in self.runs or after == last:
                return None if beside == method else beside
        raise refusal(where, "evaluate.beside", beside, "teachers that are not compared in a ring")

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
            where = WHERE if name in self.overlay.diffs else "config/methods.yaml"
            check(name, self.run_schema["properties"]["method"], where, name)
            check_name(name, BESIDE_METHODS, where)
            if not isinstance(diff, dict):
                raise refusal(where, name, diff, "a mapping")
            check(diff, self._diff_schema, f"{where}: {name}")
            check_method(name, diff, where)
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
        every = partial(self.run_schema)
        return {**every, "properties": {**every["properties"], **schema(Listed)["properties"]}}

    @cached_property
    def _scenario_schema(self) -> Config:
        """The schema of a scenario's diff over the defaults."""
        properties = self._diff_schema["properties"].items()
        of_scenarios = {name: key for name, key in properties if name not in PLACES}
        return {**self._diff_schema, "properties": of_scenarios}

    def _known_methods(self, scenario: str, settings: Config) -> list[str]:
        listed: list[str] = settings.get("methods") or []
        names = [cell for name in listed for cell in self.overlay.cells.get(name, [name])]
        if len(set(names)) < len(names):
            raise refusal(scenario, "methods", listed, "a list of different methods")
        if not names:
            raise refusal(scenario, "methods", names, "a list of different methods")
        for name in names:
            if name not in self.methods:
                raise refusal(scenario, "methods", name, f"one of {', '.join(self.methods)}")
        return names

    def _check_shared(self, scenario: str) -> None:
        """What serves all methods: above all the base network, where one is fitted."""
        check_name(scenario, BESIDE_SCENARIOS, "config: scenarios")
        config, names = self.shared_config(scenario), self.method_names(scenario)
        check({**config, "method": "shared", "kind": "teacher"}, self.run_schema, scenario)
        if {self.methods[name]["kind"] for name in names} != {"fit"}:
            shared = read_run(config)
            if "fit" in config:
                check_base(shared, scenario)
                check_shares(shared.hardware, "fit", shared.fit.batch, scenario)

    def _resolve(self, scenario: str, method: str) -> Config:
        """A method's run, as it is written and checked against the schema."""
        config = merge(self.shared_config(scenario), self.methods[method]) | {"method": method}
        check(config, self.run_schema, f"{scenario}/{method}")
        return config
