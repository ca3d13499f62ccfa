import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from pdmd import cli
from pdmd.config.experiment import Experiment, merge, read_yaml
from pdmd.files.digests import RECORDS
from pdmd.files.storage import load_metadata, load_tensors, read_json, sha256
from pdmd.scenarios.kind import kinds
from pdmd.stages.distill import distill_phase

pytestmark = pytest.mark.slow

MINUTE = ("--configfile", "config/minute.yaml")
PHASE = ("expert.safetensors", "metrics.json", "stats.jsonl", "provenance.json", "config.json")


def run(snakemake, folder, *arguments):
    """Run the chain to its end; returns the rules that it ran.

    Four jobs at a time: beside other tests, which would wait for it, two would get one core.
    """
    done = snakemake(folder, "-c4", *arguments)
    if done.returncode:  # not an assert: its explanation would show all output for every test
        pytest.fail((done.stdout + done.stderr)[-3000:], pytrace=False)
    return rules_in(done)


def rules_in(done):
    """The rules that a run reports."""
    return set(re.findall(r"^ *(?:local)?rule (\w+):", done.stdout + done.stderr, re.MULTILINE))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, repository, snakemake):
    """A copy of the repository in which the whole chain has run once."""
    folder = tmp_path_factory.mktemp("minute") / "checkout"
    for name in ("rules", "pdmd", "config", "envs", "workflow"):
        leave = shutil.ignore_patterns("__pycache__")
        shutil.copytree(repository / name, folder / name, ignore=leave)
    shutil.copy(repository / "Snakefile", folder)
    shutil.copy(Path(__file__).with_name("watch.py"), folder / "sitecustomize.py")
    run(snakemake, folder, *MINUTE)
    return folder


@pytest.fixture(scope="module")
def experiment(finished):
    """What the chain was asked for."""
    settings = read_yaml(finished / "config" / "config.yaml")
    return Experiment(finished, merge(settings, read_yaml(finished / "config" / "minute.yaml")))


@pytest.fixture(scope="module")
def results(finished):
    return finished / "results" / "minute"


def planned(done):
    """The rules that a dry run would run."""
    assert done.returncode == 0, done.stdout + done.stderr
    return rules_in(done)


def test_every_table_and_figure_exists(results, experiment):
    for scenario in experiment.scenarios:
        kind = experiment.scenario(scenario)["data"]["kind"]
        wanted = {f"tables/{n}.{e}" for n in kinds()[kind].tables for e in ("csv", "md", "tex")}
        wanted |= {f"figures/{n}.{e}" for n in kinds()[kind].figures for e in ("png", "pdf")}
        for name in wanted:
            assert (results / scenario / name).stat().st_size > 0, f"{scenario}/{name}"


def phases(results, experiment):
    """Every trained phase: (folder, scenario, method, seed, number)."""
    for (scenario, method), run in experiment.runs.items():
        if run.kind == "teacher":
            continue
        for seed in experiment.seeds(scenario):
            for number in range(1, experiment.phases(scenario, method) + 1):
                folder = results / scenario / method / f"seed{seed}" / f"phase{number}"
                yield folder, scenario, method, seed, number


def test_every_phase_has_its_files(results, experiment):
    found = list(phases(results, experiment))
    assert len(found) == 21
    for folder, scenario, method, seed, number in found:
        for name in PHASE:
            assert (folder / name).stat().st_size > 0, folder / name
        metadata = load_metadata(folder / "expert.safetensors")
        wanted = {"scenario": scenario, "method": method, "seed": str(seed), "phase": str(number)}
        assert metadata == wanted


def test_every_seed_has_its_scores(results, experiment):
    for scenario, method in experiment.runs:
        for seed in experiment.seeds(scenario):
            folder = results / scenario / method / f"seed{seed}"
            assert read_json(folder / "metrics.json")
            assert (folder / "samples.safetensors").stat().st_size > 0


def test_a_teachers_evaluation_keeps_the_features_that_students_are_compared_by(results):
    found = {
        method: load_tensors(results / "emoji" / method / "seed1" / "features.safetensors")
        for method in ("teacher", "phased2")
    }
    held = {name for name in found["teacher"] if name.startswith("real_")}
    assert held == {"real_features"}
    assert found["phased2"].keys() == found["teacher"].keys() - held


def test_provenance_says_what_made_a_file(results, finished, experiment):
    for folder, scenario, method, seed, number in phases(results, experiment):
        found = read_json(folder / "provenance.json")
        assert {"commit", "dirty", "python", "packages", "seeds", "inputs_sha256"} <= found.keys()
        assert found["packages"]["torch"]
        assert found["seeds"] == [seed]
        assert found["config"] == read_json(folder / "config.json")
        assert found["config"]["method"] == method
        for name, digest in found["inputs_sha256"].items():
            assert sha256(finished / name) == digest, f"{folder}: {name}"
        if experiment.runs[scenario, method].kind == "distill":
            assert any(name.endswith("base/model.safetensors") for name in found["inputs_sha256"])
            experts = [name for name in found["inputs_sha256"] if f"seed{seed}/phase" in name]
            assert bool(experts) == (number > 1)


