"""Methods of an overlay: named diffs, each by itself or as a grid over keys, a method a cell."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pdmd.config.complaints import refusal

Config = dict[str, Any]
WHERE = "config: methods"
NAME = re.compile(r"[a-z0-9-]{1,60}")
MOST = 1000  # cells of a grid


@dataclass(frozen=True)
class Methods:
    """Methods by name.

    Attributes:
        diffs: name -> its diff over a scenario; labels: name -> how tables and figures call it,
            where one was given; cells: name of a grid -> the names of its methods.
    """

    diffs: Config = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    cells: dict[str, list[str]] = field(default_factory=dict)


def of_overlay(written: Mapping[str, Any], taken: Mapping[str, Any]) -> Methods:
    """The methods that an overlay brings.

    Args:
        written: its `methods`: name -> a diff, with `label` and `grid` (key -> values) or without;
        taken: the methods of config/methods.yaml.
    Raises:
        UserError: names the method and what is wrong.
    """
    methods = Methods()
    for name, diff in written.items():
        where = f"{WHERE}: {name}"
        if not NAME.fullmatch(name):
            raise refusal(WHERE, name, name, "a name of a-z, 0-9 and -, of at most 60")
        if not isinstance(diff, dict):
            raise refusal(WHERE, name, diff, "a mapping")
        settings = dict(diff)
        label, grid = settings.pop("label", None), settings.pop("grid", None)
        if label is not None and not isinstance(label, str):
            raise refusal(where, "label", label, "a text")
        cells = (
            {name: (settings, label)}
            if grid is None
            else _cells(name, settings, label, grid, where)
        )
        if grid is not None:
            methods.cells[name] = list(cells)
        for cell, (one, called) in cells.items():
            if cell in taken or cell in methods.diffs:
                raise refusal(WHERE, cell, cell, "another name: there is such a method")
            methods.diffs[cell] = one
            if called is not None:
                methods.labels[cell] = called
    return methods


def _cells(
    name: str, diff: Config, label: str | None, grid: Any, where: str
) -> dict[str, tuple[Config, str]]:
    """Name of a cell -> its diff and label; its name and label say the values."""
    if not isinstance(grid, dict) or not grid:
        raise refusal(
            where, "grid", grid, "keys with lists of values, such as {student.steps: [2, 4]}"
        )
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise refusal(where, f"grid.{key}", values, "a list of values")
        if key.count(".") > 2 or not all(key.split(".")):
            raise refusal(where, f"grid.{key}", key, "a key such as distill.generator_lr")
    cells: dict[str, tuple[Config, str]] = {}
    every = list(itertools.islice(itertools.product(*grid.values()), MOST + 1))
    if len(every) > MOST:
        raise refusal(where, "grid", f"more than {MOST} cells", f"at most {MOST}")
    for values in every:
        cell, one = name, diff
        for key, value in zip(grid, values, strict=True):
            cell += f"-{key.rpartition('.')[2].replace('_', '-')}-{spelt(value)}"
            one = _put(one, key.split("."), value)
        said = ", ".join(
            f"{key} {_shown(value)}" for key, value in zip(_short(grid), values, strict=True)
        )
        if not NAME.fullmatch(cell):
            raise refusal(where, "grid", cell, "values whose names are of a-z, 0-9 and -")
        if cell in cells:
            raise refusal(where, "grid", cell, "different values")
        cells[cell] = one, f"{label or name}, {said}"
    return cells


def _short(keys: Collection[str]) -> list[str]:
    """Keys as labels have them: without their sections, where they are told apart without."""
    short = [key.partition(".")[2] or key for key in keys]
    return short if len(set(short)) == len(short) else list(keys)


def spelt(value: Any) -> str:
    """A value as a part of a name: 0.0005 as 0p0005, [2, 4] as 2-4."""
    if isinstance(value, list):
        return "-".join(map(spelt, value))
    if isinstance(value, dict):
        return "-".join(f"{key.replace('_', '-')}-{spelt(one)}" for key, one in value.items())
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.lower().replace(".", "p").replace("_", "-").replace("+", "")


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _put(diff: Config, keys: list[str], value: Any) -> Config:
    """The diff with one key set."""
    key, *rest = keys
    below = diff.get(key)
    inner = _put(below if isinstance(below, dict) else {}, rest, value) if rest else value
    return {**diff, key: inner}
