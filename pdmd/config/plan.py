"""The configuration that a workflow was started with, kept for the jobs that come later.

A job on a cluster reads the Snakefile anew, hours later and perhaps after an edit. It takes the
settings from here, named by their digest, so that it does what was planned.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdmd.config.claims import registered
from pdmd.config.complaints import refusal
from pdmd.config.parts import Part, resolved, write_parts
from pdmd.config.paths import results_folder
from pdmd.errors import UserError
from pdmd.files.storage import fingerprint, read_json, replacing, sha256, sync_folder, write_json
from pdmd.scenarios.kind import kind_of

if TYPE_CHECKING:
    from pdmd.config.experiment import Config, Experiment

VARIABLE = "PDMD_PLAN"  # in the environment of jobs: the digest of their plan
PLANS = Path(".snakemake/pdmd")
SETTINGS = "settings.json"
DEPLOYED = ("config/methods.yaml", "config/scenarios")  # what tells our config/ from another's


def home(workflow: Any) -> Path:
    """For the Snakefile: the folder whose `config` counts.

    That is the working directory where a copy of `config` lies there, as snakedeploy makes one;
    else the Snakefile's own. A mistake ends the program with one line.

    Args:
        workflow: Snakemake's, while it reads the Snakefile, which may come from a hosted repository
            or be a module of another workflow.
    """
    moved = workflow.modifier.path_modifier
    if moved.prefix or moved.modifies_prefixes:
        mistake = "a module's prefix, replace_prefix: expected none: name the folder of results by"
        raise SystemExit(f"pdmd: {mistake} `results` in its config")
    if all(Path(name).exists() for name in DEPLOYED):
        return Path.cwd()
    source = workflow.current_basedir
    if not source.is_local:
        expected = "expected a copy of the workflow's, as `snakedeploy deploy-workflow` makes one"
        raise SystemExit(f"pdmd: {Path.cwd()}: no {' or '.join(DEPLOYED)}: {expected}")
    return Path(source)


def open_workflow(
    root: Path, settings: Config, files: Iterable[str | Path], main: bool
) -> tuple[Experiment, dict[str, dict[str, Part]]]:
    """For the Snakefile: the experiment, and what its jobs read, written where it is missing.

    A mistake ends the program with one line. Jobs inherit this Python, whether or not a shell has
    activated its environment, and the digest of the plan.

    Args:
        root: the folder of `config`; settings: as Snakemake merged them out of `files` and its
            command line; main: whether this process plans, or does a job that was planned before.
    """
    from pdmd.config.yaml_files import read_mapping

    python = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join(filter(None, (python, os.environ.get("PATH"))))
    try:
        if not main and VARIABLE in os.environ:
            experiment = recall(os.environ[VARIABLE])
            return experiment, resolved(experiment, root)
        for file in files:
            read_mapping(Path(file))  # Snakemake takes the last of a key given twice
        experiment = read_workflow(root, settings)
        check_files(experiment)
        registered(root)  # a mistake there is told now, too
        parts = write_parts(experiment, root)
        os.environ[VARIABLE] = keep(experiment)
    except UserError as error:
        raise SystemExit(f"pdmd: {error}") from None
    return experiment, parts


def check_files(experiment: Experiment) -> None:
    """Refuse to start without the files that users bring. Raises UserError."""
    for scenario in experiment.scenarios:
        run = experiment.shared(scenario)
        for key, path in kind_of(run.data).needs(run).items():
            if not Path(path).exists():
                raise refusal(scenario, key, path, "a file, or a folder, that is there")


def read_workflow(root: Path, settings: Config) -> Experiment:
    """The experiment of merged settings, its results folder as a plain path. Raises UserError."""
    from pdmd.config.experiment import Experiment

    text = settings.get("results")
    if isinstance(text, str):
        settings = {**settings, "results": results_folder(text)}
    return Experiment(root, settings)


def keep(experiment: Experiment, plans: Path = PLANS) -> str:
    """Keep all that an experiment was read from; returns its digest. Raises UserError."""
    root = experiment.root
    files = {
        str(path.relative_to(root)): path for path in sorted((root / "config").rglob("*.yaml"))
    }
    digests = {name: sha256(path) for name, path in files.items()}
    digest = fingerprint({"settings": experiment.settings, "files": digests})
    folder = plans / digest
    if folder.exists():
        return digest
    beside = plans / f".{digest}.{os.getpid()}"
    try:
        for name, path in files.items():
            (beside / name).parent.mkdir(parents=True, exist_ok=True)
            with replacing(beside / name) as copy:
                shutil.copyfile(path, copy)
        write_json(beside / SETTINGS, experiment.settings)
        os.replace(beside, folder)
        sync_folder(plans)
    except (OSError, UserError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        if folder.exists():  # another process was as fast
            return digest
        if isinstance(error, UserError):
            raise
        raise UserError(f"{plans}: {error.strerror}: expected a folder to write to") from error
    return digest


def settings_file() -> Path:
    """The merged settings of this process's plan."""
    return PLANS / os.environ[VARIABLE] / SETTINGS


def recall(digest: str, plans: Path = PLANS) -> Experiment:
    """The experiment that was kept under a digest. Raises UserError."""
    from pdmd.config.experiment import Experiment

    folder = plans / digest
    if not folder.is_dir():
        raise UserError(f"{folder}: missing: expected the settings that this job was planned with")
    return Experiment(folder, read_json(folder / SETTINGS))
