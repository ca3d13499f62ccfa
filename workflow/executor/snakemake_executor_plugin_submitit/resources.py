"""A job's Snakemake resources as a request, and the request as submitit's parameters."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

from snakemake_executor_plugin_submitit.flags import RESOURCES, plain, read_flags

# The names under which a resource is known, here and to other executors of Snakemake.
NAMES = {
    "nodes": ("nodes",),
    "tasks": ("tasks", "ntasks"),
    "tasks_per_node": ("tasks_per_node", "ntasks_per_node"),
    "cpus_per_task": ("cpus_per_task",),
    "gpu": ("gpu", "gpus"),
    "gpus_per_node": ("gpus_per_node",),
    "gpus_per_task": ("gpus_per_task",),
    "ntasks_per_gpu": ("ntasks_per_gpu", "tasks_per_gpu"),
    "cpus_per_gpu": ("cpus_per_gpu",),
    "gpu_model": ("gpu_model",),
    "mem_mb": ("mem_mb",),
    "mem_mb_per_cpu": ("mem_mb_per_cpu",),
    "mem_mb_per_gpu": ("mem_mb_per_gpu",),
    "runtime": ("runtime",),
    "resumable": ("resumable",),
    "gres": ("gres", "slurm_gres"),
    "slurm_partition": ("slurm_partition", "partition"),
    "slurm_account": ("slurm_account", "account"),
    "qos": ("qos", "slurm_qos"),
    "constraint": ("constraint", "slurm_constraint"),
    "slurm_reservation": ("slurm_reservation", "reservation"),
    "slurm_exclude": ("slurm_exclude", "exclude"),
    "slurm_nodelist": ("slurm_nodelist", "nodelist"),
    "slurm_licenses": ("slurm_licenses", "licenses"),
    "slurm_extra": ("slurm_extra",),
    "clusters": ("clusters", "cluster", "slurm_cluster", "slurm_clusters"),
}
LISTS = ("slurm_partition", "slurm_exclude", "slurm_nodelist", "slurm_licenses", "gres")
AGAINST = (  # of each row one
    ("gpu", "gpus_per_node", "gpus_per_task"),
    ("mem_mb_per_cpu", "mem_mb_per_gpu"),
    ("tasks", "tasks_per_node", "ntasks_per_gpu"),
    ("cpus_per_task", "cpus_per_gpu"),
)
OF_GPUS = ("ntasks_per_gpu", "cpus_per_gpu", "mem_mb_per_gpu")


def wrong(name: str, value: Any, expected: str) -> ValueError:
    """The error of a resource, or of a setting, in one line."""
    shown = repr(value)
    shown = shown if len(shown) < 80 else f"{shown[:77]}..."
    what = name if name.startswith("submitit-") else f"resource {name[:80]}"
    return ValueError(f"{what}: {shown}: expected {expected}")


class Wishes:
    """A job's resources, each read under any of its names.

    Raises:
        ValueError: one that Slurm would not get, or that is said twice.
    """

    def __init__(self, resources: Mapping[str, Any]):
        known = {name for names in NAMES.values() for name in names}
        for name, value in resources.items():
            if name.startswith("slurm_") and name not in known:
                near = difflib.get_close_matches(name, [n for n in known if n[:6] == "slurm_"], 1)
                hint = near[0] if near else "a resource of the executor's README"
                raise wrong(name, value, f"{hint}; flags of sbatch go into slurm_extra")
        self._found: dict[str, tuple[str, Any]] = {}
        for key, names in NAMES.items():
            given = [(n, resources[n]) for n in names if resources.get(n) not in (None, "")]
            if any(value != given[0][1] for _, value in given[1:]):
                raise wrong(given[1][0], given[1][1], f"the same as {given[0][0]}, or none")
            if given:
                self._found[key] = given[0]
        if "clusters" in self._found:
            why = "none: start Snakemake where sbatch, squeue and scancel mean that cluster"
            raise wrong(*self._found["clusters"], why)
        self.flags: dict[str, Any] = {}
        extra = self.text("slurm_extra")
        if extra:
            self._add_flags(extra)
        self._check_against()

    def _add_flags(self, extra: str) -> None:
        """Take the flags that are resources for those."""
        more, self.flags = read_flags(extra)
        for key in more:
            if key in self._found:
                name, said = self._found[key]
                flag = next((flag for flag, (of, _) in RESOURCES.items() if of == key), "gpus")
                raise wrong(
                    "slurm_extra", f"--{flag}", f"this in resource {name}, which says {said!r}"
                )
        self._found.update({key: (key, value) for key, value in more.items()})

    def _check_against(self) -> None:
        for row in AGAINST:
            given = [self._found[key] for key in row if key in self._found and self._found[key][1]]
            if len(given) > 1:
                raise wrong(*given[1], f"none beside resource {given[0][0]}")
        gpus = any(self._found.get(key, ("", 0))[1] for key in AGAINST[0]) or "gres" in self._found
        for key in OF_GPUS:
            if key in self._found and not gpus:
                raise wrong(*self._found[key], "resource gpu beside it")

    def said(self, key: str) -> bool:
        """Whether there is such a resource."""
        return key in self._found

    def count(self, key: str, least: int = 1) -> int | None:
        """A whole number, None where there is none. Raises ValueError."""
        return self._number(key, least, rounded=False)

    def amount(self, key: str, least: int = 1) -> int | None:
        """A number, rounded up; None where there is none. Raises ValueError."""
        return self._number(key, least, rounded=True)

    def _number(self, key: str, least: int, rounded: bool) -> int | None:
        if key not in self._found:
            return None
        name, value = self._found[key]
        number = value
        if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,18}\s*", value, re.ASCII):
            number = int(value)
        if isinstance(number, float) and math.isfinite(number):
            number = math.ceil(number) if rounded or number.is_integer() else None
        sound = isinstance(number, Integral) and not isinstance(number, bool)
        if not sound or not least <= number < 10**9:
            raise wrong(name, value, f"a whole number of at least {least}")
        return int(number)

    def switch(self, key: str) -> bool:
        """Yes or no; a group's is the sum of its jobs'. Raises ValueError."""
        name, value = self._found.get(key, (key, 0))
        if isinstance(value, bool):
            return value
        if not re.fullmatch(r"\d{1,9}", str(value), re.ASCII):
            raise wrong(name, value, "0 or 1")
        return int(value) > 0

    def text(self, key: str, default: Any = None, setting: str = "") -> str | None:
        """A string, else the setting's; None where there is none. Raises ValueError."""
        name, value = self._found.get(key, (key, default))
        if value in (None, ""):
            return None
        source = f"submitit-{setting}" if key not in self._found else name
        if not isinstance(value, str):
            quoted = "a string: in quotes, since YAML reads 0123 as the number 83"
            raise wrong(source, value, quoted)
        if key in LISTS:
            value = re.sub(r"\s*,\s*", ",", value.strip())
        fine = plain(value) and value.strip()
        if not fine or (key in NO_SPACES and re.search(r"\s", value)):
            raise wrong(source, value, "a name, or several with commas between them")
        return value


