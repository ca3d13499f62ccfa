"""The registry of the paper's artefacts: whole, and refused in one line where it is not."""

import re
from pathlib import Path

import pytest
import yaml

from pdmd.config.paper import FILE, SCALES, artefacts, made_in, read_paper
from pdmd.config.yaml_files import read_yaml
from pdmd.errors import UserError
from pdmd.metrics.ranges import RANGES
from pdmd.scenarios.kind import kinds

REPOSITORY = Path(__file__).resolve().parents[2]
PAPERS = {"fig": 12, "table": 6}  # of v3


@pytest.fixture(scope="module")
def listed():
    return artefacts(REPOSITORY)


def test_every_table_and_figure_of_the_paper_is_listed_once(listed):
    wanted = [f"fig{n:02d}" for n in range(1, 13)] + [f"table{n}" for n in range(1, 7)]
    assert [one.id for one in listed] == wanted
    assert [one.name for one in listed if one.id in ("fig01", "table3")] == ["Fig. 1", "Table 3"]


def test_each_is_made_at_a_scale_or_says_why_not(listed):
    for artefact in listed:
        for scale in SCALES:
            assert bool(artefact.at(scale)) != bool(artefact.why_not(scale)), (artefact.id, scale)


def test_what_is_made_exists_scenarios_methods_drawings_and_metrics(listed):
    known = {path.stem for path in (REPOSITORY / "config/scenarios").glob("*.yaml")}
    methods = set(read_yaml(REPOSITORY / "config/methods.yaml"))
    for artefact in listed:
        for made in artefact.made:
            assert made.scenario in known
            spec = read_yaml(REPOSITORY / "config/scenarios" / f"{made.scenario}.yaml")
            kind = kinds()[spec["data"]["kind"]]
            if made.drawing:
                assert made.drawing in {*kind.figures, *kind.further}
                assert callable(kind.figure(made.drawing))
            if artefact.kind == "scores":
                assert {name for name, _ in made.metrics} <= RANGES.keys()
                columns = {name for names, _ in kind.metrics().values() for name in names}
                assert {name for name, _ in made.metrics} <= columns, artefact.id
            if artefact.kind != "curve":
                assert set(made.methods) <= methods, artefact.id


def test_the_published_values_are_those_of_the_paper(listed):
    """Some of each table, typed a second time, and shares of gaps that the values give."""
    tables = {one.id: {group.title: group for group in one.published} for one in listed}
    motion = tables["table2"]["published, Wan2.2 T2V, v3"].rows
    assert motion["phased2"] == (9.30, 82.27, 47.24, 700.9)
    assert (motion["phased2"][0] - motion["dmd2"][0]) / (
        motion["teacher"][0] - motion["dmd2"][0]
    ) == pytest.approx(0.86, abs=0.005)
    assert tables["table2"]["published, Wan2.2 T2V, v1"].rows["phased2"][:2] == (7.57, 74.55)
    assert tables["table3"]["published, Qwen-Image, v3"].rows["phased2"] == (0.958, 0.322)
    assert tables["table4"]["published, Wan2.2 T2V, v3"].rows["dmd2"][3] == 92.93
    assert tables["table5"]["published, Wan2.2 I2V, v3"].rows["teacher"][-1] == 95.52
    assert tables["table6"]["published, Wan2.2 T2V, v3"].rows["phased4"][-1] == 578.2


def test_an_experiment_gives_what_it_has_and_no_more(listed):
    methods = {"mixture2d": ["teacher", "dmd2", "phased2"], "emoji": ["teacher"]}
    pairs = [(one.id, made.methods) for one, made in made_in(listed, "", methods)]
    assert ("table3", ("teacher", "dmd2", "phased2")) in pairs
    assert not [name for name, _ in pairs if name == "table6"]  # four phases are not there
    assert not [name for name, _ in pairs if name in ("table2", "fig04")]
    assert made_in(listed, "science/phases", methods) == []  # control: it has questions of its own
    for elsewhere in (None, "mine"):
        assert [
            (one.id, made.methods) for one, made in made_in(listed, elsewhere, methods)
        ] == pairs
    cells = {"mixture2d": ["at-at-0p1-gradient-literal", "dmd", "attic"]}
    ((curve, made),) = made_in(listed, "science/renoise", cells)
    assert curve.id == "fig11"
    assert made.methods == ("at-at-0p1-gradient-literal", "dmd")
    assert made_in(listed, "science/renoise", {"mixture2d": ["dmd"]}) == []  # no curve of one


GOOD = {
    "id": "table3",
    "kind": "scores",
    "caption": "A table.",
    "columns": ["cosine"],
    "published": [{"base": "Wan", "rows": {"dmd2": [0.5]}}],
    "made": [
        {
            "scale": "small",
            "scenario": "emoji",
            "parts": [""],
            "methods": ["dmd2"],
            "metrics": {"cosine": "cosine"},
        }
    ],
    "absent": [{"scale": one, "why": "none"} for one in ("toy", "tiny", "real")],
}


def changed(**values):
    return {**GOOD, **values}


def without(name):
    return changed(made=[{k: v for k, v in GOOD["made"][0].items() if k != name}])


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ([changed(id="chart1")], "artefacts.0.id: 'chart1': expected"),
        ([GOOD, GOOD], "artefacts.1.id: 'table3': expected an id that no other artefact has"),
        ([changed(absent=[])], "either what it is made of at scale toy, or why it is not"),
        ([changed(kind="figure")], "artefacts.0.kind: 'figure': expected what Table 3 can be"),
        (
            [without("metrics")],
            "artefacts.0.made.0.metrics: null: expected metrics and their heads",
        ),
        ([without("scenario")], "artefacts.0.made.0"),
        (
            [changed(published=[{"base": "Wan", "rows": {"dmd2": [0.5, 0.6]}}])],
            r"artefacts.0.published.0.rows.dmd2: \[0.5, 0.6\]: expected 1 values, one a column",
        ),
        (
            [changed(id="fig04", kind="figure")],
            "artefacts.0.made.0.drawing: null: expected a function of the kind's room",
        ),
        (
            [changed(id="fig11", kind="curve")],
            "artefacts.0.along: null: expected the setting along the curve",
        ),
        ([changed(colour="red")], "artefacts.0.colour: 'red'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, listed, said):
    path = tmp_path / FILE.name
    path.write_text(yaml.safe_dump({"artefacts": [GOOD]}))
    assert [one.id for one in read_paper(path)] == ["table3"]  # the control
    path.write_text(yaml.safe_dump({"artefacts": listed}))
    with pytest.raises(UserError, match=said) as raised:
        read_paper(path)
    assert "\n" not in str(raised.value)
    assert re.match(rf".*{FILE.name}: ", str(raised.value))
