"""A run as it is written, checked against one schema, and as typed values."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from pdmd.config.complaints import refusal
from pdmd.config.sections import Run
from pdmd.config.typed import Schema, build, schema
from pdmd.scenarios.kind import kinds

Config = dict[str, Any]


@cache
def run_schema() -> Schema:
    """The JSON schema of a run, whatever its kind of data."""
    whole = schema(Run)
    keys: Schema = {}
    for kind in kinds().values():
        keys = {**schema(kind.data)["properties"], **keys}
    keys["kind"] = {"enum": list(kinds())}
    data = {**whole["properties"]["data"], "required": ["kind"], "properties": keys}
    wanted = [name for name in whole["required"] if name != "fit"]  # which released models have not
    return {**whole, "required": wanted, "properties": {**whole["properties"], "data": data}}


def read_run(values: Mapping[str, Any]) -> Run:
    """A checked run, or the part of one that a job reads, as typed values.

    Raises:
        UserError: its data are of no known kind.
    """
    run = build(Run, values)
    if "data" not in values:
        return run
    kind = values["data"].get("kind")
    if kind not in kinds():
        raise refusal("config", "data.kind", kind, f"one of {', '.join(kinds())}")
    object.__setattr__(run, "data", build(kinds()[kind].data, values["data"]))
    return run
