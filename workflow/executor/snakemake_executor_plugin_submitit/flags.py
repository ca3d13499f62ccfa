"""The flags of sbatch in resource `slurm_extra`: read as sbatch would, and none against ours.

A flag that has a resource of its own becomes that resource, so that the request is one whole. What
the executor itself needs to find, watch and requeue its jobs is refused by name.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any

SHORT = {
    **{"A": "account", "a": "array", "B": "extra-node-info", "b": "begin", "C": "constraint"},
    **{"c": "cpus-per-task", "D": "chdir", "d": "dependency", "e": "error", "F": "nodefile"},
    **{"G": "gpus", "H": "hold", "h": "help", "i": "input", "J": "job-name", "k": "no-kill"},
    **{"L": "licenses", "M": "clusters", "m": "distribution", "N": "nodes", "n": "ntasks"},
    **{"O": "overcommit", "o": "output", "p": "partition", "Q": "quiet", "q": "qos"},
    **{"S": "core-spec", "s": "oversubscribe", "t": "time", "V": "version", "v": "verbose"},
    **{"W": "wait", "w": "nodelist", "x": "exclude"},
}
# Flags without a value, and those whose value is given as --flag=value only.
SWITCHES = {
    *("contiguous", "help", "hold", "ignore-pbs", "no-requeue", "overcommit", "oversubscribe"),
    *("parsable", "quiet", "reboot", "requeue", "spread-job", "stepmgr", "test-only", "usage"),
    *("use-min-nodes", "verbose", "version", "wait"),
}
OPTIONAL = {"exclusive", "get-user-env", "nice", "no-kill", "propagate"}
OTHERS = {
    *("acctg-freq", "batch", "bb", "bbf", "cluster-constraint", "container", "cores-per-socket"),
    *(
        "container-id",
        "cpu-freq",
        "deadline",
        "delay-boot",
        "export",
        "extra",
        "gpu-bind",
        "gpu-freq",
    ),
    *("gpu-freq", "gpus-per-socket", "oom-kill-step", "resv-ports", "segment", "tres-bind"),
    *("gres-flags", "hint", "kill-on-invalid-dep", "mail-type", "mail-user", "mcs-label"),
    *("mem-bind", "mincpus", "network", "ntasks-per-core", "ntasks-per-socket", "power", "prefer"),
    *("priority", "profile", "sockets-per-node", "switches", "thread-spec", "threads-per-core"),
    *("time-min", "tmp", "tres-per-task", "wait-all-nodes", "wckey"),
}
# Refused, and why.
OURS = {
    "array": "none: --submitit-arrays makes the arrays",
    "chdir": "none: jobs run in the workflow's folder",
    "clusters": "none: start Snakemake where sbatch, squeue and scancel mean that cluster",
    "comment": "none: by its comment a lost job is found again",
    "error": "none: logs lie in --submitit-folder",
    "export-file": "none: a job needs the environment of Snakemake",
    "gid": "none: jobs run as who submits them",
    "help": "none: a job is to be submitted",
    "job-name": "none: jobs are named by rule and wildcards",
    "open-mode": "none: logs are appended to",
    "output": "none: logs lie in --submitit-folder",
    "parsable": "none: the executor reads what sbatch prints",
    "quiet": "none: the executor reads what sbatch prints",
    "signal": "none: --submitit-signal-delay says when a job is told to save",
    "test-only": "none: a job is to be submitted",
    "uid": "none: jobs run as who submits them",
    "usage": "none: a job is to be submitted",
    "version": "none: a job is to be submitted",
    "wait": "none: the executor waits for all jobs at once",
    "wrap": "none: the job is the rule's command",
}


class Wrong(ValueError):
    """A flag that makes no sense; the message says what was expected."""


def plain(text: str) -> bool:
    """Whether sbatch takes a quoted string in a script as it is: it drops backslashes."""
    return text.isprintable() and "\\" not in text


def whole(text: str) -> int:
    """A count of at least 1. Raises Wrong."""
    if not re.fullmatch(r"0*[1-9]\d{0,8}", text, re.ASCII):
        raise Wrong("a whole number of at least 1")
    return int(text)


def minutes(text: str) -> int:
    """Slurm's notations of a walltime, rounded up. Raises Wrong."""
    found = re.fullmatch(r"(?:(\d{1,6})-)?(\d{1,7})(?::(\d{1,6}))?(?::(\d{1,6}))?", text, re.ASCII)
    if found is None:
        raise Wrong("minutes, hours:minutes:seconds or days-hours")
    days = found[1]
    first, second, third = (int(part or 0) for part in found.groups()[1:])
    if days is not None:  # days-hours[:minutes[:seconds]]
        seconds = ((int(days) * 24 + first) * 60 + second) * 60 + third
    elif found[4] is not None:  # hours:minutes:seconds
        seconds = (first * 60 + second) * 60 + third
    else:  # minutes[:seconds]
        seconds = first * 60 + second
    if not seconds:
        raise Wrong("a walltime of at least 1 minute")
    return math.ceil(seconds / 60)


def megabytes(text: str) -> int:
    """Memory in Slurm's notation, rounded up; 0 is all of a node. Raises Wrong."""
    found = re.fullmatch(r"(\d{1,12})([KMGT]?)B?", text, re.ASCII | re.IGNORECASE)
    if found is None:
        raise Wrong("a size such as 5000M or 5G")
    power = "KMGT".index(found[2].upper() or "M") - 1
    return math.ceil(int(found[1]) * 1024.0**power)


