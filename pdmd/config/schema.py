"""JSON schemas of the configuration, their errors put in words."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from pdmd.config.complaints import refusal, shown

NUMBER = re.compile(r"([-+]?)(\d*)\.?(\d*)(?:[eE]([-+]?)(\d+))?")


def check(value: Any, schema: dict[str, Any], where: Any, root: str = "") -> None:
    """Validate against a JSON schema.

    Args:
        where: whose value it is, a file or a run; root: the key that the value has there.
    Raises:
        UserError: where, key, value, what was expected.
    """
    from jsonschema.exceptions import best_match

    error = best_match(_validator()(schema).iter_errors(value))
    if error is None:
        return
    path = [*([root] if root else []), *(str(part) for part in error.absolute_path)]
    value_there = error.instance
    if error.validator == "additionalProperties":
        unknown = sorted(set(value_there) - set(error.schema["properties"]))[0]
        path, value_there = [*path, unknown], value_there[unknown]
    raise refusal(where, ".".join(path) or "the file", value_there, _expectation(error))


def partial(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a diff: the same, and nothing is required."""
    return {
        key: partial(value) if isinstance(value, dict) else value
        for key, value in schema.items()
        if key != "required" or not isinstance(value, list)
    }


@cache
def _validator() -> Any:
    """JSON Schema with strict numbers, 4.0 is no integer, and patterns of the whole text."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError
    from jsonschema.validators import extend

    def integer(_: Any, value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    def number(_: Any, value: Any) -> bool:
        return integer(_, value) or (isinstance(value, float) and math.isfinite(value))

    def pattern(_: Any, wanted: str, value: Any, __: Any) -> Iterator[Any]:
        # `$` alone would let a line break pass
        if isinstance(value, str) and not re.fullmatch(wanted, value):
            yield ValidationError("pattern")

    types = {"integer": integer, "number": number}
    return extend(
        Draft202012Validator,
        validators={"pattern": pattern},
        type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many(types),
    )


def _expectation(error: Any) -> str:
    """What the failed keyword wanted, in words."""
    kind, wanted = error.validator, error.validator_value
    if kind == "type":
        types = [wanted] if isinstance(wanted, str) else wanted
        return f"a value of type {' or '.join(types)}{_advice(error.instance, set(types))}"
    words = {
        "enum": f"one of {', '.join(map(str, wanted)) if isinstance(wanted, list) else wanted}",
        "minimum": f"at least {wanted}",
        "maximum": f"at most {wanted}",
        "exclusiveMinimum": f"more than {wanted}",
        "exclusiveMaximum": f"less than {wanted}",
        "multipleOf": f"a multiple of {wanted}",
        "minItems": f"at least {wanted} {'entry' if wanted == 1 else 'entries'}",
        "maxItems": f"at most {wanted} entries",
        "minLength": "a text that is not empty",
        "maxLength": f"at most {wanted} letters",
        "uniqueItems": "no entry twice",
        "pattern": f"a name that matches {wanted}",
        "const": f"{wanted!r}",
    }
    if kind == "additionalProperties":
        return f"a known key, one of {', '.join(sorted(error.schema['properties']))}"
    if kind == "required":
        missing = [name for name in wanted if name not in error.instance]
        return f"the key {', '.join(missing)}"
    return words.get(kind, shown(error.message))


def _advice(value: Any, types: set[str]) -> str:
    """How to write a text so that YAML reads the number that was meant."""
    match = NUMBER.fullmatch(value) if isinstance(value, str) else None
    if match is None or not (match[2] or match[3]) or not types & {"number", "integer"}:
        return ""
    sign, whole, rest, of_power, power = match.groups()
    if power is None:
        return f": write {value} without quotes"
    if "number" in types:
        return f": write {sign}{whole or 0}.{rest or 0}e{of_power or '+'}{power}"
    return f": write {float(value):.0f}" if len(power) == 1 and float(value).is_integer() else ""
