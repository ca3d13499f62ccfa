"""Sections of the configuration as dataclasses: one place for a key's type, range and meaning.

Schemas, the tables of config/README.md and the values that code reads all come from here.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Section = TypeVar("Section")
Schema = dict[str, Any]
NAMES = {int: "integer", float: "number", bool: "boolean", str: "string", type(None): "null"}


def key(
    meaning: str,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    entries: tuple[int, int] | None = None,
    absent: Any = dataclasses.MISSING,
    null: bool = False,
    **further: Any,
) -> Any:
    """A key of a section.

    Args:
        meaning: for config/README.md; least, most: its range, or that of its entries, inclusive;
        above, below: the same, exclusive; entries: how many a list has, at least and at most;
        absent: what a section without the key means; then it need not be given;
        null: whether such a key may be null, too; further: keywords of JSON schema.
    """
    limits = {"minimum": least, "maximum": most, "exclusiveMinimum": above}
    limits |= {"exclusiveMaximum": below}
    keywords = {name: value for name, value in limits.items() if value is not None}
    null |= absent is dataclasses.MISSING
    metadata = {"meaning": meaning, "limits": keywords, "entries": entries, "null": null}
    metadata["further"] = further
    return dataclasses.field(default=absent, metadata=metadata)


def derived(default: Any = dataclasses.MISSING) -> Any:
    """A value that jobs are given, and nobody writes."""
    return dataclasses.field(default=default, compare=False, metadata={"derived": True})


def keys(section: type) -> list[dataclasses.Field[Any]]:
    """The keys of a section that a person writes."""
    return [one for one in dataclasses.fields(section) if not one.metadata.get("derived")]


@cache
def hints(section: type) -> dict[str, Any]:
    """The type of each key of a section."""
    return get_type_hints(section)


def required(section: type) -> list[str]:
    """Keys that a section must have."""
    return [field.name for field in keys(section) if field.default is dataclasses.MISSING]


def schema(section: type) -> Schema:
    """The JSON schema of a section."""
    properties = {
        field.name: _of(hints(section)[field.name], field.metadata) for field in keys(section)
    }
    of_section: Schema = {"type": "object", "additionalProperties": False}
    wanted = required(section)
    return of_section | ({"required": wanted} if wanted else {}) | {"properties": properties}


def build(section: type[Section], values: Mapping[str, Any]) -> Section:
    """A section of checked values.

    A part of a section does for what reads only that part: a key that was left out, and that no
    section may be without, is no attribute, and AttributeError tells what read it.
    """
    made = object.__new__(section)
    types_of = hints(section)  # type: ignore[arg-type]
    for field in dataclasses.fields(section):  # type: ignore[arg-type]
        if field.name in values:
            value = _value(types_of[field.name], values[field.name])
        elif field.default is not dataclasses.MISSING:
            value = field.default
        else:
            continue
        object.__setattr__(made, field.name, value)
    return made


def _value(hint: Any, value: Any) -> Any:
    """A plain value as its type."""
    inner = _without_none(hint)
    if isinstance(inner, type) and dataclasses.is_dataclass(inner) and isinstance(value, Mapping):
        return build(inner, value)
    return tuple(value) if isinstance(value, list) else value


def _without_none(hint: Any) -> Any:
    """X of `X | None`."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    inner = tuple(one for one in get_args(hint) if one is not type(None))
    return inner[0] if len(inner) == 1 else Union[inner]  # noqa: UP007


def _of(hint: Any, metadata: Mapping[str, Any]) -> Schema:
    """The schema of one key."""
    inner = _without_none(hint)
    of_key = {**_plain(inner, metadata), **metadata.get("further", {})}
    if inner is not hint and type(None) in get_args(hint) and metadata["null"]:
        kinds = of_key["type"]
        of_key["type"] = [*(kinds if isinstance(kinds, list) else [kinds]), "null"]
    return of_key


def _plain(hint: Any, metadata: Mapping[str, Any]) -> Schema:
    """The schema of a type that is not None."""
    if dataclasses.is_dataclass(hint):
        return schema(hint)  # type: ignore[arg-type]
    if get_origin(hint) is Literal:
        return {"enum": list(get_args(hint))}
    if get_origin(hint) in (Union, types.UnionType):  # a list, or a word in its place
        listed, word = get_args(hint)
        of_list = _plain(listed, metadata)
        return {**of_list, "type": ["array", "string"], "pattern": "|".join(get_args(word))}
    if get_origin(hint) is tuple:
        first, last = get_args(hint)[0], get_args(hint)[-1]
        number = len(get_args(hint))
        least, most = metadata.get("entries") or ((None, None) if last is ... else (number, number))
        size = {"minItems": least, "maxItems": most}
        items = {"type": NAMES[first], **metadata.get("limits", {})}
        return {"type": "array", **{k: v for k, v in size.items() if v}, "items": items}
    if get_origin(hint) is dict:
        return {"type": "object"}
    return {"type": NAMES[hint], **metadata.get("limits", {})}
