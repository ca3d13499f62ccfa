"""What an edit of the configuration touches, and the files in which jobs find theirs."""

import json
from pathlib import Path

import pytest
import yaml

from pdmd import cli
from pdmd.config.experiment import Experiment, merge, read_yaml
from pdmd.config.parts import check_digest, check_part, write_once, write_parts
from pdmd.config.paths import results_folder, seeds_name
from pdmd.config.plan import VARIABLE, keep, open_workflow, recall
from pdmd.errors import UserError
from pdmd.files.storage import fingerprint, read_json

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def settings(repository):
    return read_yaml(repository / "config" / "config.yaml")


def mixture(**diff):
    """Settings that change the 2D mixture alone."""
    return {"scenarios": ["mixture2d"], "overrides": {"mixture2d": diff}}


def write_method(checkout, name, value):
    path = checkout / "config" / "methods.yaml"
    path.write_text(path.read_text() + yaml.safe_dump({name: value}))


def parts(root, settings, scenario="mixture2d"):
    return Experiment(root, settings).parts(scenario)


def changed(root, settings, diff):
    """The configs of jobs that an overlay of the 2D mixture changes."""
    before, after = parts(root, settings), parts(root, merge(settings, mixture(**diff)))
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def jobs(names):
    return {name.rpartition("/")[2].removesuffix(".json") for name in names}


@pytest.mark.parametrize(
    ("diff", "concerned"),
    [
        ({"evaluate": {"samples": 77}}, {"sample", "decode", "features", "score"}),
        ({"evaluate": {"frontier_samples": 77}}, {"diagnostics"}),
        ({"tables": {"levels": [0.5]}}, {"table", "paper"}),
    ],
)
def test_how_samples_are_scored_changes_no_training(repository, settings, diff, concerned):
    assert jobs(changed(repository, settings, diff)) == concerned
    control = changed(repository, settings, {"distill": {"fake_lr": 0.1}})
    assert jobs(control) == {"distill"}


@pytest.mark.parametrize(
    ("diff", "concerned"),
    [
        ({"classifier": {"updates": 9}}, {"classifier"}),
        ({"save": {"log_every": 10}}, {"base", "distill"}),
        ({"bank": {"rows": 64}}, {"bank"}),
        ({"teacher": {"steps": 9}}, {"sample", "table", "paper"}),
        ({"teacher": {"shift": 2.0}}, {"sample", "table", "paper"}),
        ({"seeds": [1, 2, 3, 4, 5, 6]}, {"table", "paper"}),
        ({"fit": {"lr": 0.1}}, {"base"}),
    ],
)
def test_an_edit_concerns_only_the_jobs_that_read_it(repository, settings, diff, concerned):
    assert jobs(changed(repository, settings, diff)) == concerned


@pytest.mark.parametrize(
    "hardware", [{"nodes": 2}, {"processes": 2}, {"processes": 2, "gpus": 2, "nodes": 4}]
)
def test_other_hardware_runs_no_finished_job_again(repository, settings, hardware):
    assert changed(repository, settings, {"hardware": hardware}) == set()
    assert changed(repository, settings, {"threads": 2})  # control
    diff = merge(settings, mixture(hardware=hardware))
    run = Experiment(repository, diff).runs["mixture2d", "phased2"]
    assert vars(run.hardware) == {"nodes": 1, "processes": 1, "gpus": 0, **hardware}


def test_an_ablation_is_lines_of_yaml_and_touches_no_other_method(checkout, settings):
    before = parts(checkout, settings)
    write_method(
        checkout,
        "phased3-biased",
        {
            "kind": "distill",
            "student": {"steps": 6, "boundaries": [2, 4, 6]},
            "distill": {"target": "biased"},
        },
    )
    scenario = checkout / "config" / "scenarios" / "mixture2d.yaml"
    mine = read_yaml(scenario)
    mine["methods"].append("phased3-biased")
    scenario.write_text(yaml.safe_dump(mine))
    experiment = Experiment(checkout, settings)
    run = experiment.runs["mixture2d", "phased3-biased"]
    assert run.student.boundaries == (2, 4, 6)
    assert run.distill.target == "biased"
    assert run.distill.generator_lr == mine["distill"]["generator_lr"]
    assert experiment.phases("mixture2d", "phased3-biased") == 3
    after = experiment.parts("mixture2d")
    assert {name for name in after if name not in before} == {
        f"phased3-biased/config/{job}.json"
        for job in [
            *("bank", "distill", "sample", "decode", "features", "score"),
            *("diagnostics", "table", "paper"),
        ]
    }
    assert all(after[name] == before[name] for name in before)


