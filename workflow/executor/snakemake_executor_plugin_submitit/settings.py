"""What a user sets with --submitit-<name>, in a profile as `submitit-<name>:`."""

# No `from __future__ import annotations` here: Snakemake reads these types for its command line.

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from snakemake_interface_executor_plugins.settings import CommonSettings, ExecutorSettingsBase


def setting(default: Any, text: str, env_var: bool = False) -> Any:
    """One setting with its help text."""
    return field(default=default, metadata={"help": text, "env_var": env_var, "required": False})


@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    """Settings of the submitit executor."""

    cluster: Optional[str] = setting(
        None,
        "slurm, local (processes here, GPUs never shared) or debug (in this process); found"
        " out if not given",
    )
    folder: Optional[Path] = setting(
        Path(".snakemake/submitit"), "job folders with logs and pickles; on a shared file system"
    )
    partition: Optional[str] = setting(None, "partition of jobs that name none", env_var=True)
    account: Optional[str] = setting(None, "account of jobs that name none", env_var=True)
    qos: Optional[str] = setting(None, "quality of service of jobs that name none", env_var=True)
    runtime: int = setting(60, "minutes of walltime of jobs that ask for none")
    python: Optional[str] = setting(
        None,
        "command that starts Python on a node, for example"
        " `apptainer exec --nv image.sif python`; default: this Python",
    )
    setup: Optional[str] = setting(
        None, "shell commands before each job, one a line, for example `module load cuda`"
    )
    arrays: bool = setting(
        False, "submit jobs that become ready together and ask for the same as one job array"
    )
    array_size: int = setting(500, "most jobs in an array (MaxArraySize of the cluster)")
    array_parallelism: int = setting(100, "most jobs of an array that run at once")
    max_timeouts: int = setting(10, "how often a resumable job may be requeued at its walltime")
    signal_delay: int = setting(
        120,
        "seconds before its walltime at which a resumable job is told to save; Slurm may be"
        " up to 60 s early",
    )
    grace: int = setting(90, "seconds a job has to save before it is requeued all the same")
    kill_wait: int = setting(
        60, "seconds to wait for Slurm to end a job that it told to stop (KillWait, GraceTime)"
    )
    poll: float = setting(5.0, "seconds between two looks at the queue; more if squeue is slow")
    patience: int = setting(600, "seconds for which a failing sbatch is tried again")
    gpus: Optional[str] = setting(
        None,
        "cluster local: GPUs to hand out, such as 0,1,2,3, or their UUIDs; -1 for none; default:"
        " those that CUDA_VISIBLE_DEVICES or nvidia-smi names",
    )
    keep_days: int = setting(30, "days for which the folders of ended jobs, with logs, are kept")


LEAST = {
    "runtime": 1,
    "array_size": 1,
    "array_parallelism": 1,
    "max_timeouts": 0,
    "signal_delay": 0,
    "grace": 0,
    "kill_wait": 0,
    "poll": 0,
    "patience": 0,
    "keep_days": 0,
}


def check_settings(settings: ExecutorSettings) -> None:
    """Refuse numbers that make no sense. Raises ValueError."""
    for name, least in LEAST.items():
        value = getattr(settings, name)
        if not isinstance(value, int | float) or not least <= value < float("inf"):
            flag = name.replace("_", "-")
            raise ValueError(f"submitit-{flag}: {value!r}: expected a number of at least {least}")


common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    pass_default_storage_provider_args=True,
    pass_default_resources_args=True,
    pass_envvar_declarations_to_cmd=True,
    auto_deploy_default_storage_provider=False,
    init_seconds_before_status_checks=0,
    pass_group_args=True,
)
