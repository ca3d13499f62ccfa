"""Plans that were made before, found by what decides them: jobs ask for what is planned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pdmd.config.experiment import Config
from pdmd.config.run import read_run
from pdmd.files.storage import fingerprint, read_json, reading, write_json
from pdmd.models.source import architecture_of
from pdmd.planning.gpus import GPUS, UTILISATION, seconds

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
    """The digest of what decides the plan of a method, on GPUs that share a batch, or all."""
    decides = {
        name: {key: value for key, value in config[name].items() if key not in free}
        for name, free in {**FREE, "student": frozenset[str]()}.items()
    }
    decides["bank"] = {"used": bool(config["bank"]["rows"])}
    run = read_run(config)
    decides["architecture"] = architecture_of(run.model, run.results)
    decides["hardware"] = {"gpus": gpus, "sharded": sharded}
    return fingerprint(decides)


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


def find(config: Config, gpus: int, sharded: bool, files: Sequence[Path]) -> list[Flops] | None:
    """Operations of an update of each phase of a method that was planned; None if it was not.

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
                    {str(kind): float(count) for kind, count in phase["flops"].items()}
                    for phase in found["phases"]
                ]
    return None


def update_seconds(flops: Flops) -> float:
    """Of an update, on the GPU that is assumed."""
    return seconds(flops, ASSUMED, min(UTILISATION))