def test_a_changed_method_changes_no_other_method(checkout, settings):
    before = parts(checkout, settings)
    path = checkout / "config" / "methods.yaml"
    methods = read_yaml(path)
    methods["dmd2"]["distill"] = {"fake_updates": 1}
    path.write_text(yaml.safe_dump(methods, sort_keys=False))
    after = parts(checkout, settings)
    assert {name for name in before if before[name] != after[name]} == {"dmd2/config/distill.json"}


def test_a_new_title_trains_nothing_again(repository, settings):
    assert jobs(changed(repository, settings, {"title": "Twenty-five modes"})) <= {"table", "paper"}


def test_a_jobs_config_holds_what_it_reads_and_no_more(repository, settings):
    found = parts(repository, settings)
    distill = found["phased2/config/distill.json"]
    assert distill["method"] == "phased2"
    assert distill["distill"]["target"] == "unbiased"
    assert not {"evaluate", "seeds", "classifier", "fit"} & distill.keys()
    assert "method" not in found["config/base.json"]
    assert "distill" not in found["phased2/config/bank.json"]


def overlay(tmp_path, settings, diff):
    """The arguments of `pdmd resolve` with an overlay."""
    path = tmp_path / "overlay.yaml"
    path.write_text(yaml.safe_dump({"results": str(tmp_path / "results"), **diff}))
    return ["resolve", "--root", str(REPOSITORY), "--configfile", str(path)]


def test_whether_there_is_a_bank_trains_again_where_a_later_phase_starts_from_it(
    repository, settings
):
    names = changed(repository, settings, {"bank": {"rows": 0}})
    several = {"phased2", "phased4", "phased2-biased", "phased2-disjoint"}
    assert {name.partition("/")[0] for name in names if "distill" in name} == several


def test_every_part_lies_in_a_file_named_by_its_digest(repository, settings, tmp_path):
    mine = merge(settings, {"results": str(tmp_path)})
    experiment = Experiment(repository, mine)
    for scenario, found in write_parts(experiment).items():
        assert {name: part.content for name, part in found.items()} == experiment.parts(scenario)
        for name, part in found.items():
            assert read_json(part.path) == part.content
            assert part.digest == fingerprint(part.content)
            stem = name.removesuffix(".json")
            assert part.path == tmp_path / scenario / f"{stem}.{part.digest[:12]}.json"


def test_resolve_names_the_files(settings, tmp_path, capsys):
    assert cli.main(overlay(tmp_path, settings, {})) == 0
    said = capsys.readouterr().out.splitlines()
    there = {str(path) for path in (tmp_path / "results").rglob("*.json")}
    assert set(said) == there
    assert any("phased2/config/distill." in path for path in said)


def test_another_overlay_adds_files_and_touches_none(tmp_path, settings):
    """A dry run, `--lint` or a start that is refused read the workflow beside a running one."""
    assert cli.main(overlay(tmp_path, settings, {})) == 0
    folder = tmp_path / "results"
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    dates = {path: path.stat().st_mtime_ns for path in before}
    assert cli.main(overlay(tmp_path, settings, mixture(distill={"updates": 77}))) == 0
    assert {path: path.read_bytes() for path in before} == before
    assert {path: path.stat().st_mtime_ns for path in before} == dates
    new = set(folder.rglob("*.json")) - before.keys()
    assert {path.name.partition(".")[0] for path in new} == {
        "distill",
        "paper",
    }  # control: it wrote some


