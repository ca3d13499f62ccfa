"""Weights that were made before and are kept, with their digest and recipe in a .json beside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pdmd.errors import UserError
from pdmd.files.storage import read_json, sha256, shown, write_json

DIGEST = "sha256"


def say(source: Path, values: dict[str, Any]) -> None:
    """Write what is to be known of kept weights beside them, their digest first."""
    write_json(source.with_suffix(".json"), {DIGEST: sha256(source), **values})


def said(source: Path, key: str, what: str, names: tuple[str, ...]) -> dict[str, Any]:
    """What is said of kept weights beside them, their digest compared.

    Args:
        key: of the configuration that names them; what: they are to be; names: that must be said.
    Raises:
        UserError: they are not there, differ from their digest, or a name is missing.
    """
    if not source.exists():
        raise UserError(f"{key}: {source}: expected {what}")
    path = source.with_suffix(".json")
    values: dict[str, Any] = read_json(path, dict, (DIGEST, *names))
    if (digest := sha256(source)) != values[DIGEST]:
        raise UserError(
            f"{source}: sha256 {digest}: expected {shown(values[DIGEST])} by {path.name}"
        )
    return values


def check_recipe(
    source: Path, asked: Mapping[str, Mapping[str, Any]], made: Mapping[str, Mapping[str, Any]]
) -> None:
    """Refuse weights of another recipe, by the first key of its sections that differs.

    Raises:
        UserError: names the file, the key, what is asked for and what they were made by.
    """
    for section, values in asked.items():
        known = made[section]
        for key in sorted(values.keys() | known.keys()):
            if (one := values.get(key)) != (other := known.get(key)):
                expected = f"{shown(other)} by {source.stem}.json"
                raise UserError(f"{source}: {section}.{key}: {shown(one)}: expected {expected}")
