"""What each kind of job reads of the configuration, as files named by the digest of their contents.

A job runs again when a section of its own changes, and not else. No file is ever changed: reading
the workflow once more, in a dry run or under another overlay, adds files and touches none that a
running workflow reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdmd.config.catalogue import PRETRAINED
from pdmd.config.run import read_run
from pdmd.config.sections import Run
from pdmd.config.times import chooses, ranges
from pdmd.errors import UserError
from pdmd.files.storage import fingerprint, read_json, write_json
from pdmd.scenarios.kind import kinds

if TYPE_CHECKING:
    from pdmd.config.experiment import Config, Experiment

IDENTITY = ("results", "scenario", "threads")
# Sections, or keys of one, of jobs that serve all methods of a scenario.
SHARED: dict[str, tuple[str, ...]] = {
    "data": ("data",),
    "classifier": ("data", "classifier"),
    "text": ("data",),
    "base": ("flow", "data", "model", "fit", "save"),
}
# The same of scenarios that have methods whose steps or phases are chosen from a measurement, and
# of those methods.
MEASURE = ("flow", "data", "model", "measure", "evaluate.size?")
CHOICE: dict[str, tuple[str, ...]] = {
    "teacher": ("kind", "teacher.steps", "teacher.grid", "student"),
    "distill": ("kind", "student", "model.boundary?"),
}
# The same of scenarios of released models.
RELEASED: dict[str, tuple[str, ...]] = {
    "source": ("model.kind", "model.family", "model.source", "model.revision?"),
    "embedding": ("data", "model"),
}
NETWORK = ("kind", "flow", "data", "model")
TEACHING = (
    "teacher.kind",
    "teacher.guidance",
    "teacher.guidance_low?",
)  # its steps and shift are of its own samples alone
# Of methods whose ranges of re-noising levels are chosen.
MEASURED = ("measure.levels", "measure.samples", "measure.substeps", "measure.seed")
RANGE = (*NETWORK, *TEACHING, "student", *MEASURED, "evaluate.size?")
# A key with "?" is of some kinds of data alone.
SIZED = ("evaluate.samples", "evaluate.size?")
DECODING = (*NETWORK, *SIZED)
FEATURES = (*DECODING, "evaluate.video_samples?", "evaluate.networks?")
SCORES = (*FEATURES, "evaluate.neighbours?", "evaluate.beside")
FRONTIER = ("evaluate.frontier_samples", "evaluate.neighbours?", "evaluate.video_samples?")
TABLE = ("kind", "title", "data", "student", "tables", "seeds")
SETTINGS = ("teacher.steps", "teacher.guidance", "distill.updates", "distill.batch")  # Table 1
GRID = ("teacher.steps", "teacher.shift", "teacher.grid?")  # of samples of a teacher
# The same of a method's jobs, by its kind.
JOBS: dict[str, dict[str, tuple[str, ...]]] = {
    "teacher": {
        "sample": (*NETWORK, "teacher", *SIZED, "evaluate.draw?"),
        "decode": DECODING,
        "features": FEATURES,
        "score": SCORES,
        "table": (*TABLE, *GRID),
        "paper": (*TABLE, *GRID),
    },
    "distill": {
        "bank": (*NETWORK, "student", "bank"),
        "distill": (*NETWORK, *TEACHING, "student", "distill", "bank.used", "save"),
        "sample": (*NETWORK, "student", *SIZED),
        "decode": DECODING,
        "features": FEATURES,
        "score": SCORES,
        "diagnostics": (*NETWORK, *TEACHING, "student", *FRONTIER),
        "table": TABLE,
        "paper": (*TABLE, "model", *SETTINGS),
    },
    "fit": {
        "fit": (*NETWORK, "fit", "save"),
        "trajectories": (*NETWORK, "fit", "evaluate"),
        "table": TABLE,
        "paper": TABLE,
    },
}
# What methods of released models have further. Without known content there are no diagnostics.
FURTHER: dict[str, tuple[str, ...]] = {
    "previews": (*NETWORK, "student", "evaluate.previews?", "evaluate.size?"),
    "export": (*NETWORK, "title", "teacher", "student", "distill", "evaluate"),
}
KEPT = ("kept", "start_from")  # weights in the repository, found from everywhere


@dataclass(frozen=True)
class Part:
    """The resolved sections that one kind of job reads.

    Attributes:
        content: the sections; digest: of them; path: the file that holds them.
    """

    content: Config
    digest: str
    path: Path

    @property
    def run(self) -> Run:
        """The same as typed values."""
        return read_run(self.content)


def parts(experiment: Experiment, scenario: str, base: Path = Path()) -> dict[str, Config]:
    """Name below results/<scenario>, without a digest -> what the jobs that read it need.

    Args:
        base: the folder that weights kept in the repository are looked for in, where they are not
            found from the working directory.
    """
    shared = experiment.shared_config(scenario)
    every = RELEASED if shared["model"]["kind"] == PRETRAINED else SHARED
    contents = {f"config/{part}.json": _part(shared, keys, base) for part, keys in every.items()}
    if any(map(chooses, experiment.runs_of(scenario))):
        contents["config/measure.json"] = _part(shared, (*MEASURE, *TEACHING), base)
    for name in experiment.method_names(scenario):
        run = experiment.configs[scenario, name]
        for part, keys in jobs_of(run).items():
            contents[f"{name}/config/{part}.json"] = {"method": name, **_part(run, keys, base)}
        if name in experiment.overlay.labels:
            for part in ("table", "paper"):
                contents[f"{name}/config/{part}.json"]["label"] = experiment.overlay.labels[name]
    return contents


def jobs_of(run: Config) -> dict[str, tuple[str, ...]]:
    """Name of each part that a method's jobs read -> its sections and keys."""
    jobs = JOBS[run["kind"]]
    if chooses(read_run(run)):
        jobs = {**jobs, "grid": CHOICE[run["kind"]]}
    if ranges(read_run(run)):
        jobs = {**jobs, "range": RANGE}
    if kinds()[run["data"]["kind"]].frozen is None or run["kind"] != "distill":
        return jobs
    further = FURTHER if run["model"]["kind"] == PRETRAINED else {}
    return {name: keys for name, keys in jobs.items() if name != "diagnostics"} | further


