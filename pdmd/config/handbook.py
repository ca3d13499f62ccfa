"""What is said of the configuration elsewhere, from its sections: `make handbook` writes it.

The tables of config/README.md, and the JSON schemas that editors check YAML files by.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pdmd.config import ablation, claims, paper, sections
from pdmd.config.run import run_schema
from pdmd.config.schema import partial
from pdmd.config.scopes import PLACES
from pdmd.config.typed import Schema, keys, schema
from pdmd.scenarios.kind import kinds

README = Path("config/README.md")
SCHEMAS = Path("workflow/schemas")
MARKS = re.compile(r"(<!-- keys of ([\w.]+) -->\n).*?(<!-- end of keys -->)", re.DOTALL)
OTHER = {"top": sections.Settings, "codec": sections.Codec, "clip": sections.Clip}
OTHER |= {"lora": sections.Lora, "fake": sections.Fake, "networks": sections.Networks}
OTHER |= {"balance": sections.Balance, "parallel": sections.Parallel}
OTHER |= {"renoise": sections.Renoise, "average": sections.Average, "claim": claims.Claim}
OTHER |= {
    "ablation": ablation.Ablation,
    "artefact": paper.Artefact,
    "made": paper.Made,
    "published": paper.Published,
}


def section(name: str) -> type:
    """The section that a table is about: of a run, or one inside another."""
    if name in OTHER:
        return OTHER[name]
    section_type: type = sections.__dict__[name.capitalize()]
    return section_type


def table(name: str) -> str:
    """The table of a section's keys, in Markdown; of `data` those of every kind."""
    if name == "data":
        rows = [
            (f"`{kind.name}`", *row)
            for kind in kinds().values()
            for row in _rows(kind.data, "kind")
        ]
        return _markdown(("kind", "key", "values", "meaning"), rows)
    rows = _rows(section(name))
    if name == "run":
        rows += _rows(sections.Listed)
    return _markdown(("key", "values", "meaning"), rows)


def _rows(of: type, without: str = "") -> list[tuple[str, ...]]:
    every = schema(of)["properties"]
    return [
        (f"`{one.name}`", values(every[one.name]), one.metadata["meaning"])
        for one in keys(of)
        if one.metadata.get("meaning") and one.name != without
    ]


def _markdown(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    cells = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def values(key: Schema) -> str:
    """What a key may be, in a few words."""
    if "enum" in key:
        return ", ".join(f"`{value}`" for value in key["enum"])
    kind = key.get("type")
    if isinstance(kind, list):
        words = {"string": f"`{key.get('pattern', 'text')}`", "null": "null"}
        others = [words[str(one)] for one in kind[1:]]
        return ", or ".join([values({**key, "type": kind[0]}), *others])
    if kind == "array":
        return f"list of {_count(key)}{values(key['items'])}"
    if kind in ("integer", "number"):
        return _range(key, "integer " if kind == "integer" else "")
    return {"boolean": "`true`, `false`", "string": "text", "object": "mapping"}[str(kind)]


def _count(key: Schema) -> str:
    least, most = key.get("minItems"), key.get("maxItems")
    if least is None and most is None:
        return ""
    return f"{least}: " if least == most else f"{least or 0} to {_plain(most)}: "


def _range(key: Schema, kind: str) -> str:
    low = key.get("minimum", key.get("exclusiveMinimum"))
    high = key.get("maximum", key.get("exclusiveMaximum"))
    over, under = "above " * ("exclusiveMinimum" in key), "below " * ("exclusiveMaximum" in key)
    if low is None:
        return f"{kind}number"
    words = f"{kind}{over}{_plain(low)} to {under}{_plain(high)}"
    return words + (f", by {key['multipleOf']}" if "multipleOf" in key else "")


def _plain(number: Any) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def described(of: Schema, section_type: type) -> Schema:
    """A schema with the meaning of each key, which editors show."""
    properties = dict(of["properties"])
    for one in keys(section_type):
        if one.name in properties and one.metadata.get("meaning"):
            properties[one.name] = {"description": one.metadata["meaning"], **properties[one.name]}
    return {**of, "properties": properties}


def schemas() -> dict[str, Schema]:
    """Name of a file -> the schema of config.yaml and overlays, of a scenario, of methods.yaml."""
    run = described(partial(run_schema()), sections.Run)
    for name, of in sections_of_a_run().items():
        run["properties"][name] = described(run["properties"][name], of)
    listed = described(schema(sections.Listed), sections.Listed)["properties"]
    of_scenarios = {name: key for name, key in run["properties"].items() if name not in PLACES}
    scenario = {**run, "properties": {**of_scenarios, **listed}}
    method = {**run, "properties": {**of_scenarios, "kind": run["properties"]["kind"]}}
    top = described({**schema(sections.Settings), "required": []}, sections.Settings)
    top["properties"] |= {
        "defaults": scenario,
        "overrides": {"type": "object", "additionalProperties": scenario},
    }
    registry = claims.claims_schema()
    registry["properties"]["claims"]["items"] = described(schema(claims.Claim), claims.Claim)
    return {
        "claims": registry,
        "paper": paper_schema_described(),
        "ablation": described(ablation.ablation_schema(), ablation.Ablation),
        "config": top,
        "scenario": scenario,
        "methods": {"type": "object", "additionalProperties": method},
    }


def paper_schema_described() -> Schema:
    """The schema of config/paper.yaml."""
    whole = paper.paper_schema()
    items = described(whole["properties"]["artefacts"]["items"], paper.Artefact)
    for name, of in (
        ("made", paper.Made),
        ("absent", paper.Absent),
        ("published", paper.Published),
    ):
        listed = items["properties"][name]
        items["properties"][name] = {**listed, "items": described(listed["items"], of)}
    whole["properties"]["artefacts"]["items"] = items
    return whole


def sections_of_a_run() -> Mapping[str, type]:
    """Name -> type; `data` is of its kind."""
    names = ("hardware", "model", "teacher", "measure", "fit", "student", "distill", "bank", "save")
    return {name: section(name) for name in (*names, "classifier", "evaluate", "tables")}


def written(root: Path) -> dict[Path, str]:
    """Every file that is made from the sections -> what must stand in it."""
    text = (root / README).read_text(encoding="utf-8")
    texts = {README: MARKS.sub(lambda mark: mark[1] + table(mark[2]) + mark[3], text)}
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    for name, one in schemas().items():
        content = json.dumps({**draft, **one}, indent=1, sort_keys=True)
        texts[SCHEMAS / f"{name}.schema.json"] = content + "\n"
    return texts


if __name__ == "__main__":
    for path, text in written(Path()).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