def declared(finished, snakemake):
    """Command of a job -> what its rule declares, (inputs, outputs)."""
    done = snakemake(finished, "--detailed-summary", *MINUTE)
    rows = list(csv.DictReader(done.stdout.splitlines(), delimiter="\t"))
    found = {}
    for row in rows:
        inputs, outputs = found.setdefault(tuple(shlex.split(row["shellcmd"])), (set(), set()))
        inputs.update(filter(None, row["input-file(s)"].split(",")))
        outputs.add(row["output_file"])
    return found


def undeclared(paths, known):
    """Files below the results folder that are neither known nor in a folder that is."""
    state = "results/minute/.state/"
    mine = {path for path in paths if path.startswith("results/") and not path.startswith(state)}
    return {p for p in mine - known if not any(p.startswith(f"{one}/") for one in known)}


def test_jobs_read_and_write_what_their_rules_declare(finished, snakemake):
    watched = [json.loads(p.read_text()) for p in (finished / "watched").glob("*.json")]
    rules, seen = declared(finished, snakemake), set()
    for process in watched:
        command = tuple(process["command"])
        if command not in rules:
            continue  # the report, or a worker
        seen.add(command)
        inputs, outputs = rules[command]
        written = set(process["written"])
        assert undeclared(written, outputs) == set(), command
        assert outputs - written <= {p for p in outputs if p.endswith("/bank")}, command
        beside = {str(Path(p).with_name(name)) for p in inputs for name in RECORDS}
        assert undeclared(set(process["read"]), inputs | outputs | beside) == set(), command
    assert seen == rules.keys()  # control: every job was watched
    everything = {path for process in watched for path in process["read"]}
    assert undeclared(everything, set())  # control: and seen to read


LOST = [  # what is deleted at a time -> what makes it again
    {
        "mixture2d/dmd2/seed1/frontier.csv": "frontier_mixture2d",
        "emoji/phased2/seed1/experts.csv": "swaps",
        "toy1d/full/seed2/metrics.json": "trajectories_toy1d",
        "mixture2d/figures/provenance.json": "figures_mixture2d",
    },
    {
        "mixture2d/dmd2/seed2/exits.csv": "exits_mixture2d",
        "mixture2d/phased2/seed1/boundary.json": "boundary_mixture2d",
        "emoji/teacher/seed1/evaluation.json": "score_strata",
        "mixture2d/tables/modes.tex": "tables_mixture2d",
    },
]


@pytest.mark.parametrize("lost", LOST)
def test_a_file_that_is_deleted_is_made_again(finished, results, snakemake, lost):
    """By itself: of all that is made of samples, what was lost and nothing else."""
    moved = {results / name: results / f"{name}.kept" for name in lost}
    for path, kept in moved.items():
        path.rename(kept)  # its date stays
    try:
        plan = planned(snakemake(finished, "-n", *MINUTE))
    finally:
        for path, kept in moved.items():
            kept.rename(path)
    assert set(lost.values()) <= plan
    drawn = {rule for rule in plan if rule.startswith(("tables", "figures", "paper"))}
    assert plan - drawn - {"all"} <= set(lost.values())
    assert planned(snakemake(finished, "-n", *MINUTE)) == set()  # control


@pytest.mark.parametrize(
    "name", ["dmd2/seed1/frontier.csv", "dmd2/seed1/exits.csv", "phased2/seed2/phase1/metrics.json"]
)
def test_half_a_file_is_no_row_of_a_table(finished, results, monkeypatch, capsys, name):
    monkeypatch.chdir(finished)
    parts = sorted((results / "mixture2d").glob("*/config/table.*.json"))
    arguments = ["tables", "--configs", *map(str, parts)]
    assert cli.main(arguments) == 0  # control
    path = results / "mixture2d" / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    try:
        assert cli.main(arguments) == 2
    finally:
        path.write_bytes(whole)
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("pdmd: ")]
    assert str(path.relative_to(finished)) in line


def test_code_that_draws_is_an_input_of_what_it_draws(finished, snakemake):
    """A changed table is made again, and nothing is trained or scored for it."""
    path = finished / "pdmd" / "report" / "tables.py"
    text = path.read_text()
    path.write_text(text.replace("Mean and 95% interval", "Means and 95% intervals"))
    try:
        plan = planned(snakemake(finished, "-n", *MINUTE))
    finally:
        path.write_text(text)
    assert stages(plan) == {"tables", "figures", "paper"}  # which import what tables know
    assert planned(snakemake(finished, "-n", *MINUTE)) == set()