def _part(run: Config, keys: Iterable[str], base: Path) -> Config:
    """The sections of a run that one kind of job reads, or single keys of them."""
    content: Config = {}
    for key in (*IDENTITY, *keys):
        section, _, name = key.partition(".")
        if key == "bank.used":
            content[section] = {name: uses_bank(read_run(run))}
        elif name.endswith("?"):
            optional = {key: value for key, value in run[section].items() if key == name[:-1]}
            content[section] = {**content.get(section, {}), **optional}
        elif name:
            content[section] = {**content.get(section, {}), name: run[section][name]}
        else:
            content[section] = run[section]
    for section in {"fit", "classifier"} & content.keys():
        content[section] = {
            k: kept_file(v, base) if k in KEPT else v for k, v in content[section].items()
        }
    return content


def uses_bank(run: Run) -> bool:
    """Whether later phases start from a bank; a method of one phase has no later ones."""
    return bool(run.bank.rows) and len(run.student.ends) > 1


def kept_file(name: str | None, base: Path) -> str | None:
    """A file of the repository as the working directory reaches it."""
    if name is None or Path(name).exists() or not (base / name).exists():
        return name
    return str(base / name)


def resolved(experiment: Experiment, base: Path = Path()) -> dict[str, dict[str, Part]]:
    """Scenario -> name below results/<scenario>, without a digest -> the part."""
    results = Path(experiment.settings["results"])
    by_scenario: dict[str, dict[str, Part]] = {}
    for scenario in experiment.scenarios:
        of_scenario = by_scenario[scenario] = {}
        for name, content in parts(experiment, scenario, base).items():
            digest = fingerprint(content)
            path = results / scenario / f"{name.removesuffix('.json')}.{digest[:12]}.json"
            of_scenario[name] = Part(content, digest, path)
    return by_scenario


def write_parts(experiment: Experiment, base: Path = Path()) -> dict[str, dict[str, Part]]:
    """Write every part that is not there yet; returns all, as `resolved`.

    Raises:
        UserError: the results folder cannot be written.
    """
    by_scenario = resolved(experiment, base)
    for of_scenario in by_scenario.values():
        for part in of_scenario.values():
            write_once(part.path, part.content, part.digest)
    return by_scenario


def write_once(path: Path, content: Any, digest: str) -> None:
    """Write a JSON file named by its digest, unless it is there already, whole.

    Raises:
        UserError: it cannot be written.
    """
    try:
        whole = fingerprint(read_json(path)) == digest
    except UserError:  # not there, or spoilt
        whole = False
    if not whole:
        write_json(path, content)


def check_part(config: Config, part: str, where: str) -> None:
    """Refuse settings that are not of a part of this name. Raises UserError."""
    kind = config.get("kind")
    keys = SHARED.get(part) or RELEASED.get(part) or JOBS.get(str(kind), {}).get(part)
    keys = keys or FURTHER.get(part)
    chosen = {"grid": CHOICE.get(str(kind)), "range": RANGE if kind == "distill" else None}
    keys = {"measure": (*MEASURE, *TEACHING), **chosen}.get(part, keys)
    if keys is None:
        having = [name for name, jobs in JOBS.items() if part in jobs]
        kinds = ", ".join({"grid": list(CHOICE), "range": ["distill"]}.get(part, having))
        raise UserError(f"{where}: kind: {kind!r}: expected {kinds}, which have settings of {part}")
    for key in (*IDENTITY, *keys):
        section, _, name = key.partition(".")
        value = config.get(section)
        if name.endswith("?"):
            continue
        if section not in config or (name and not (isinstance(value, dict) and name in value)):
            raise UserError(f"{where}: no key {key}: expected the settings of {part}")


def check_digest(value: Any, digest: str | None, where: str) -> None:
    """Refuse settings that are not those a job was planned with. Raises UserError."""
    if digest is not None and fingerprint(value) != digest:
        raise UserError(
            f"{where}: digest {fingerprint(value)[:12]}: expected {digest[:12]}, the settings that"
            " this job was planned with"
        )