NO_SPACES = {*LISTS, "slurm_account", "qos", "gpu_model"} - {"slurm_licenses"}


@dataclass(frozen=True)
class Request:
    """What a job asks for.

    Attributes:
        nodes, tasks: nodes, and tasks on each; cpus: on each task.
        gpus: on each node; gpus_per_task, ntasks_per_gpu, cpus_per_gpu: in place of gpus, tasks
        and cpus; mem_mb: on each node, 0 for all that it has; mem_mb_per_cpu, mem_mb_per_gpu: in
        place of it; minutes: of walltime.
        resumable: told to save before its walltime, and requeued under its id.
        flags: further sbatch flags, name -> value or True.
    """

    name: str
    nodes: int = 1
    tasks: int = 1
    cpus: int = 1
    gpus: int = 0
    gpus_per_task: int | None = None
    ntasks_per_gpu: int | None = None
    cpus_per_gpu: int | None = None
    gpu_model: str | None = None
    gres: str | None = None
    mem_mb: int | None = None
    mem_mb_per_cpu: int | None = None
    mem_mb_per_gpu: int | None = None
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
        wishes = Wishes(resources)
        nodes = wishes.count("nodes") or 1
        tasks = wishes.count("tasks_per_node")
        if tasks is None:
            tasks = _share("tasks", wishes.count("tasks") or nodes, nodes)
        gpus = wishes.count("gpus_per_node", 0)
        if gpus is None:
            gpus = _share("gpu", wishes.count("gpu", 0) or 0, nodes)
        per_card = wishes.count("cpus_per_gpu")
        per_cpu, per_gpu = (wishes.amount(f"mem_mb_per_{of}") for of in ("cpu", "gpu"))
        resumable = wishes.switch("resumable")
        if resumable and "no-requeue" in wishes.flags:
            raise wrong(
                "slurm_extra", "--no-requeue", "none with resource resumable, which is to requeue"
            )
        return cls(
            name=re.sub(r"[^\w.,=+-]", "_", name)[:100],
            nodes=nodes,
            tasks=tasks,
            cpus=per_card * max(1, gpus)
            if per_card
            else wishes.count("cpus_per_task") or max(1, threads),
            gpus=gpus,
            gpus_per_task=wishes.count("gpus_per_task", 0) or None,
            ntasks_per_gpu=wishes.count("ntasks_per_gpu"),
            cpus_per_gpu=per_card,
            gpu_model=wishes.text("gpu_model"),
            gres=wishes.text("gres"),
            mem_mb=None if per_cpu or per_gpu else wishes.amount("mem_mb", 0),
            mem_mb_per_cpu=per_cpu,
            mem_mb_per_gpu=per_gpu,
            minutes=wishes.amount("runtime") or settings.runtime,
            resumable=resumable,
            partition=wishes.text("slurm_partition", settings.partition, "partition"),
            account=wishes.text("slurm_account", settings.account, "account"),
            qos=wishes.text("qos", settings.qos, "qos"),
            constraint=wishes.text("constraint"),
            flags={**wishes.flags, **_named(wishes)},
        )

    @property
    def asks_for_gpus(self) -> bool:
        """Whether a node has to have a GPU for it."""
        named = self.gres is not None and re.search(r"\bgpu\b", self.gres)
        others = {"gpus-per-socket", "gpus"} & self.flags.keys()
        return bool(self.gpus or self.gpus_per_task or named or others)


