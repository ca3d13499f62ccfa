"""What is said of keys elsewhere comes from the sections: tables of config/README.md, schemas."""

import json
from collections import defaultdict

import pytest
import yaml
from configs import ROOT, accepted, own
from jsonschema import Draft202012Validator

from pdmd.config import handbook, sections
from pdmd.config.sections import Student
from pdmd.config.typed import build, keys, schema
from pdmd.scenarios.kind import kinds

FILES = [handbook.README, *(handbook.SCHEMAS / f"{n}.schema.json" for n in handbook.schemas())]

NAMED = set(handbook.sections_of_a_run())


@pytest.mark.parametrize("path", FILES, ids=str)
def test_what_stands_there_is_what_the_sections_say(path):
    assert (ROOT / path).read_text("utf-8") == handbook.written(ROOT)[path], "make handbook"


def test_a_key_that_changes_changes_its_table(monkeypatch):
    """The control."""
    before = handbook.table("save")
    monkeypatch.setitem(handbook.OTHER, "save", sections.Bank)
    assert handbook.table("save") != before


def test_every_section_has_a_table():
    text = (ROOT / handbook.README).read_text("utf-8")
    found = {mark[2] for mark in handbook.MARKS.finditer(text)}
    assert found == {"run", "data", *NAMED, *handbook.OTHER}


def test_every_key_says_what_it_means():
    every = [*(kind.data for kind in kinds().values())]
    every += [one for one in vars(sections).values() if isinstance(one, type)]
    silent = {
        one.name
        for of in every
        if hasattr(of, "__dataclass_fields__")
        for one in keys(of)
        if not one.metadata.get("meaning")
    }
    named = {"results", "scenario", "method"}  # folders, and the name of a file
    assert silent == named | {*NAMED, "data"}


def test_kinds_that_share_a_key_share_its_range():
    """An overlay for all scenarios is checked before their kinds are known."""
    ranges = defaultdict(list)
    for kind in kinds().values():
        for name, of in schema(kind.data)["properties"].items():
            if name != "kind" and of not in ranges[name]:
                ranges[name].append(of)
    assert {name for name, of in ranges.items() if len(of) > 1} == set()


def yaml_files():
    config = ROOT / "config"
    return sorted([*config.glob("*.yaml"), *config.glob("scenarios/*.yaml")])


@pytest.mark.parametrize("path", yaml_files(), ids=lambda path: path.name)
def test_files_name_a_schema_that_accepts_them(path):
    first, _, rest = path.read_text("utf-8").partition("\n")
    named = path.parent / first.removeprefix("# yaml-language-server: $schema=")
    checker = Draft202012Validator(json.loads(named.read_text("utf-8")))
    content = yaml.safe_load(rest)
    assert list(checker.iter_errors(content)) == []
    spoilt = {**content, "bogus": {"kind": 3}}  # the control
    assert list(checker.iter_errors(spoilt)) != []


# ---- values


def test_a_part_has_what_it_was_given_and_nothing_else():
    student = build(Student, {"steps": 4, "boundaries": [2, 4], "lora": {"rank": 2, "alpha": 4}})
    assert student.boundaries == (2, 4)
    assert student.lora == sections.Lora(rank=2, alpha=4)
    with pytest.raises(AttributeError, match="margin"):
        _ = student.margin


def test_an_absent_key_is_what_its_section_says():
    run = accepted(own("mixture2d")).runs["mixture2d", "dmd2"]
    assert (run.model.heads, run.model.boundary, run.fit.start) == (1, None, 0.0)
    with pytest.raises(AttributeError):  # the control: a job is told this, and nobody else
        _ = run.bank.used


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ({"enum": ["a", "b"]}, "`a`, `b`"),
        ({"type": "integer", "minimum": 1, "maximum": 9}, "integer 1 to 9"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "above 0 to 1"),
        ({"type": ["string", "null"]}, "text, or null"),
        ({"type": "boolean"}, "`true`, `false`"),
        (
            {"type": "array", "minItems": 1, "maxItems": 9, "items": {"type": "string"}},
            "list of 1 to 9: text",
        ),
    ],
)
def test_values_are_put_in_words(key, words):
    assert handbook.values(key) == words