def test_costs_and_restarts_are_on_record(results, experiment):
    for folder, *_ in phases(results, experiment):
        found = read_json(folder / "metrics.json")
        assert found["restarts"] == 0
        assert found["seconds"] > 0
        assert sum(found["forward_equivalents_by_role"].values()) > 0


def test_no_state_of_a_finished_job_is_left(results):
    left = [path for path in (results / ".state").rglob("*") if "seed" in path.name]
    assert left == []


def test_a_second_run_has_nothing_to_do(finished, snakemake):
    done = snakemake(finished, "-n", *MINUTE)
    assert planned(done) == set()
    assert "Nothing to be done" in done.stdout + done.stderr


def overlay(finished, name, diff):
    """A copy of minute.yaml with a further diff for the 2D mixture."""
    settings = read_yaml(finished / "config" / "minute.yaml")
    wanted = merge(settings, {"overrides": {"mixture2d": diff}})
    path = finished / "config" / name
    path.write_text(yaml.safe_dump(wanted))
    return "--configfile", f"config/{name}"


def stages(rules):
    return {rule.split("_")[0] for rule in rules} - {"all"}


def weights(results):
    return {path: path.stat().st_mtime_ns for path in results.rglob("expert.safetensors")}


def test_what_is_half_done_can_be_planned(finished, results, snakemake, tmp_path):
    """Jobs of several kinds then stand side by side in one group, where texts must be equal."""
    emoji = results / "emoji"
    made = ("samples.safetensors", "decoded.safetensors", "features.safetensors", "metrics.json")
    lost = [emoji / "teacher-again/seed1/features.safetensors"]
    lost += [emoji / "dmd2/seed1" / name for name in made]
    kept = [shutil.move(path, tmp_path / str(place)) for place, path in enumerate(lost)]
    try:
        done = snakemake(finished, "-n", "-c2", *MINUTE)
        assert {"sample", "decode", "features", "score_strata"} <= planned(done)
    finally:
        for path, copy in zip(lost, kept, strict=True):
            shutil.move(copy, path)


def test_another_number_of_samples_trains_nothing_again(finished, results, snakemake):
    before = weights(results)
    arguments = overlay(finished, "samples.yaml", {"evaluate": {"samples": 1100}})
    plan = planned(snakemake(finished, "-n", *arguments))
    assert stages(plan) == {"sample", "score", "tables", "figures", "paper"}
    others = plan - {"all", "paper_toy"}
    assert all(rule.endswith("_mixture2d") for rule in others)  # no other scenario's
    assert run(snakemake, finished, *arguments) == plan
    assert weights(results) == before
    assert planned(snakemake(finished, "-n", *arguments)) == set()


@pytest.mark.parametrize(("stage", "file"), [("decode", "decoded"), ("features", "features")])
def test_what_several_processes_make_is_what_one_makes(finished, results, tmp_path, stage, file):
    config = {**read_json(next((results / "emoji/dmd2/config").glob(f"{stage}.*.json")))}
    shutil.copytree(results / "emoji", tmp_path / "emoji")
    for name in ("clip", "weights.json"):
        (tmp_path / name).symlink_to(results / name)
    path = tmp_path / f"emoji/dmd2/seed1/{file}.safetensors"
    alone = load_tensors(path)
    path.unlink()
    (tmp_path / "job.json").write_text(json.dumps({**config, "results": str(tmp_path)}))
    arguments = ["--config", str(tmp_path / "job.json"), "--seeds", "1"]
    assert cli.main(["launch", "--processes", "2", "--", stage, *arguments]) == 0
    shared = load_tensors(path)
    assert shared.keys() == alone.keys()
    for name, wanted in alone.items():
        norm = wanted.float().norm()
        assert (shared[name] - wanted).float().norm() <= 1e-5 * norm, name
        assert (shared[name].roll(1, 0) - wanted).float().norm() > 1e-3 * norm, name  # control


def test_another_learning_rate_trains_again(finished, snakemake):
    """The control: the same kind of edit, to what training reads."""
    arguments = overlay(finished, "rate.yaml", {"distill": {"fake_lr": 0.01}})
    assert "distill" in stages(planned(snakemake(finished, "-n", *arguments)))


def test_a_phase_run_by_hand_ends_in_the_same_weights(finished, results, tmp_path):
    """From the config that lies beside the result, whatever the workflow was asked for since."""
    import torch

    part = read_json(results / "mixture2d/dmd2/seed1/phase1/config.json")
    shutil.copytree(results / "mixture2d/base", tmp_path / "mixture2d/base")
    distill_phase({**part, "results": str(tmp_path)}, 1, [1, 2])
    for seed in (1, 2):
        name = f"mixture2d/dmd2/seed{seed}/phase1"
        mine, its = (load_tensors(f / name / "expert.safetensors") for f in (tmp_path, results))
        assert all(torch.equal(mine[key], its[key]) for key in its)
        steps = [json.loads(line)["step"] for line in (results / name / "stats.jsonl").open()]
        assert steps == [4, 8, 12, 16]
