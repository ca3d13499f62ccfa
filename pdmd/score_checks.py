"""What metrics need of a run: enough samples, known networks, levels that can be reached."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from pdmd.catalogue import FIDELITY, LEAST, NETWORKS, PROMPTED, PROMPTS
from pdmd.complaints import refusal

Config = dict[str, Any]

SCORED = ({"samples", "frontier_samples", "neighbours"}, {"beside", "networks"})
EVALUATE_KEYS = {  # kind of data -> keys it must have, keys it may have; all have `beside`
    "atoms": ({"samples", "steps"}, {"beside"}),
    "grid": ({"samples", "frontier_samples"}, {"beside"}),
    "digits": (SCORED[0], {"beside"}),
    "emoji": SCORED,
    "moving": (SCORED[0] | {"video_samples"}, SCORED[1]),
}
HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")  # an owner's model on the hub
DIGITS, RAREST = 1797, 174  # scikit-learn's, and those of the rarest class
STYLES, OBJECTS = 4, 8  # of emoji's objects; objects that move
COMPARED_AT = 0.5  # t at which fitted trajectories are compared: all curves of Fig. 2 reach it


def check_scores(run: Config, where: str) -> None:
    """Values of `evaluate` and `tables` that must fit the data. Raises UserError."""
    kind, spec = run["data"]["kind"], run["evaluate"]
    wanted, allowed = EVALUATE_KEYS[kind]
    for key in sorted(wanted - spec.keys()):
        raise refusal(where, f"evaluate.{key}", None, f"a value for data.kind {kind}")
    for key in sorted(spec.keys() - wanted - allowed):
        expected = f"no such key for data.kind {kind}"
        raise refusal(where, f"evaluate.{key}", spec[key], expected)
    _check_levels(run["tables"]["levels"], kind, where)
    if kind == "atoms":
        _check_steps(spec["steps"], run["fit"].get("start", 0), where)
    if kind in PROMPTS:
        _check_samples(run, where)
    if kind in PROMPTED:
        _check_networks(spec.get("networks", {}), kind, where)


def _check_levels(levels: list[float], kind: str, where: str) -> None:
    """Levels of fidelity that training can pass."""
    from pdmd.metrics.ranges import RANGES

    if kind not in FIDELITY:
        if levels:
            expected = f"[] for data.kind {kind}, which has no frontier over training"
            raise refusal(where, "tables.levels", levels, expected)
        return
    if not levels:
        expected = f"at least one fidelity for data.kind {kind}"
        raise refusal(where, "tables.levels", levels, expected)
    name = FIDELITY[kind]
    low, high = RANGES[name]
    for level in levels:
        if not low < level < high:
            bound = f"between {low:g} and {high:g}" if high < float("inf") else f"more than {low:g}"
            raise refusal(where, "tables.levels", level, f"{bound}, as {name} is")


def _check_steps(steps: int, start: float, where: str) -> None:
    """Euler steps that meet the time at which trajectories are compared."""
    if start > COMPARED_AT:
        expected = f"at most {COMPARED_AT}, where trajectories are compared"
        raise refusal(where, "fit.start", start, expected)
    number = (1 - COMPARED_AT) / (1 - start) * steps
    if abs(number - round(number)) > 1e-6 * steps:
        expected = f"a count of which some step from 1 to {start:g} meets t = {COMPARED_AT}"
        raise refusal(where, "evaluate.steps", steps, expected)


def _check_samples(run: Config, where: str) -> None:
    """Samples of each prompt for its diversity and its coverage, and real ones for neighbours."""
    data, spec = run["data"], run["evaluate"]
    kind, neighbours = data["kind"], spec["neighbours"]
    prompts = PROMPTS[kind]
    diverse = LEAST if kind in PROMPTED else 2
    # clips' coverage asks for the neighbours of real clips alone
    least = {"samples": max(diverse, neighbours + 1)}
    least["frontier_samples"] = 1 if kind == "moving" else neighbours + 1
    for key, each in least.items():
        if spec[key] // prompts < each:
            expected = (
                f"at least {prompts * each}: {each} of each of {prompts} prompts"
                f" (evaluate.neighbours = {neighbours})"
            )
            raise refusal(where, f"evaluate.{key}", spec[key], expected)
    real = real_samples(data)
    if neighbours >= real:
        expected = f"less than {real}, the real samples of a prompt (data.heldout)"
        raise refusal(where, "evaluate.neighbours", neighbours, expected)
    if kind == "moving":
        clips = min(spec["samples"], 2 * data["heldout"])
        if spec["video_samples"] > clips:
            expected = f"at most {clips}, the fewer of samples and held-out clips"
            raise refusal(where, "evaluate.video_samples", spec["video_samples"], expected)


def real_samples(data: Mapping[str, Any]) -> int:
    """Held-out samples that the prompt with the fewest has; of clips, that an object has."""
    if data["kind"] == "digits":
        return int(data["heldout"] * RAREST // DIGITS)
    return int(data["heldout"] * STYLES if data["kind"] == "emoji" else data["heldout"] // OBJECTS)


def _check_networks(wanted: Mapping[str, str], kind: str, where: str) -> None:
    """Networks in the place of those that come along: known by name, a file, or on the hub."""
    for role, name in wanted.items():
        key = f"evaluate.networks.{role}"
        if role == "flow" and kind != "moving":
            raise refusal(where, key, name, "no such key for pictures, which do not move")
        known = [*NETWORKS[role], *(["an owner/name of the hub"] if role == "features" else [])]
        on_hub = role == "features" and HUB.fullmatch(name)
        there = os.path.isdir(name) if role == "features" else os.path.isfile(name)
        if name not in NETWORKS[role] and not on_hub and not there:
            what = "a folder" if role == "features" else "a file"
            raise refusal(where, key, name, f"{what} that exists, or one of {', '.join(known)}")