def gpus(text: str) -> tuple[str | None, int]:
    """GPUs as `number` or `type:number`. Raises Wrong."""
    model, _, number = text.rpartition(":")
    if model and not re.fullmatch(r"[\w.+-]+", model):
        raise Wrong("a number, or type:number")
    return model or None, whole(number)


# Flag -> resource, and how the value is read.
RESOURCES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "account": ("slurm_account", str),
    "constraint": ("constraint", str),
    "cpus-per-gpu": ("cpus_per_gpu", whole),
    "cpus-per-task": ("cpus_per_task", whole),
    "exclude": ("slurm_exclude", str),
    "gpus": ("gpu", gpus),
    "gpus-per-node": ("gpus_per_node", gpus),
    "gpus-per-task": ("gpus_per_task", gpus),
    "gres": ("gres", str),
    "licenses": ("slurm_licenses", str),
    "mem": ("mem_mb", megabytes),
    "mem-per-cpu": ("mem_mb_per_cpu", megabytes),
    "mem-per-gpu": ("mem_mb_per_gpu", megabytes),
    "nodelist": ("slurm_nodelist", str),
    "nodes": ("nodes", whole),
    "ntasks": ("tasks", whole),
    "ntasks-per-gpu": ("ntasks_per_gpu", whole),
    "ntasks-per-node": ("tasks_per_node", whole),
    "partition": ("slurm_partition", str),
    "qos": ("qos", str),
    "reservation": ("slurm_reservation", str),
    "time": ("runtime", minutes),
}
KNOWN = SWITCHES | OPTIONAL | OTHERS | OURS.keys() | RESOURCES.keys() | set(SHORT.values())


def read_flags(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `slurm_extra` asks for: (resources, further flags by long name, True without a value).

    Raises:
        ValueError: a flag that is unknown in its short form, cut short, given twice, without its
        value or with one too many, or the executor's own; in one line.
    """
    resources: dict[str, Any] = {}
    flags: dict[str, Any] = {}
    try:
        words = shlex.split(text)
    except ValueError:
        raise ValueError(_line(text, "quotes that are closed")) from None
    for given, name, value in _read(words):
        try:
            _check(name, value, flags.keys() | resources.keys())
            if name in RESOURCES:
                flags[name] = True  # for the check alone
                resources |= _resource(name, value)
            else:
                flags[name] = True if value is None else value
        except Wrong as error:
            raise ValueError(_line(given, str(error))) from None
    return resources, {name: value for name, value in flags.items() if name not in RESOURCES}


def _line(given: str, expected: str) -> str:
    shown = given if len(given) < 80 else f"{given[:77]}..."
    return f"resource slurm_extra: {shown!r}: expected {expected}"


def _read(words: list[str]) -> Iterator[tuple[str, str, str | None]]:
    """(as it was given, long name, value or None) of each flag. Raises ValueError."""
    rest = iter(words)
    for word in rest:
        if re.match(r"--[^-=]", word):
            name, sign, given = word[2:].partition("=")
            name = name.replace("_", "-")  # as submitit would
            if sign:
                yield word, name, given
            elif name in SWITCHES | OPTIONAL:
                yield word, name, None
            else:
                value = next(rest, None)
                if name not in KNOWN and (value is None or value.startswith("-")):
                    raise ValueError(_line(word, f"{word}=value, of a flag that is not known here"))
                yield word, name, value
        elif re.match(r"-[^-]", word):
            yield from _read_short(word, rest)
        else:
            raise ValueError(_line(word, "--flag, --flag=value or -f value"))


def _read_short(word: str, rest: Iterator[str]) -> Iterator[tuple[str, str, str | None]]:
    """Flags of one letter: several without a value may share a dash, as for any command."""
    for i, letter in enumerate(word[1:], start=2):
        name = SHORT.get(letter)
        if name is None:
            raise ValueError(_line(word, "a flag of sbatch"))
        if name not in SWITCHES | OPTIONAL:
            yield word, name, word[i:] or next(rest, None)
            return
        yield word, name, None


def _check(name: str, value: str | None, given: set[str]) -> None:
    """Refuse what sbatch would, what is ours, and what is there already. Raises Wrong."""
    longer = sorted(known for known in KNOWN if known.startswith(name) and known != name)
    if name not in KNOWN and longer:
        raise Wrong(f"the whole name, such as --{longer[0]}")
    if name in OURS:
        raise Wrong(OURS[name])
    if name in given or {"requeue", "no-requeue"} <= {name} | given:
        raise Wrong("each flag once" if name in given else "--requeue or --no-requeue, not both")
    if name in SWITCHES and value is not None:
        raise Wrong(f"--{name} without a value")
    if name not in SWITCHES | OPTIONAL and (not value or re.match(r"-\D", value)):
        raise Wrong(f"a value, as in --{name}=value")  # not the flag behind it
    if value is not None and not plain(value):
        raise Wrong("a value of one line, without a backslash")
    if name == "export" and value is not None and value.partition(",")[0] != "ALL":
        raise Wrong("ALL, or ALL,NAME=value: a job needs the environment of Snakemake")


def _resource(name: str, value: str | None) -> dict[str, Any]:
    """The resource that a flag stands for. Raises Wrong."""
    resource, read = RESOURCES[name]
    found = read(value or "")
    if read is not gpus:
        return {resource: found}
    model, number = found
    return {resource: number, **({"gpu_model": model} if model else {})}