def test_a_spoilt_file_is_written_anew(tmp_path):
    path, value = tmp_path / "part.json", {"a": 1}
    for text in (None, "", "{", '{"a": 2}', "[]"):
        if text is not None:
            path.write_text(text)
        write_once(path, value, fingerprint(value))
        assert json.loads(path.read_text()) == value
    date = path.stat().st_mtime_ns
    write_once(path, value, fingerprint(value))
    assert path.stat().st_mtime_ns == date  # control: a whole one is left alone


def test_a_job_refuses_settings_that_it_was_not_planned_with(tmp_path, settings, capsys):
    value = {"threads": 1, "updates": 32}
    planned = fingerprint({**value, "updates": 16})
    with pytest.raises(UserError, match="the settings that this job was planned with"):
        check_digest(value, planned, "x.json")
    check_digest(value, fingerprint(value), "x.json")  # control
    check_digest(value, None, "x.json")  # by hand nothing is planned
    path = tmp_path / "x.json"
    path.write_text(json.dumps(value))
    arguments = ["distill", "--config", str(path), "--phase", "1", "--seeds", "1"]
    assert cli.main([*arguments, "--digest", planned]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pdmd: --config: digest ")


# ---- plans


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path


def test_a_job_of_a_plan_sees_no_later_edit(checkout, settings, elsewhere):
    settings = merge(settings, mixture())
    planned, parts = open_workflow(checkout, settings, [], main=True)
    write_method(checkout, "later", {"kind": "distill"})
    scenario = checkout / "config" / "scenarios" / "mixture2d.yaml"
    scenario.write_text(scenario.read_text().replace("updates: 1350", "updates: 32"))
    edited = merge(settings, {"overrides": {"mixture2d": {"seeds": [9]}}})
    job, seen = open_workflow(checkout, edited, [], main=False)
    assert job.runs == planned.runs
    assert seen == parts
    again, _ = open_workflow(checkout, edited, [], main=True)  # control: the next plan does
    assert again.seeds("mixture2d") == [9]
    assert again.runs["mixture2d", "dmd2"].distill.updates == 32


def test_a_plan_that_is_gone_is_named(elsewhere):
    with pytest.raises(UserError, match="expected the settings that this job was planned with"):
        recall("0123")


def test_equal_plans_are_kept_once(repository, settings, tmp_path):
    experiment = Experiment(repository, settings)
    digest = keep(experiment, tmp_path)
    assert keep(experiment, tmp_path) == digest
    other = Experiment(repository, merge(settings, mixture(threads=2)))
    assert keep(other, tmp_path) != digest
    assert len(list(tmp_path.iterdir())) == 2
    assert recall(digest, tmp_path).runs == experiment.runs


def test_weights_kept_in_the_repository_are_found_from_elsewhere(repository, settings, elsewhere):
    mine = {"scenarios": ["emoji"]}
    _, parts = open_workflow(repository, merge(settings, mine), [], main=True)
    kept = parts["emoji"]["config/base.json"].content["fit"]["kept"]
    assert kept == str(repository / "config/teachers/emoji.safetensors")


def test_a_target_of_an_unknown_scenario_is_no_traceback(checkout, snakemake):
    done = snakemake(checkout, "-n", "results/foo/base/model.safetensors")
    assert done.returncode
    assert "Traceback" not in done.stdout + done.stderr
    assert "results/foo/base/model.safetensors" in done.stdout + done.stderr


def test_weights_that_a_fit_starts_from_are_read_by_its_rule(checkout, snakemake):
    (checkout / "o.yaml").write_text(
        "scenarios: [toy1d]\noverrides: {toy1d: {fit: {start_from: w.safetensors}}}\n"
    )
    done = snakemake(checkout, "-n", "--configfile", "o.yaml")
    assert "w.safetensors" in done.stdout + done.stderr
    assert done.returncode  # it is not there, and said to be missing before any job runs
    (checkout / "w.safetensors").write_text("")
    assert snakemake(checkout, "-n", "--configfile", "o.yaml").returncode == 0  # control


# ---- where results go


def test_many_seeds_that_train_together_have_a_name():
    assert seeds_name([1, 2, 3]) == "1-2-3"
    many = seeds_name(list(range(1000)), "_")
    assert len(many) < 60
    assert many.startswith("0_to_999_")
    assert many != seeds_name([*range(998), 5000, 999], "_")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("results", "results"),
        ("./x/../results/", "results"),
        ("~/results", "HOME/results"),
        ("$SCRATCH/my runs", "SCRATCH/my runs"),
        ("${SCRATCH}/é", "SCRATCH/é"),
        ('it\'s "quoted" & (odd); x', 'it\'s "quoted" & (odd); x'),
    ],
)
def test_a_results_folder_may_lie_anywhere(elsewhere, monkeypatch, text, path):
    for name in ("HOME", "SCRATCH"):
        monkeypatch.setenv(name, str(elsewhere / name))
        (elsewhere / name).mkdir()
        path = path.replace(name, str(elsewhere / name))
    assert results_folder(text) == path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$NOWHERE/x", "whose variables are set"),
        ("~nobody-of-this-name/x", "whose variables are set"),
        ("$(touch ran)", "whose variables are set"),
        ("a{b}", "without braces"),
        ("a\nb", "control characters"),
        ("a\0b", "control characters"),
        ("", "a folder's path"),
        (".", "a folder's path"),
        ("-x", "a folder's path"),
        (" x", "a folder's path"),
        ("file", "file is a file"),
        ("file/x", "file is a file"),
        ("link", "link is a link to nothing"),
        ("n" * 300, "names of at most 255"),
    ],
)
def test_a_folder_that_cannot_be_is_one_line(elsewhere, repository, settings, text, expected):
    (elsewhere / "file").write_text("")
    (elsewhere / "link").symlink_to("nowhere")
    mine = merge(settings, {**mixture(), "results": text})
    with pytest.raises(SystemExit) as caught:
        open_workflow(repository, mine, [], main=True)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 300
    assert "results: " in line or text in line
    assert expected in line
    assert not (elsewhere / "ran").exists()