def _named(wishes: Wishes) -> dict[str, str]:
    """The resources that are flags of sbatch of the same name."""
    names = ("reservation", "exclude", "nodelist", "licenses")
    found = {name: wishes.text(f"slurm_{name}") for name in names}
    return {name: value for name, value in found.items() if value}


def _share(name: str, total: int, nodes: int) -> int:
    """What each node gets. Raises ValueError where the total does not divide."""
    if total % nodes:
        raise wrong(name, total, f"a multiple of nodes = {nodes}")
    return total // nodes


def slurm_parameters(request: Request, settings: Any, comment: str) -> dict[str, Any]:
    """Parameters of submitit.SlurmExecutor. The comment finds a job whose id was lost."""
    found: dict[str, Any] = {
        "job_name": request.name,
        "time": request.minutes,
        "nodes": request.nodes,
        # sbatch takes one of each two.
        "ntasks_per_node": None if request.ntasks_per_gpu else request.tasks,
        "cpus_per_task": None if request.cpus_per_gpu else request.cpus,
        "gres": request.gres,
        "partition": request.partition,
        "account": request.account,
        "qos": request.qos,
        "constraint": request.constraint,
        "comment": comment,
        "use_srun": False,
        "array_parallelism": max(1, settings.array_parallelism),
        "setup": settings.setup.splitlines() if settings.setup else None,
        "additional_parameters": _flags(request, settings),
    }
    return {name: value for name, value in found.items() if value is not None} | {"wckey": None}


def _flags(request: Request, settings: Any) -> dict[str, Any]:
    """The flags of sbatch that submitit has no parameter for, and those of the user."""
    # Python replaces the batch shell and runs once, on the first node: hence B: and no srun. A job
    # that cannot resume must not get submitit's signal, which would end it; it ignores CONT.
    signal = f"B:USR2@{settings.signal_delay}" if request.resumable else "B:CONT@1"
    model = f"{request.gpu_model}:" if request.gpu_model else ""
    named = request.gres is not None and re.search(r"\bgpu\b", request.gres)
    found: dict[str, Any] = {
        "signal": signal,
        "requeue": None if "no-requeue" in request.flags else True,
        "gpus-per-node": f"{model}{request.gpus}" if request.gpus and not named else None,
        "gpus-per-task": request.gpus_per_task and f"{model}{request.gpus_per_task}",
        "ntasks-per-gpu": request.ntasks_per_gpu,
        "cpus-per-gpu": request.cpus_per_gpu,
        "mem": None if request.mem_mb is None else f"{request.mem_mb}M",
        "mem-per-cpu": request.mem_mb_per_cpu and f"{request.mem_mb_per_cpu}M",
        "mem-per-gpu": request.mem_mb_per_gpu and f"{request.mem_mb_per_gpu}M",
        **request.flags,
    }
    return {name: value for name, value in found.items() if value is not None}
