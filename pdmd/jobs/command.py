"""Snakemake's command line and the settings it gives, by Snakemake's own reading of both."""

from __future__ import annotations

import contextlib
import copy
import io
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from pdmd.config.experiment import Config
from pdmd.config.yaml_files import read_mapping
from pdmd.errors import UserError

CONFIG = Path("config/config.yaml")
CORES = 2  # where nobody says how many


def read_arguments(who: str, arguments: Sequence[str]) -> Namespace:
    """What Snakemake takes its arguments for, its profiles' among them.

    Args:
        who: the command that hands them on, for what is said of them.
    Raises:
        UserError: Snakemake would refuse them, or they are of another folder or Snakefile.
    """
    from snakemake.api import resolve_snakefile
    from snakemake.cli import parse_args
    from snakemake.exceptions import CliException
    from snakemake_interface_common.exceptions import WorkflowError

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            given: Namespace = parse_args(list(arguments))[1]
    except SystemExit:  # after pages of usage
        reason = (said.getvalue().strip().splitlines() or ["see snakemake --help"])[-1]
        raise UserError(f"{who}: {reason.rpartition('error: ')[2]}") from None
    except (CliException, WorkflowError) as error:
        raise UserError(f"{who}: {' '.join(str(error).split())}") from error
    if given.directory or given.snakefile:
        raise UserError(f"{who}: --directory, --snakefile: expected Snakemake itself for these")
    if resolve_snakefile(None, allow_missing=True) is None:
        raise UserError(
            f"{who}: {Path.cwd()}: no Snakefile: expected a clone of pdmd's repository, or a folder"
            " that snakedeploy made of it: an installed package has the commands alone"
        )
    return given


def merged(
    who: str, settings: Config, files: Sequence[Path], pairs: Sequence[str] | None
) -> Config:
    """Settings with overlays over them, as Snakemake merges them; they stay as they are.

    Args:
        who: as in `read_arguments`; files: of --configfile; pairs: KEY=VALUE, of --config.
    Raises:
        UserError: a file is missing or wrong, or a pair is none.
    """
    from snakemake.cli import parse_config
    from snakemake.settings.types import ConfigSettings
    from snakemake.utils import update_config
    from snakemake_interface_common.exceptions import WorkflowError

    try:
        for path in files:
            read_mapping(path)  # what is wrong with it is said in one line
        overlay = ConfigSettings(config=parse_config(pairs), configfiles=files)
    except (ValueError, WorkflowError) as error:
        raise UserError(f"{who}: {' '.join(str(error).split())}") from error
    wanted = copy.deepcopy(settings)
    update_config(wanted, overlay.overwrite_config)
    return wanted


def settings_of(
    who: str, files: Sequence[Path], pairs: Sequence[str] | None = None, root: Path = Path()
) -> Config:
    """`merged` over config.yaml, which lies below a root."""
    return merged(who, read_mapping(root / CONFIG), files, pairs)


def given_settings(who: str, given: Namespace, settings: Config | None = None) -> Config:
    """The settings of a Snakemake that is started with these arguments. Raises UserError.

    Args:
        given: as `read_arguments` has it; settings: those below its own (default: config.yaml).
    """
    if given.replace_workflow_config:
        settings = {}
    elif settings is None:
        settings = read_mapping(CONFIG)
    return merged(who, settings, given.configfile, given.config)
