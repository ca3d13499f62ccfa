"""Plans that were made before, found by what decides them: jobs ask for what is planned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdmd.config.catalogue import PRETRAINED
from pdmd.config.experiment import Config
from pdmd.config.parts import uses_bank
from pdmd.config.run import read_run
from pdmd.config.sections import Run
from pdmd.files.storage import fingerprint, read_json, reading, write_json
from pdmd.models.source import architecture_of
from pdmd.planning.gpus import GIB, GPUS, UTILISATION, needed, seconds, usable

if TYPE_CHECKING:
    from pdmd.planning.plan import Plan

RELEASED = Path("config/plans.json")  # of the repository's own scenarios: `make plans`
OWN = "plans.json"  # below the results: `pdmd plan`
ASSUMED = GPUS["h100"]  # whose speed is asked for, at the lower end of UTILISATION
# What an update's calculations do not depend on, by section. Other keys decide them, or may.
FREE: dict[str, frozenset[str]] = {
    "data": frozenset({"train", "evaluation", "negative", "shard_prompts"}),
    "model": frozenset({"source", "revision", "deterministic", "attention", "compile"}),
    "teacher": frozenset({"steps", "shift", "grid", "draw"}),
    "distill": frozenset(
        {
            *("updates", "budget", "generator_lr", "fake_lr", "decay", "betas", "weight_decay"),
            *("clip", "average"),
        }
    ),
}
Flops = dict[str, float]  # precision -> operations of an update on a GPU


def key_of(config: Config, gpus: int, sharded: bool) -> str:
    """The digest of what decides the plan of a method, on GPUs that share a batch, or all.

    Args:
        config: of the method, or the part of it that its training reads.
    """
    run = read_run(config)
    decides: dict[str, Any] = {
        name: _plain(getattr(run, name), free)
        for name, free in {**FREE, "student": frozenset[str]()}.items()
    }
    used = config["bank"].get("used")  # as a job's own part of the configuration has it
    decides["bank"] = {"used": uses_bank(run) if used is None else used}
    decides["architecture"] = architecture_of(run.model, run.results)
    decides["hardware"] = {"gpus": gpus, "sharded": sharded}
    return fingerprint(decides)


def _plain(section: Any, free: frozenset[str]) -> dict[str, Any]:
    """A section's values, also those that are its defaults, but for some keys."""
    names = [one.name for one in fields(section) if one.name not in free]
    values = {name: getattr(section, name) for name in names}
    return {name: asdict(one) if is_dataclass(one) else one for name, one in values.items()}  # type: ignore[arg-type]


def keep(path: Path, plans: Iterable[tuple[Config, Plan]]) -> None:
    """Add plans, of prompts as long as is assumed, to a file. Raises UserError where it is none."""
    kept = read_json(path, dict) if path.exists() else {}
    for config, plan in plans:
        phases = [{"bytes": phase.bytes, "flops": dict(phase.flops)} for phase in plan.phases]
        value = {"of": f"{plan.scenario}/{plan.method}", "size": plan.size, "phases": phases}
        kept[key_of(config, plan.hardware.gpus, plan.hardware.sharded)] = value
    with reading(path, "what `pdmd plan` writes"):
        ordered = dict(sorted(kept.items(), key=lambda item: (item[1]["of"], item[0])))
    write_json(path, ordered)


@dataclass(frozen=True)
class Kept:
    """What was planned of a phase, for each GPU.

    Attributes:
        bytes: of tensors at most; flops: of an update.
    """

    bytes: float
    flops: Flops


def find(config: Config, gpus: int, sharded: bool, files: Sequence[Path]) -> list[Kept] | None:
    """What was planned of each phase of a method; None if it was not.

    Raises:
        UserError: a file is no file of plans.
    """
    key = key_of(config, gpus, sharded)
    for path in files:
        if not path.exists():
            continue
        found = read_json(path, dict).get(key)
        if found is not None:
            with reading(path, "what `pdmd plan` writes"):
                return [
                    Kept(
                        float(phase["bytes"]),
                        {str(kind): float(count) for kind, count in phase["flops"].items()},
                    )
                    for phase in found["phases"]
                ]
    return None


def planned(config: Config, root: Path) -> list[Kept] | None:
    """The same of a method on its own hardware, by its own plans or the repository's."""
    run = read_run(config)
    gpus = run.hardware.nodes * run.hardware.processes
    sharded = run.distill.parallel.shard == "full"
    return find(config, gpus, sharded, _files(run, root))


def _files(run: Run, root: Path) -> tuple[Path, Path]:
    return Path(run.results) / OWN, root / RELEASED


def too_small(config: Config, phase: int, held: float, gpus: int, root: Path) -> str:
    """One line where a phase was planned to need more than a GPU holds; "" where it was not.

    Plans are right to about a tenth, so it is no reason to refuse.

    Args:
        config: of the method, or the part of it that its training reads; held: bytes of the GPU's
            memory; gpus: that share a batch.
    """
    run = read_run(config)
    if run.model.kind != PRETRAINED:
        return ""
    phases = find(config, gpus, run.distill.parallel.shard == "full", _files(run, root))
    if phases is None or not 1 <= phase <= len(phases):
        return ""
    if phases[phase - 1].bytes <= usable(held / GIB):
        return ""
    wanted = needed(phases[phase - 1].bytes) / GIB
    return (
        f"{run.scenario} {run.method} phase {phase}: this GPU has {held / GIB:.0f} GiB, and"
        f" {wanted:.0f} GiB are planned; `pdmd plan {run.scenario} --method {run.method}` names"
        " what makes it fit"
    )


def update_seconds(flops: Flops) -> float:
    """Of an update, on the GPU that is assumed."""
    return seconds(flops, ASSUMED, min(UTILISATION))
