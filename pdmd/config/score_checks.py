"""What metrics need of a run: enough samples, known networks, levels that can be reached."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pdmd.config.catalogue import LEAST, NETWORKS, SMALL
from pdmd.config.complaints import refusal
from pdmd.config.sections import Evaluate, ReleasedData, Run, parse_size
from pdmd.scenarios.kind import kind_of, kinds

Config = dict[str, Any]

HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")  # an owner's model on the hub
COMPARED_AT = 0.5  # t at which fitted trajectories are compared: all curves of Fig. 2 reach it


def check_judge(run: Run, config: Config, where: str) -> None:
    """A judge is kept of data that has one. Raises UserError."""
    kept, prompted = config.get("classifier", {}).get("kept"), kind_of(run.data).prompted
    if kept and not (prompted and prompted.judged):
        expected = f"null for data.kind {run.data.kind}, which has no judge"
        raise refusal(where, "classifier.kept", kept, expected)


def check_scores(run: Run, written: Config, where: str) -> None:
    """Values of `evaluate` and `tables` that must fit the data.

    Args:
        written: the `evaluate` section as it is written.
    Raises:
        UserError: names the run, the key, the value and what was expected.
    """
    brings = kind_of(run.data)
    wanted, allowed = brings.evaluate, brings.may_evaluate | {"draw"}
    for key in sorted(wanted - written.keys()):
        raise refusal(where, f"evaluate.{key}", None, f"a value for data.kind {brings.name}")
    for key in sorted(written.keys() - wanted - allowed):
        expected = f"no such key for data.kind {brings.name}"
        raise refusal(where, f"evaluate.{key}", written[key], expected)
    _check_levels(run.tables.levels, brings.name, where)
    if run.evaluate.steps is not None:
        _check_steps(run.evaluate.steps, run.fit.start, where)
    if brings.prompts:
        _check_samples(run.data, run.evaluate, where)
    if brings.prompted:
        frames = getattr(run.data, "frames", brings.prompted.frames)
        _check_networks(written.get("networks", {}), frames, where)
    if isinstance(run.data, ReleasedData):
        frames = parse_size(run.evaluate.size or run.data.sizes[0])[0]
        _check_networks(written.get("networks", {}), frames, where)


def _check_levels(levels: Sequence[float], kind: str, where: str) -> None:
    """Levels of fidelity that training can pass."""
    from pdmd.metrics.ranges import RANGES

    name = kinds()[kind].fidelity
    if name is None:
        if levels:
            expected = f"[] for data.kind {kind}, which has no frontier over training"
            raise refusal(where, "tables.levels", list(levels), expected)
        return
    if not levels:
        expected = f"at least one fidelity for data.kind {kind}"
        raise refusal(where, "tables.levels", list(levels), expected)
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


def _check_samples(data: Any, evaluate: Evaluate, where: str) -> None:
    """Samples of each prompt for its diversity and its coverage, and real ones for neighbours."""
    kind, neighbours = kind_of(data), evaluate.neighbours or 1
    prompts = kind.prompts
    diverse = LEAST if kind.prompted else 2
    # clips' coverage asks for the neighbours of real clips alone
    least = {"samples": max(diverse, neighbours + 1)}
    free = kind.prompted is not None and kind.prompted.free_coverage
    least["frontier_samples"] = 1 if free else neighbours + 1
    for key, each in least.items():
        if getattr(evaluate, key) // prompts < each:
            expected = (
                f"at least {prompts * each}: {each} of each of {prompts} prompts"
                f" (evaluate.neighbours = {neighbours})"
            )
            raise refusal(where, f"evaluate.{key}", getattr(evaluate, key), expected)
    real = neighbours + 1 if kind.real_samples is None else kind.real_samples(data)
    if neighbours >= real:
        expected = f"less than {real}, the real samples of a prompt (data.heldout)"
        raise refusal(where, "evaluate.neighbours", neighbours, expected)
    if evaluate.video_samples is not None:
        clips = min(evaluate.samples, 2 * data.heldout)
        if evaluate.video_samples > clips:
            expected = f"at most {clips}, the fewer of samples and held-out clips"
            raise refusal(where, "evaluate.video_samples", evaluate.video_samples, expected)


def _check_networks(wanted: Mapping[str, str], frames: int, where: str) -> None:
    """Networks in the place of those that come along: known by name, a file, or on the hub."""
    for role, name in wanted.items():
        key = f"evaluate.networks.{role}"
        if (role, name) == ("clip", SMALL):
            continue
        if role == "flow" and frames == 1:
            raise refusal(where, key, name, "no such key for pictures, which do not move")
        known = [*NETWORKS[role], *(["an owner/name of the hub"] if role == "features" else [])]
        on_hub = role == "features" and HUB.fullmatch(name)
        there = os.path.isdir(name) if role == "features" else os.path.isfile(name)
        if name not in NETWORKS[role] and not on_hub and not there:
            what = "a folder" if role == "features" else "a file"
            raise refusal(where, key, name, f"{what} that exists, or one of {', '.join(known)}")
