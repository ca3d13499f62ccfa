"""A job's Snakemake resources as a request, and the request as submitit's parameters."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Request:
    """What a job asks for.

    Attributes:
        nodes, tasks: nodes, and tasks on each; cpus: on each task.
        gpus: on each node; mem_mb: on each node; mem_mb_per_cpu: instead of mem_mb; minutes: of
        walltime; resumable: told to save before its walltime, and requeued under its id.
        flags: further sbatch flags, name -> value or True.
    """

    name: str
    nodes: int = 1
    tasks: int = 1
    cpus: int = 1
    gpus: int = 0
    gpu_model: str | None = None
    gres: str | None = None
    mem_mb: int | None = None
    mem_mb_per_cpu: int | None = None
    minutes: int = 60
    resumable: bool = False
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, threads: int, resources: Mapping[str, Any], settings: Any) -> Request:
        """Read a job's resources.

        Raises:
            ValueError: one that makes no sense; names it, its value and what was expected.
        """

        def first(*names: str) -> Any:
            found = (resources.get(name) for name in names)
            return next((value for value in found if value not in (None, "")), None)

        def number(*names: str) -> int | None:
            value = first(*names)
            try:
                whole = None if value is None else int(value)
            except (TypeError, ValueError):
                whole = -1
            if whole is not None and whole < 0:
                raise ValueError(f"resource {names[0]}: {value!r}: expected a whole number")
            return whole

        nodes = number("nodes") or 1
        tasks = number("tasks_per_node")
        if tasks is None:
            tasks = _share("tasks", number("tasks") or nodes, nodes)
        gpus = _share("gpu", number("gpu", "gpus") or 0, nodes)
        return cls(
            name=re.sub(r"[^\w.,=+-]", "_", name)[:100],
            nodes=nodes,
            tasks=tasks,
            cpus=number("cpus_per_task") or max(1, threads),
            gpus=gpus,
            gpu_model=first("gpu_model"),
            gres=first("gres", "slurm_gres"),
            mem_mb=None if first("mem_mb_per_cpu") else number("mem_mb"),
            mem_mb_per_cpu=number("mem_mb_per_cpu"),
            minutes=number("runtime") or settings.runtime,
            resumable=bool(first("resumable")),
            partition=first("slurm_partition", "partition") or settings.partition,
            account=first("slurm_account", "account") or settings.account,
            qos=first("qos", "slurm_qos") or settings.qos,
            constraint=first("constraint", "slurm_constraint"),
            flags=_flags(str(first("slurm_extra") or "")),
        )


def _share(name: str, total: int, nodes: int) -> int:
    """What each node gets. Raises ValueError where the total does not divide."""
    if total % nodes:
        raise ValueError(f"resource {name}: {total}: expected a multiple of nodes = {nodes}")
    return total // nodes


def _flags(text: str) -> dict[str, Any]:
    """sbatch flags from a command line, as `--flag`, `--flag=value` or `--flag value`."""
    found: dict[str, Any] = {}
    name = None
    for word in shlex.split(text):
        if word.startswith("--"):
            name, sign, value = word[2:].partition("=")
            found[name] = value if sign else True
            if sign:
                name = None
        elif name:
            found[name], name = word, None
        else:
            raise ValueError(f"resource slurm_extra: {text!r}: expected --flag or --flag=value")
    return found


def slurm_parameters(request: Request, settings: Any, comment: str) -> dict[str, Any]:
    """Parameters of submitit.SlurmExecutor. The comment finds a job whose id was lost."""
    # Python replaces the batch shell and runs once, on the first node: hence B: and no srun. A job
    # that cannot resume must not get submitit's signal, which would end it; it ignores CONT.
    signal = f"B:USR2@{settings.signal_delay}" if request.resumable else "B:CONT@1"
    flags: dict[str, Any] = {"signal": signal, "requeue": True, **request.flags}
    if request.gpus and not request.gres:
        model = f"{request.gpu_model}:" if request.gpu_model else ""
        flags["gpus-per-node"] = f"{model}{request.gpus}"
    found: dict[str, Any] = {
        "job_name": request.name,
        "time": request.minutes,
        "nodes": request.nodes,
        "ntasks_per_node": request.tasks,
        "cpus_per_task": request.cpus,
        "gres": request.gres,
        "mem_per_cpu": request.mem_mb_per_cpu and f"{request.mem_mb_per_cpu}M",
        "partition": request.partition,
        "account": request.account,
        "qos": request.qos,
        "constraint": request.constraint,
        "comment": comment,
        "use_srun": False,
        "array_parallelism": settings.array_parallelism,
        "setup": settings.setup.splitlines() if settings.setup else None,
        "additional_parameters": flags,
    }
    if request.mem_mb:
        flags["mem"] = f"{request.mem_mb}M"
    return {name: value for name, value in found.items() if value is not None}
