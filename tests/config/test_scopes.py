"""A method has what its jobs alone read; all else is refused, with a word where it belongs."""

import shutil

import pytest
import yaml
from configs import ROOT, accepted, one_line, own, read_once, refused, settings

from pdmd.config.experiment import Experiment, merge
from pdmd.config.run import run_schema
from pdmd.config.scopes import OWN, check_method
from pdmd.config.yaml_files import read_mapping
from pdmd.errors import UserError

SCHEMA = run_schema()["properties"]
LEAVES = [
    (section, key)
    for section, schema in SCHEMA.items()
    for key in schema.get("properties", {"": None})
    if section != "kind"
]
# Written out once more, apart from the code: (section, keys but for these, or these alone).
SCORED = "samples video_samples neighbours beside networks size"
TEACHER = {"teacher": None, "evaluate": f"{SCORED} draw"}
EXPECTED = {
    "teacher": TEACHER,
    "distill": {
        **dict.fromkeys(("hardware", "student", "distill", "bank", "save")),
        "teacher": "kind guidance guidance_low",
        "evaluate": f"{SCORED} frontier_samples previews",
    },
    "fit": {
        **dict.fromkeys(("hardware", "save")),
        "fit": "updates batch lr weight_decay ema time null_share start target start_from",
        "evaluate": "samples steps",
    },
}


def belongs(kind, section, key):
    if section not in EXPECTED[kind]:
        return False
    keys = EXPECTED[kind][section]
    return keys is None or key in keys.split()


@pytest.mark.parametrize("kind", OWN)
def test_every_key_out_of_a_methods_scope_is_refused_and_no_other(kind):
    counts = {True: 0, False: 0}
    for section, key in LEAVES:
        diff = {"kind": kind, section: {key: 1} if key else 1}
        mine = belongs(kind, section, key)
        counts[mine] += 1
        if mine:
            check_method("mine", diff)
            continue
        with pytest.raises(UserError, match=r"^config/methods.yaml: mine: ") as caught:
            check_method("mine", diff)
        line = one_line(caught.value)
        named = f"{section}.{key}" if key else section
        assert line.startswith(f"config/methods.yaml: mine: {named}: 1: expected ")
    print(kind, counts)
    assert counts[True] > 5
    assert counts[False] > 40


@pytest.mark.parametrize(
    ("diff", "place"),
    [
        ({"kind": "distill", "seeds": [1]}, "in a scenario (config/scenarios/ or overrides)"),
        ({"kind": "fit", "model": {"width": 8}}, "in a scenario (config/scenarios/ or overrides)"),
        ({"kind": "distill", "fit": {"lr": 1}}, "in a method of kind fit, or in a scenario"),
        ({"kind": "teacher", "bank": {"rows": 0}}, "in a method of kind distill, or in a scenario"),
        ({"kind": "distill", "teacher": {"steps": 9}}, "in a method of kind teacher, or"),
        ({"kind": "distill", "results": "x"}, "at the top of the configuration"),
        ({"kind": "distill", "method": "x"}, "no such key: it is the method's name"),
        (
            {"kind": "distill", "scenario": "x"},
            "no such key: it is the name of the scenario's file",
        ),
        ({"save": {}}, "the key kind, one of teacher, distill, fit"),
        ({"kind": "distil"}, "one of teacher, distill, fit"),
        ({"kind": ["distill"]}, "one of teacher, distill, fit"),
    ],
)
def test_the_line_says_where_a_key_belongs(diff, place):
    with pytest.raises(UserError) as caught:
        check_method("mine", diff)
    assert f": expected {place}" in one_line(caught.value)


@pytest.fixture
def root(tmp_path):
    """A copy of the configuration whose methods may be added to."""
    shutil.copytree(ROOT / "config", tmp_path / "config", ignore=shutil.ignore_patterns("teachers"))
    shutil.copytree(ROOT / "workflow" / "schemas", tmp_path / "workflow" / "schemas")
    return tmp_path