def test_a_wrong_configuration_is_one_line_of_the_command_too(tmp_path, settings, capsys):
    assert cli.main(overlay(tmp_path, settings, mixture(seeds=[]))) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pdmd: config: overrides.mixture2d.seeds: []: expected")


@pytest.mark.parametrize(
    ("command", "name", "said"),
    [
        (["distill", "--phase", "1"], "dmd2/config/sample", "no key teacher.kind"),
        (["distill", "--phase", "1"], "teacher/config/sample", "kind: 'teacher': expected distill"),
        (["sample"], "config/data", "kind: None"),
        (["fit"], "dmd2/config/distill", "kind: 'distill': expected fit"),
        (["keep", "--output", "x"], "config/data", "no key flow"),
    ],
)
def test_the_settings_of_another_stage_are_refused(settings, tmp_path, capsys, command, name, said):
    mine = merge(settings, {**mixture(), "results": str(tmp_path)})
    found = write_parts(Experiment(REPOSITORY, mine))["mixture2d"]
    path = found[f"{name}.json"].path
    seeds = [] if "keep" in command else ["--seeds", "1"]
    assert cli.main([*command, "--config", str(path), *seeds]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"pdmd: --config: {said}")


@pytest.mark.parametrize("text", ["{}", "[]", "null", "{"])
def test_settings_that_are_none_are_one_line(tmp_path, capsys, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    assert cli.main(["sample", "--config", str(path), "--seeds", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pdmd: ")
    assert "expected" in line


@pytest.mark.parametrize("scenario", ["toy1d", "mixture2d", "digits", "emoji", "moving"])
def test_every_part_is_taken_for_what_it_is(repository, settings, scenario):
    """The control of the refusals."""
    for name, content in parts(repository, settings, scenario).items():
        check_part(content, Path(name).stem, name)
