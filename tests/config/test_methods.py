"""Methods of an overlay: by themselves, and as grids."""

import pytest
from configs import accepted, refused

from pdmd.config.methods import _short, of_overlay, spelt
from pdmd.config.run import read_run


def diff(methods, listed):
    return {
        "scenarios": ["mixture2d"],
        "validate": [],
        "methods": methods,
        "overrides": {"mixture2d": {"methods": listed}},
    }


def experiment(methods, listed):
    return accepted(diff(methods, listed))


def test_a_grid_is_a_method_a_cell():
    grid = {"distill.generator_lr": [1e-4, 5e-4], "distill.fake_updates": [1, 5]}
    one = experiment(
        {"rate": {"kind": "distill", "label": "Rate", "grid": grid}}, ["teacher", "rate", "dmd2"]
    )
    names = one.method_names("mixture2d")
    assert names == [
        "teacher",
        "rate-generator-lr-0p0001-fake-updates-1",
        "rate-generator-lr-0p0001-fake-updates-5",
        "rate-generator-lr-0p0005-fake-updates-1",
        "rate-generator-lr-0p0005-fake-updates-5",
        "dmd2",
    ]
    run = one.runs["mixture2d", "rate-generator-lr-0p0005-fake-updates-1"]
    assert (run.distill.generator_lr, run.distill.fake_updates) == (5e-4, 1)
    assert run.distill.fake_lr == one.runs["mixture2d", "dmd2"].distill.fake_lr
    part = one.parts("mixture2d")["rate-generator-lr-0p0005-fake-updates-1/config/table.json"]
    assert part["label"] == "Rate, generator_lr 0.0005, fake_updates 1"
    assert "label" not in one.parts("mixture2d")["dmd2/config/table.json"]  # control


def test_keys_of_two_sections_that_end_alike_are_said_whole():
    assert _short({"distill.updates": [10], "student.shift": [5]}) == ["updates", "shift"]
    assert _short({"student.renoise.shift": [1], "student.shift": [5]}) == [
        "renoise.shift",
        "shift",
    ]
    alike = {"distill.updates": [10], "fit.updates": [20]}
    assert _short(alike) == list(alike)


def test_one_cell_may_be_named_alone():
    methods = {"late": {"kind": "distill", "grid": {"distill.decay": [0.9, 0.5]}}}
    assert experiment(methods, ["teacher", "late-decay-0p5"]).method_names("mixture2d") == [
        "teacher",
        "late-decay-0p5",
    ]


def test_a_method_without_a_grid_has_its_own_label():
    one = experiment({"mine": {"kind": "distill", "label": "Mine"}}, ["teacher", "mine"])
    assert one.parts("mixture2d")["mine/config/table.json"]["label"] == "Mine"


def test_a_label_is_what_tables_and_figures_say():
    from pdmd.report.looks import look, name_methods

    assert look("never-seen-before").label == "never-seen-before"  # control
    labelled = {"method": "never-seen-before", "label": "Seen"}
    name_methods([read_run(labelled), read_run({"method": "dmd2"})])
    assert look("never-seen-before").label == "Seen"


def cells(grid):
    return {"mine": {"kind": "distill", "grid": grid}}


WRONG = {
    "a name": ({"Mine": {"kind": "distill"}}, "config: methods: Mine: 'Mine': expected a name"),
    "a taken name": ({"dmd2": {"kind": "distill"}}, "dmd2: 'dmd2': expected another name"),
    "no mapping": ({"mine": 3}, "config: methods: mine: 3: expected a mapping"),
    "a label": ({"mine": {"kind": "distill", "label": 3}}, "mine: label: 3: expected a text"),
    "an empty grid": (cells({}), "mine: grid: {}: expected keys with lists"),
    "no list": (
        cells({"distill.decay": 0.9}),
        "grid.distill.decay: 0.9: expected a list of values",
    ),
    "twice": (cells({"distill.decay": [0.9, 0.9]}), "grid: 'mine-decay-0p9': expected different"),
    "a large grid": (cells({"distill.decay": [0.1] * 1001}), "expected at most 1000"),
    "no key": (cells({"distill.emma": [0.9]}), "distill.emma: 0.9: expected a known key"),
    "a value": (cells({"distill.decay": [7]}), "mine-decay-7: distill.decay: 7: expected"),
    "a scenario's key": (cells({"data.std": [0.1]}), "config: methods: mine-std-0p1: data.std"),
    "no kind": ({"mine": {"label": "x"}}, "config: methods: mine: kind: null: expected the key"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_one_line(name):
    methods, said = WRONG[name]
    assert said in refused(diff(methods, ["teacher"]))


def test_names_say_values():
    assert [spelt(value) for value in (1e-4, [2, 4], True, None, "even", {"rank": 8})] == [
        "0p0001",
        "2-4",
        "true",
        "none",
        "even",
        "rank-8",
    ]
    assert of_overlay({}, {}).diffs == {}