def add(root, text):
    with (root / "config" / "methods.yaml").open("a") as handle:
        handle.write(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mine: {kind: distill, seeds: [1]}\n", "mine: seeds: [1]: expected in a scenario"),
        ("mine: {kind: distill, methods: [dmd2]}\n", "mine: methods: ['dmd2']: expected in a scen"),
        (
            "mine: {kind: distill, distill: {updatess: 1}}\n",
            "mine: distill.updatess: 1: expected a",
        ),
        ("mine: {kind: distill, distil: {}}\n", "mine: distil: {}: expected a known key"),
        ("mine: {kind: distill, save: 3}\n", "mine: save: 3: expected a value of type object"),
        ("dmd2: {kind: distill}\n", "key 'dmd2' is given twice"),
        ("Mine: {kind: distill}\n", "Mine: 'Mine': expected a name that matches [a-z0-9-]+"),
        ("tables: {kind: distill}\n", "tables: 'tables': expected another name"),
        (f"{'x' * 300}: {{kind: distill}}\n", "expected at most 60 letters"),
        ("mine:\n", "config/methods.yaml: mine: null: expected a mapping"),
    ],
)
def test_methods_are_checked_though_no_scenario_names_them(root, text, said):
    Experiment(root, settings())  # the control
    add(root, text)
    assert said in refused({}, root)


@pytest.mark.parametrize(
    ("diff", "said"),
    [
        ({"kind": "distill"}, "overrides.mixture2d.kind: 'distill': expected in a method"),
        ({"results": "x"}, "overrides.mixture2d.results: 'x': expected at the top"),
        ({"scenario": "x"}, "overrides.mixture2d.scenario: 'x': expected no such key"),
        ({"method": "x"}, "overrides.mixture2d.method: 'x': expected no such key"),
    ],
)
def test_a_scenario_has_no_keys_of_methods_or_of_the_whole(diff, said):
    assert said in refused(own("mixture2d", **diff))
    assert said.replace("overrides.mixture2d", "defaults") in refused({"defaults": diff})


@pytest.mark.parametrize(
    ("diff", "said"),
    [
        ({"distil": {}}, "config: overrides.movingmoe.distil: {}: expected a known key"),
        (
            {"distill": {"updates": "1e3"}},
            "distill.updates: '1e3': expected a value of type integer",
        ),
        (
            {"methods": ["dmd3"]},
            "movingmoe: methods: 'dmd3': expected one of teacher, teacher-again, base",
        ),
    ],
)
def test_overrides_of_scenarios_that_do_not_run_are_checked(diff, said):
    assert said in refused({"scenarios": ["toy1d"], "overrides": {"movingmoe": diff}})
    accepted({"scenarios": ["toy1d"], "overrides": {"movingmoe": {"distill": {"updates": 9}}}})


def test_what_serves_all_methods_is_the_scenarios(root):
    """Not the first method's, which may have a `save` of its own."""
    add(root, "mine: {kind: distill, save: {snapshots: 77}, hardware: {processes: 2}}\n")
    for methods in (["mine", "teacher"], ["teacher", "mine"]):
        experiment = accepted(own("mixture2d", methods=methods), root)
        assert experiment.runs["mixture2d", "mine"].save.snapshots == 77
        shared = experiment.shared_config("mixture2d")
        assert shared["save"]["snapshots"] == experiment.scenario("mixture2d")["save"]["snapshots"]
        assert shared["hardware"] == experiment.scenario("mixture2d")["hardware"]
        assert not {"method", "kind", "methods"} & shared.keys()
        base = experiment.parts("mixture2d")["config/base.json"]
        assert base["save"] == shared["save"]
        assert {k: shared[k] for k in base} == base


def test_the_methods_of_the_repository_are_in_their_scope():
    for name, diff in read_mapping(ROOT / "config" / "methods.yaml").items():
        check_method(name, diff)


def test_reading_files_once_changes_nothing(monkeypatch):
    """What other tests do for speed."""
    before = accepted({}).runs
    read_once(monkeypatch)
    assert accepted({}).runs == before == accepted({}).runs


def test_an_experiment_keeps_nothing_of_the_settings_it_was_given():
    mine = merge(settings(), own("toy1d", seeds=[5]))
    experiment = Experiment(ROOT, mine)
    mine["overrides"]["toy1d"]["seeds"].append(6)
    assert experiment.seeds("toy1d") == [5]
    assert yaml.safe_load(yaml.safe_dump(experiment.settings)) == experiment.settings
