import copy
import re
import subprocess

import pytest
import yaml

from pdmd.config.experiment import Experiment, merge, read_yaml
from pdmd.config.plan import open_workflow

SCENARIOS = ("toy1d", "mixture2d", "digits", "emoji", "moving")


@pytest.fixture(scope="module")
def settings(repository):
    return read_yaml(repository / "config" / "config.yaml")


def mixture(**diff):
    """Settings that change the 2D mixture alone."""
    return {"scenarios": ["mixture2d"], "overrides": {"mixture2d": diff}}


def refusal(root, settings):
    """The one line that a wrong configuration ends the program with."""
    with pytest.raises(SystemExit) as caught:
        open_workflow(root, settings, [], main=True)
    line = str(caught.value)
    assert line.startswith("pdmd: ")
    assert "\n" not in line
    assert caught.value.__suppress_context__  # nobody is shown a traceback
    return line


def test_the_configuration_in_the_repository_is_accepted(repository, settings):
    """The control of every refusal below."""
    experiment = Experiment(repository, settings)
    assert experiment.scenarios == list(SCENARIOS)
    assert {scenario for scenario, _ in experiment.runs} == set(SCENARIOS)


# What is wrong -> what the line must say: the key, the value and what was expected.
WRONG = {
    "an unknown top key": ({"bogus": 1}, "bogus: 1", "a known key, one of clip, defaults,"),
    "an unknown scenario": ({"scenarios": ["toy9d"]}, "scenarios: 'toy9d'", "one of digits,"),
    "a scenario that is no list": ({"scenarios": "toy1d"}, "scenarios: 'toy1d'", "type array"),
    "seeds together in a transformer": (
        {"overrides": {"emoji": {"together": True}}},
        "together: true",
        "false for model.kind qwen",
    ),
    "heads that do not divide the width": (
        {"overrides": {"emoji": {"model": {"heads": 5}}}},
        "model.heads: 5",
        "a divisor of half of model.width",
    ),
    "a codec without its weights": (
        {"overrides": {"emoji": {"data": {"codec": {"kind": "AutoencoderKLWan"}}}}},
        "data.codec: ['channels', 'patch', 'whitening']",
        "['weights'] for data.codec.kind AutoencoderKLWan",
    ),
    "an exact teacher of emoji": (
        {"overrides": {"emoji": {"teacher": {"kind": "exact"}}}},
        "teacher.kind: 'exact'",
        "'fitted' for data.kind emoji",
    ),
    "a network that reads no text": (
        {"overrides": {"moving": {"model": {"kind": "mlp"}}}},
        "model.kind: 'mlp'",
        "'wan' for data.kind moving",
    ),
    "an adapter where nothing takes one": (
        {"overrides": {"mixture2d": {"student": {"lora": {"rank": 4, "alpha": 4}}}}},
        "student.lora",
        "null for model.kind mlp",
    ),
    "no scenario": ({"scenarios": []}, "scenarios: []", "at least 1"),
    "the same scenario twice": (
        {"scenarios": ["toy1d", "toy1d"]},
        "scenarios: ['toy1d', 'toy1d']",
        "no entry twice",
    ),
    "an overlay for an unknown scenario": (
        {"overrides": {"mixture3d": {}}},
        "overrides.mixture3d",
        "`all` or a scenario's name",
    ),
    "a slip of the pen in an overlay": (
        mixture(distill={"updatess": 3}),
        "distill.updatess: 3",
        "a known key, one of average, balance, batch,",
    ),
    "a word for a number": (mixture(distill={"updates": "many"}), "updates: 'many'", "integer"),
    "a float that YAML reads as text": (
        mixture(distill={"generator_lr": yaml.safe_load("5e-4")}),
        "distill.generator_lr: '5e-4'",
        "a value of type number",
    ),
    "a fraction of an update": (mixture(distill={"updates": 1.5}), "updates: 1.5", "integer"),
    "a number for a truth": (mixture(together=1), "together: 1", "type boolean"),
    "a negative rate": (mixture(distill={"fake_lr": -1}), "distill.fake_lr: -1", "more than 0"),
    "a negative seed": (mixture(seeds=[1, -2]), "seeds.1: -2", "at least 0"),
    "betas out of range": (mixture(distill={"betas": [0, 1.0]}), "betas.1: 1.0", "less than 1"),
    "one beta": (mixture(distill={"betas": [0.9]}), "distill.betas: [0.9]", "at least 2 entries"),
    "a margin out of range": (mixture(student={"margin": 0.5}), "margin: 0.5", "at most 0.1"),
    "no fidelity to compare at": (
        mixture(tables={"levels": []}),
        "tables.levels: []",
        "at least one fidelity",
    ),
    "an unknown choice": (mixture(flow="linear"), "flow: 'linear'", "one of rectified, cosine"),
    "another unknown choice": (
        mixture(student={"interval": "nestled"}),
        "student.interval: 'nestled'",
        "one of nested, disjoint",
    ),
    "a section left empty": (mixture(distill=None), "distill: null", "a value of type object"),
    "boundaries that do not end at the steps": (
        mixture(methods=["dmd2"], student={"steps": 5}),
        "student.boundaries: [4]",
        "end at student.steps = 5",
    ),
    "boundaries that do not rise": (
        mixture(methods=["dmd2"], student={"boundaries": [3, 2, 4]}),
        "student.boundaries: [3, 2, 4]",
        "rising step counts",
    ),
    "guidance where there is no null condition": (
        mixture(teacher={"guidance": 2.0}),
        "teacher.guidance: 2.0",
        "1 for model.kind mlp, which has no null condition",
    ),
    "an exact teacher of pictures": (
        {"overrides": {"digits": {"teacher": {"kind": "exact"}}}},
        "teacher.kind: 'exact'",
        "'fitted' for data.kind digits",
    ),
    "no process": (mixture(hardware={"processes": 0}), "processes: 0", "at least 1"),
    "fewer GPUs than processes": (
        mixture(hardware={"processes": 4, "gpus": 2}),
        "hardware.gpus: 2",
        "0 or hardware.processes = 4",
    ),
    "more GPUs than processes": (
        mixture(hardware={"gpus": 2}),
        "hardware.gpus: 2",
        "0 or hardware.processes = 1",
    ),
    "a batch without equal shares": (
        mixture(hardware={"nodes": 5}),
        "fit.batch: 512",
        "a multiple of the 5 processes",
    ),
    "an unknown method": (
        mixture(methods=["dmd3"]),
        "methods: 'dmd3'",
        "one of teacher, teacher-again, base,",
    ),
    "no method": (mixture(methods=[]), "methods: []", "at least 1 entry"),
    "the same seed twice": (mixture(seeds=[1, 2, 1]), "seeds: [1, 2, 1]", "no entry twice"),
    "fewer updates than phases": (
        mixture(methods=["phased4"], distill={"updates": 3}),
        "distill.updates: 3",
        "at least one for each of 4 phases",
    ),
    "students beside no teacher": (
        {"overrides": {"emoji": {"methods": ["dmd2"]}}},
        "emoji/dmd2: evaluate.beside: 'teacher-again'",
        "a method of kind teacher among dmd2",
    ),
    "students beside a student": (
        {"overrides": {"moving": {"evaluate": {"beside": "dmd2"}}}},
        "evaluate.beside: 'dmd2'",
        "a method of kind teacher among teacher, teacher-again, teacher4, dmd2, phased2",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_configuration_is_refused_in_one_line(repository, settings, what):
    diff, named, expected = WRONG[what]
    line = refusal(repository, merge(settings, diff))
    assert named in line
    assert "expected" in line
    assert expected in line.split("expected", 1)[1]


def test_refused_values_that_just_fit_are_accepted(repository, settings):
    """The controls of the bounds."""
    distill = {"updates": 4, "betas": [0, 0.999], "fake_lr": 1e-9}
    diff = mixture(distill=distill, student={"margin": 0.1}, seeds=[0], methods=["phased4"])
    experiment = Experiment(repository, merge(settings, diff))
    assert experiment.runs["mixture2d", "phased4"].distill.updates == 4


def test_students_are_compared_with_the_teacher_named(repository, settings):
    twins = ["teacher-again", "teacher-guided-again"]
    methods = [*twins, "teacher", "teacher-guided", "dmd2", "dmd2-guided"]
    diff = {"overrides": {"emoji": {"methods": methods}}}
    experiment = Experiment(repository, merge(settings, diff))
    beside = [experiment.beside("emoji", method) for method in methods]
    assert beside == [None, None, twins[0], twins[1], twins[0], twins[1]]
    assert experiment.beside("mixture2d", "dmd2") is None


# Subtly wrong: each would pass a plain schema and fail, or be ignored, in a job.
SUBTLE = {
    "a rate that is not a number": mixture(distill={"generator_lr": float("nan")}),
    "an infinite rate": mixture(distill={"generator_lr": float("inf")}),
    "a whole float for a count": mixture(student={"steps": 4.0}),
    "a seed that is a float": mixture(seeds=[1.0]),
    "the same method twice": mixture(methods=["dmd2", "dmd2"]),
    "a method that is a list": mixture(methods=[["dmd2"]]),
    "no room to re-noise after the first step": mixture(student={"shift": 12.0}),
    "a conditional network without classes": mixture(model={"kind": "conditional-mlp"}),
    "guidance of an exact teacher": mixture(
        model={"kind": "conditional-mlp"}, teacher={"guidance": 1.5}
    ),
    "a checkpoint between two records of the log": mixture(save={"checkpoint_every": 30}),
    "data without their keys": {"overrides": {"toy1d": {"data": {"kind": "mixture2d"}}}},
}


@pytest.mark.parametrize("what", SUBTLE)
def test_a_subtly_wrong_configuration_is_refused_in_one_line(repository, settings, what):
    refusal(repository, merge(settings, SUBTLE[what]))


@pytest.mark.parametrize("text", ["title: [unclosed\n", "a: 1\n  b: 2\n", "\tx: 1\n"])
def test_invalid_yaml_is_refused_with_its_file_and_line(checkout, settings, text):
    path = checkout / "config" / "scenarios" / "mixture2d.yaml"
    path.write_text(text)
    line = refusal(checkout, settings)
    assert f"{path}: " in line
    assert "line " in line
    assert "expected valid YAML" in line


@pytest.mark.parametrize("text", ["", "- dmd2\n", "dmd2\n"])
def test_a_scenario_that_is_no_mapping_is_refused(checkout, settings, text):
    path = checkout / "config" / "scenarios" / "mixture2d.yaml"
    path.write_text(text)
    assert f"{path}: " in (line := refusal(checkout, settings))
    assert "expected a mapping" in line


def test_a_missing_file_is_refused_by_name(checkout, settings):
    name = "config/methods.yaml"
    (checkout / name).unlink()
    line = refusal(checkout, settings)
    assert f"{checkout / name}: No such file" in line
    assert "expected a readable YAML" in line


def write_method(checkout, name, value):
    path = checkout / "config" / "methods.yaml"
    path.write_text(path.read_text() + yaml.safe_dump({name: value}))


def test_a_method_without_a_kind_is_refused(checkout, settings):
    write_method(checkout, "mine", {"distill": {"updates": 5}})
    line = refusal(checkout, merge(settings, mixture(methods=["mine"])))
    assert "config/methods.yaml: mine: kind: null" in line
    assert "expected the key kind" in line


def test_a_method_left_empty_is_refused(checkout, settings):
    write_method(checkout, "mine", None)
    assert "mine" in refusal(checkout, merge(settings, mixture(methods=["mine"])))


def test_students_scored_otherwise_than_their_teacher_are_refused(checkout, settings):
    mine = {"kind": "distill", "evaluate": {"networks": {"features": "me/dinov3"}}}
    write_method(checkout, "mine", mine)
    asked = {"overrides": {"emoji": {"methods": ["teacher-again", "mine"]}}}
    line = refusal(checkout, merge(settings, asked))
    assert "emoji/mine: evaluate.networks: {'features': 'me/dinov3'}: expected null, as of" in line
    Experiment(checkout, merge(settings, {"overrides": {"emoji": {"methods": ["teacher-again"]}}}))


@pytest.mark.parametrize(
    ("arguments", "named", "expected"),
    [
        (["--config", "scenarios=[toy9d]"], "config: scenarios: 'toy9d'", "expected one of"),
        (["--configfile", "wrong.yaml"], "distill.updatess: 3", "expected a known key"),
    ],
)
def test_snakemake_stops_at_a_wrong_configuration_before_any_job(
    checkout, snakemake, arguments, named, expected
):
    (checkout / "wrong.yaml").write_text(yaml.safe_dump(mixture(distill={"updatess": 3})))
    done = snakemake(checkout, "-n", *arguments)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("pdmd: ")]
    assert len(lines) == 1
    assert named in lines[0]
    assert expected in lines[0]
    assert "Traceback" not in done.stdout + done.stderr
    assert "rule " not in done.stdout
    assert not (checkout / "results").exists()


def test_snakemake_plans_the_configuration_in_the_repository(checkout, snakemake):
    """The control: with nothing wrong, the same command plans jobs."""
    done = snakemake(checkout, "-n")
    assert done.returncode == 0, done.stderr
    assert "distill_mixture2d" in done.stdout + done.stderr


@pytest.mark.parametrize("overlay", ["minute", "small", "teachers", "teachers_second"])
def test_every_overlay_resolves(repository, settings, overlay):
    diff = read_yaml(repository / "config" / f"{overlay}.yaml")
    experiment = Experiment(repository, merge(settings, diff))
    assert experiment.runs
    assert experiment.settings["results"] != settings["results"]


def test_make_plans_the_fits_of_the_teachers_and_nothing_more(checkout, repository, snakemake):
    done = subprocess.run(
        ["make", "-n", "teachers"], cwd=repository, capture_output=True, text=True, check=True
    )
    lines = [x for x in done.stdout.splitlines() if "bin/snakemake" in x]
    assert len(lines) == 2  # first and second teachers
    for line in lines:
        arguments = subprocess.run(
            ["bash", "-c", f"echo {line}"], capture_output=True, text=True, check=True
        )
        plan = snakemake(checkout, "-n", *arguments.stdout.split()[1:])
        assert plan.returncode == 0, plan.stderr
        said = plan.stdout + plan.stderr
        assert len(re.findall(r"rule fit_base:", said)) == 2
        assert "distill" not in said


# ---- merging


def test_merging_goes_into_mappings_and_replaces_all_else():
    base = {"a": {"x": 1, "y": [1, 2]}, "b": {"z": 1}, "c": 3}
    diff = {"a": {"y": [3]}, "b": 5, "c": {"new": {"deep": 1}}, "d": None}
    assert merge(base, diff) == {
        "a": {"x": 1, "y": [3]},
        "b": 5,
        "c": {"new": {"deep": 1}},
        "d": None,
    }


def test_merging_changes_neither_side():
    base, diff = {"a": {"x": 1}, "l": [1]}, {"a": {"y": 2}}
    kept = copy.deepcopy((base, diff))
    merge(base, diff)["a"]["x"] = 9
    assert (base, diff) == kept
    assert merge(base, {}) == base


def test_a_diff_of_lists_replaces_and_does_not_join():
    assert merge({"boundaries": [4]}, {"boundaries": [2, 4]}) == {"boundaries": [2, 4]}


def test_the_order_is_defaults_scenario_overlay_method(repository, settings):
    overlay = {"overrides": {"all": {"threads": 3, "distill": {"batch": 7}}}}
    overlay["overrides"]["mixture2d"] = {"distill": {"batch": 8}, "student": {"boundaries": [3, 4]}}
    runs = Experiment(repository, merge(settings, overlay)).runs
    run = runs["mixture2d", "phased2"]
    assert run.student.boundaries == (2, 4)  # the method's, over the overlay's
    assert runs["mixture2d", "dmd2"].student.boundaries == (3, 4)
    assert run.distill.batch == 8
    assert runs["toy1d", "full"].distill.batch == 7
    scenario = read_yaml(repository / "config" / "scenarios" / "mixture2d.yaml")
    updates = scenario["distill"]["updates"]  # the scenario's, over the defaults'
    assert run.distill.updates == updates != settings["defaults"]["distill"]["updates"]
    assert run.threads == 3
    assert run.distill.decay == settings["defaults"]["distill"]["decay"]


def test_a_method_may_have_hardware_of_its_own(checkout, settings):
    write_method(checkout, "wide", {"kind": "distill", "hardware": {"processes": 3}})
    experiment = Experiment(checkout, merge(settings, mixture(methods=["wide", "dmd2"])))
    assert experiment.runs["mixture2d", "wide"].hardware.processes == 3  # 512 is no matter
    assert experiment.runs["mixture2d", "dmd2"].hardware.processes == 1
    diff = mixture(methods=["wide"], distill={"batch": 32})
    line = refusal(checkout, merge(settings, diff))
    assert "mixture2d/wide: distill.batch: 32: expected a multiple of the 3 processes" in line


# ---- groups of seeds


def test_seeds_train_together_or_each_alone(repository, settings):
    together = Experiment(repository, merge(settings, mixture(seeds=[3, 4])))
    alone = Experiment(repository, merge(settings, mixture(seeds=[3, 4], together=False)))
    assert together.groups("mixture2d") == [[3, 4]]
    assert alone.groups("mixture2d") == [[3], [4]]
    assert together.seeds("mixture2d") == alone.seeds("mixture2d") == [3, 4]


def test_methods_are_chosen_by_kind(repository, settings):
    experiment = Experiment(repository, settings)
    assert experiment.select("mixture2d", ["teacher"]) == [
        *("teacher", "base", "teacher1", "teacher4-even")
    ]
    assert experiment.select("toy1d", ["distill", "teacher"]) == []
    assert experiment.phases("mixture2d", "phased4") == 4
    assert experiment.phases("toy1d", "full") == 1


def test_a_scenario_whose_students_train_fakes_by_adapter_may_have_a_teacher(repository, settings):
    def asked(*methods):
        fake = {"distill": {"fake": {"mode": "lora"}}}
        return merge(settings, {"overrides": {"emoji": {"methods": list(methods), **fake}}})

    found = Experiment(repository, asked("teacher-again", "dmd2-lora"))
    assert found.runs["emoji", "dmd2-lora"].distill.fake.mode == "lora"
    line = refusal(repository, asked("teacher-again", "dmd2"))  # the control: nothing to adapt
    assert "emoji/dmd2: distill.fake.mode: 'lora': expected full without student.lora" in line
