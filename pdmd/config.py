"""Read the configuration once, merge its diffs, refuse what is wrong in one line each."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pdmd.catalogue import PROMPTED
from pdmd.checks import Config as Config
from pdmd.checks import check_shares, check_together
from pdmd.errors import UserError


def merge(base: Config, diff: Config) -> Config:
    """A new mapping: `diff` over `base`, mappings merged key by key, all else replaced."""
    merged = dict(base)
    for key, value in diff.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def read_yaml(path: Path) -> Any:
    """Parse a YAML file. Raises UserError that names the file and line."""
    import yaml

    try:
        return yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: expected a readable YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: {reason}: expected valid YAML") from error


def check(value: Any, schema: Config, where: str) -> None:
    """Validate against a JSON schema. Raises UserError: where, key, value, what was expected."""
    from jsonschema.exceptions import best_match

    error = best_match(_validator()(schema).iter_errors(value))
    if error is None:
        return
    key = ".".join(str(part) for part in error.absolute_path)
    expected = _expectation(error)
    if error.validator == "additionalProperties":
        unknown = sorted(set(error.instance) - set(error.schema["properties"]))[0]
        key, shown = f"{key}.{unknown}".lstrip("."), repr(error.instance[unknown])
    else:
        shown = repr(error.instance)
    shown = shown if len(shown) < 80 else shown[:77] + "..."
    raise UserError(f"{where}: {key or 'the file'}: {shown}: expected {expected}")


def _validator() -> Any:
    """JSON Schema with strict numbers: 4.0 is no integer, NaN and infinity are no numbers."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    def integer(_: Any, value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    def number(_: Any, value: Any) -> bool:
        return integer(_, value) or (isinstance(value, float) and math.isfinite(value))

    types = {"integer": integer, "number": number}
    return extend(
        Draft202012Validator,
        type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many(types),
    )


def _expectation(error: Any) -> str:
    """What the failed keyword wanted, in words."""
    kind, wanted = error.validator, error.validator_value
    words = {
        "type": f"a value of type {wanted}",
        "enum": f"one of {', '.join(map(str, wanted)) if isinstance(wanted, list) else wanted}",
        "minimum": f"at least {wanted}",
        "maximum": f"at most {wanted}",
        "exclusiveMinimum": f"more than {wanted}",
        "exclusiveMaximum": f"less than {wanted}",
        "minItems": f"at least {wanted} entries",
        "maxItems": f"at most {wanted} entries",
        "uniqueItems": "no entry twice",
        "pattern": f"a name that matches {wanted}",
        "const": f"{wanted!r}",
    }
    if kind == "additionalProperties":
        return f"a known key, one of {', '.join(sorted(error.schema['properties']))}"
    if kind == "required":
        missing = [name for name in wanted if name not in error.instance]
        return f"the key {', '.join(missing)}"
    return words.get(kind, error.message)


class Experiment:
    """The whole configuration: scenarios, methods and every resolved run.

    Args:
        root: the repository; config/ and workflow/schemas/ lie below it.
        settings: the parsed config.yaml, overlays and command-line values already merged.
    """

    def __init__(self, root: Path, settings: Config):
        self.root = root
        schemas = root / "workflow" / "schemas"
        check(settings, read_yaml(schemas / "config.schema.yaml"), "config")
        self.settings = settings
        self.run_schema = read_yaml(schemas / "run.schema.yaml")
        self.methods: Config = read_yaml(root / "config" / "methods.yaml")
        if not isinstance(self.methods, dict):
            raise UserError("config/methods.yaml: the file: expected a mapping of methods")
        self.scenarios: list[str] = settings["scenarios"]
        self.runs = {
            (scenario, method): self._resolve(scenario, method)
            for scenario in self.scenarios
            for method in self.method_names(scenario)
        }
        for run in self.runs:
            self.beside(*run)

    def scenario(self, name: str) -> Config:
        """One scenario's settings: defaults, its file, then the overlay."""
        path = self.root / "config" / "scenarios" / f"{name}.yaml"
        if not path.exists():
            known = sorted(p.stem for p in path.parent.glob("*.yaml"))
            raise UserError(f"config: scenarios: {name!r}: expected one of {', '.join(known)}")
        diff = read_yaml(path)
        if not isinstance(diff, dict):
            raise UserError(f"{path}: {diff!r}: expected a mapping")
        merged = merge(self.settings["defaults"], diff)
        overrides = self.settings.get("overrides", {})
        for unknown in set(overrides) - {"all", *(p.stem for p in path.parent.glob("*.yaml"))}:
            raise UserError(f"config: overrides.{unknown}: expected `all` or a scenario's name")
        for key in ("all", name):
            merged = merge(merged, overrides.get(key, {}))
        return merged

    def method_names(self, scenario: str) -> list[str]:
        """The methods of a scenario, in the order of its tables."""
        names = self.scenario(scenario).get("methods")
        if not isinstance(names, list) or not names or len(set(map(str, names))) < len(names):
            raise UserError(f"{scenario}: methods: {names!r}: expected a list of different methods")
        for name in names:
            if str(name) not in self.methods:
                known = ", ".join(self.methods)
                raise UserError(f"{scenario}: methods: {name!r}: expected one of {known}")
        return names

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
            UserError: it is not among the scenario's methods, no teacher, or scored otherwise.
        """
        run = self.runs[scenario, method]
        if run["data"]["kind"] not in PROMPTED:
            return None
        found: str = run["evaluate"]["beside"]
        if self.runs.get((scenario, found), {}).get("kind") != "teacher":
            raise UserError(
                f"{scenario}/{method}: evaluate.beside: {found!r}: expected a method of kind"
                f" teacher among {', '.join(self.method_names(scenario))}"
            )
        spec, theirs = run["evaluate"], self.runs[scenario, found]["evaluate"]
        for key in ("samples", "video_samples", "networks"):
            if spec.get(key) != theirs.get(key):
                raise UserError(
                    f"{scenario}/{method}: evaluate.{key}: {spec.get(key)!r}: expected"
                    f" {theirs.get(key)!r}, as of {found}, whose samples these are compared with"
                )
        return None if found == method else found

    def _resolve(self, scenario: str, method: str) -> Config:
        diff = self.methods[method]
        if not isinstance(diff, dict):
            raise UserError(f"config/methods.yaml: {method}: {diff!r}: expected a mapping")
        run = merge(self.scenario(scenario), diff)
        run.pop("methods")
        run |= {"results": self.settings["results"], "scenario": scenario, "method": method}
        where = f"{scenario}/{method}"
        check(run, self.run_schema, where)
        check_together(run, where)
        for hardware, part in ((run["hardware"], run["kind"]), (self.hardware(scenario), "fit")):
            if part != "teacher":
                check_shares(hardware, part, run[part]["batch"], where)
        return run


def load_experiment(root: Path, settings: Config) -> Experiment:
    """Read the experiment; a mistake ends the program with one line."""
    try:
        return Experiment(root, settings)
    except UserError as error:
        raise SystemExit(f"pdmd: {error}") from None
