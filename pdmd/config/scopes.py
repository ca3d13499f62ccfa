"""Where each key of a run belongs: to the configuration, a scenario or a method of some kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pdmd.config.complaints import refusal

Keys = Mapping[str, frozenset[str] | None]  # section -> keys of it, None for all

# What a method may have of its own: what its jobs alone read. All else is its scenario's: the data,
# the base network and the classifiers serve every method.
SCORED = frozenset({"samples", "video_samples", "neighbours", "beside", "networks", "size"})
OWN: dict[str, Keys] = {
    "teacher": {"teacher": None, "evaluate": SCORED | {"draw"}},
    "distill": {
        "hardware": None,
        "teacher": frozenset({"kind", "guidance", "guidance_low"}),
        "student": None,
        "distill": None,
        "bank": None,
        "save": None,
        "evaluate": SCORED | {"frontier_samples", "previews"},
    },
    "fit": {
        "hardware": None,
        "fit": frozenset(
            {
                *("updates", "batch", "lr", "weight_decay", "ema", "time", "null_share"),
                *("start", "target", "start_from"),
            }
        ),
        "save": None,
        "evaluate": frozenset({"samples", "steps"}),
    },
}
PLACES = {
    "results": "at the top of the configuration",
    "scenario": "no such key: it is the name of the scenario's file",
    "method": "no such key: it is the method's name in config/methods.yaml",
    "kind": "in a method, in config/methods.yaml",
}
SCENARIOS = "in a scenario (config/scenarios/ or overrides), whose methods share it"


def check_method(name: str, diff: Mapping[str, Any], file: str = "config/methods.yaml") -> None:
    """A method has nothing that its jobs do not read, or read from the scenario.

    Args:
        diff: its lines, of keys that a schema knows; file: where they stand.
    Raises:
        UserError: names the key and says where it belongs.
    """
    where, kind = f"{file}: {name}", diff.get("kind")
    if kind is None and "kind" not in diff:
        raise refusal(where, "kind", None, f"the key kind, one of {', '.join(OWN)}")
    if not isinstance(kind, str) or kind not in OWN:
        raise refusal(where, "kind", kind, f"one of {', '.join(OWN)}")
    for section, key, value in _leaves(diff):
        if section == "kind" or _owns(OWN[kind], section, key):
            continue
        kinds = [other for other in OWN if _owns(OWN[other], section, key)]
        place = PLACES.get(section, SCENARIOS)
        if kinds:
            where_else = f"in a method of kind {' or '.join(kinds)}"
            place = f"{where_else}, or {SCENARIOS}: no job of kind {kind} reads it"
        raise refusal(where, f"{section}.{key}" if key else section, value, place)


def check_scenario(where: str, root: str, diff: Mapping[str, Any]) -> None:
    """A scenario has no key of a method or of the whole configuration. Raises UserError."""
    for key in PLACES:
        if key in diff:
            raise refusal(where, f"{root}.{key}".lstrip("."), diff[key], PLACES[key])


def _owns(keys: Keys, section: str, key: str) -> bool:
    """Whether a section, or one key of it, is among some."""
    if section not in keys:
        return False
    owned = keys[section]
    return owned is None or not key or key in owned


def _leaves(diff: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(section, key, value) of what a diff changes; the key is empty where there are none."""
    for section, value in diff.items():
        if isinstance(value, dict) and value:
            yield from ((section, key, inner) for key, inner in value.items())
        else:
            yield section, "", value
