"""Released models from fetch to export, on tiny random ones: `make tiny`, and what it leaves."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from pdmd import cli
from pdmd.config.run import read_run
from pdmd.files.storage import load_tensors
from pdmd.models.original_keys import PREFIX
from pdmd.report.board import write_board
from pdmd.scenarios.kind import kinds
from pdmd.stages.distill import distill_phase

pytestmark = [pytest.mark.slow, pytest.mark.long]

# Two of them train and draw in two processes, one with pictures.
SHARED = ("wan22t2v", "wan22i2v")
TWO = "overrides: {wan22t2v: &two {hardware: {processes: 2}}, wan22i2v: *two}\n"
TINY = ("--configfile", "config/tiny.yaml", "two.yaml")
STUDENTS = {
    "qwenimage": ("dmd2", "phased2"),
    "wan21t2v": ("phased2",),
    "wan22t2v": ("dmd2", "phased2", "phased4"),
    "wan22i2v": ("phased2",),
}
FILES = {  # of two phases' adapters, as they are named
    "qwenimage": ["phase1", "phase2"],
    "wan21t2v": ["phase1", "phase2"],
    "wan22t2v": ["high_noise_model", "low_noise_model"],
    "wan22i2v": ["high_noise_model", "low_noise_model"],
}


def copied(folder, repository):
    for name in ("rules", "pdmd", "config", "envs", "workflow"):
        leave = shutil.ignore_patterns("__pycache__")
        shutil.copytree(repository / name, folder / name, ignore=leave)
    shutil.copy(repository / "Snakefile", folder)
    (folder / "two.yaml").write_text(TWO)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory, repository, snakemake):
    folder = copied(tmp_path_factory.mktemp("tiny") / "checkout", repository)
    done = snakemake(folder, "-c2", *TINY)
    if done.returncode:
        pytest.fail((done.stdout + done.stderr)[-3000:], pytrace=False)
    return folder


@pytest.fixture
def inside(finished, monkeypatch):
    """The working directory of the chain; returns its results, by relative paths."""
    monkeypatch.chdir(finished)
    return Path("results/tiny")


def config_of(results, scenario, method, part):
    (path,) = (results / scenario / method / "config").glob(f"{part}.*.json")
    return json.loads(path.read_text())


def test_every_table_figure_and_export_exists(inside):
    kind = kinds()["prompts"]
    for scenario, students in STUDENTS.items():
        names = [f"tables/{name}.csv" for name in kind.tables]
        names += [f"figures/{name}.png" for name in kind.figures]
        names += [f"{one}/seed1/export/sampling.json" for one in students]
        for name in names:
            assert (inside / scenario / name).stat().st_size > 0, f"{scenario}/{name}"
        files = [
            f"{inside}/{scenario}/phased2/seed1/export/{f}.safetensors" for f in FILES[scenario]
        ]
        assert all(Path(file).is_file() for file in files)


def test_a_second_run_has_nothing_to_do(finished, snakemake):
    done = snakemake(finished, "-n", *TINY)
    assert "Nothing to be done" in done.stdout + done.stderr


def test_students_left_the_teacher_and_differ(inside):
    for scenario in ("qwenimage", "wan22t2v"):
        one, other = (
            load_tensors(inside / scenario / method / "seed1/samples.safetensors")["x"]
            for method in ("dmd2", "phased2")
        )
        assert (one - other).abs().max() > 1e-3


def test_wan_22s_phases_train_one_expert_each(inside):
    for scenario in ("wan22t2v", "wan22i2v"):
        for number, side in ((1, "high."), (2, "low.")):
            path = inside / scenario / f"phased2/seed1/phase{number}/expert.safetensors"
            assert {name[: len(side)] for name in load_tensors(path)} == {side}


def test_four_phases_are_two_of_each_expert(inside):
    """Kept in the order in which a sampler comes to them."""
    folder = inside / "wan22t2v/phased4/seed1"
    files = ["high_noise_model_phase1", "high_noise_model_phase2"]
    files += ["low_noise_model_phase3", "low_noise_model_phase4"]
    for number, name in enumerate(files, start=1):
        (side,) = {
            key.split(".")[0] for key in load_tensors(folder / f"phase{number}/expert.safetensors")
        }
        assert name.startswith(side)
        for where in ("", "comfyui/"):
            assert (folder / f"export/{where}{name}.safetensors").is_file()
    sampling = json.loads((folder / "export/sampling.json").read_text())
    starts = [one["from_sigma"] for one in sampling["adapters"]]
    assert starts == sampling["sigmas"]


def test_exported_tensors_are_the_experts(inside):
    folder = inside / "wan22t2v/phased2/seed1"
    trained = load_tensors(folder / "phase2/expert.safetensors")
    for name, ours in (("", "transformer."), ("comfyui/", PREFIX)):
        state = load_tensors(folder / f"export/{name}low_noise_model.safetensors")
        key = (
            "blocks.0.attn1.to_q.lora_A.weight"
            if not name
            else "blocks.0.self_attn.q.lora_down.weight"
        )
        wanted = trained["low.net.blocks.0.attn1.to_q.lora_A.default.weight"]
        assert torch.equal(state[ours + key], wanted)


@pytest.mark.parametrize("scenario", SHARED)
def test_two_processes_train_what_one_trains(inside, tmp_path, scenario):
    """A phase again in this process alone, beside the two processes' result."""
    config = config_of(inside, scenario, "phased2", "distill")
    two = load_tensors(inside / scenario / "phased2/seed1/phase1/expert.safetensors")
    mine = tmp_path / "results"
    for name in ("data", "base"):
        shutil.copytree(inside / scenario / name, mine / scenario / name)
    alone = {**config, "results": str(mine)}
    distill_phase(alone, 1, [1])
    one = load_tensors(mine / scenario / "phased2/seed1/phase1/expert.safetensors")
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], rtol=1e-3, atol=2e-5)
    distill_phase({**alone, "results": str(mine)}, 1, [2])  # control: another seed
    other = load_tensors(mine / scenario / "phased2/seed2/phase1/expert.safetensors")
    assert any((tensor - one[name]).abs().max() > 1e-3 for name, tensor in other.items())


def test_a_sample_is_drawn_from_an_export(inside, tmp_path, capsys):
    picture = tmp_path / "x.png"
    folder = inside / "qwenimage/phased2/seed1/export"
    base = ["--base", str(inside / "models/qwen-image"), "--prompt", "a fox"]
    assert not cli.main(["sample", "--from", str(folder), *base, "--output", str(picture)])
    assert "x.png: 1x32x48, 4 steps, seed 0" in capsys.readouterr().out
    assert picture.stat().st_size > 100
    wrong = ["sample", "--from", str(folder), *base, "--output", str(tmp_path / "x.mp4")]
    assert cli.main(wrong) == 2
    assert "--output" in capsys.readouterr().err
    assert cli.main(["sample", "--from", str(tmp_path), *base, "--output", str(picture)]) == 2
    assert "no sampling.json" in capsys.readouterr().err


def test_a_shard_that_is_cut_later_is_told_by_the_job_that_needs_it(inside, monkeypatch):
    """What was checked once is looked at again by its size, and not hashed."""
    from pdmd.errors import UserError
    from pdmd.models.source import check_manifest

    manifest = inside / "wan21t2v/base/manifest.json"
    check_manifest(manifest)  # control
    shard = next((inside / "models/wan2.1-t2v-14b/transformer").glob("*.safetensors"))
    whole = shard.read_bytes()
    try:
        shard.write_bytes(whole[:-8])
        with pytest.raises(UserError, match=re.escape(f"{shard.name}: bytes: ")):
            check_manifest(manifest)
    finally:
        shard.write_bytes(whole)


def test_tensorboard_has_every_phase_and_its_pictures(inside, tmp_path):
    of_method = {"dmd2": 1, "phased2": 2, "phased4": 4}
    phases = sum(of_method[method] for each in STUDENTS.values() for method in each)
    assert write_board(inside, tmp_path / "board") == phases
    assert list((tmp_path / "board/wan22t2v/phased2/seed1/phase2").glob("events.*"))


def test_each_job_reads_its_typed_settings_alone(inside):
    run = read_run(config_of(inside, "wan22t2v", "phased2", "distill"))
    assert not hasattr(run, "evaluate")
    assert run.distill.fake.mode == "lora"


def test_a_full_fake_trains_beside_adapters(inside, tmp_path):
    """The paper's: a second network in float32; of Wan2.2's phase 1 one expert of it alone."""
    scenario = "wan22t2v"
    config = config_of(inside, scenario, "phased2", "distill")
    mine = tmp_path / "results"
    for name in ("data", "base"):
        shutil.copytree(inside / scenario / name, mine / scenario / name)
    distill = {**config["distill"], "fake": {"mode": "full"}}
    distill_phase({**config, "results": str(mine), "distill": distill}, 1, [1])
    full = load_tensors(mine / scenario / "phased2/seed1/phase1/expert.safetensors")
    lora = load_tensors(inside / scenario / "phased2/seed1/phase1/expert.safetensors")
    assert full.keys() == lora.keys()  # what is kept is the generator's adapter
    assert any((full[name] - lora[name]).abs().max() > 1e-4 for name in full)  # another fake


def test_training_loads_neither_text_encoder_nor_vae(inside, tmp_path):
    """A trainer's folder may lack both."""
    scenario = "wan21t2v"
    config = config_of(inside, scenario, "phased2", "distill")
    mine = tmp_path / "results"
    for name in ("data", "base"):
        shutil.copytree(inside / scenario / name, mine / scenario / name)
    bare = tmp_path / "model"
    shutil.copytree(inside / "models/wan2.1-t2v-14b", bare)
    for name in ("text_encoder", "vae", "tokenizer"):
        shutil.rmtree(bare / name)
    path = mine / scenario / "base/manifest.json"
    manifest = json.loads(path.read_text())
    kept = {n: one for n, one in manifest["files"].items() if n.split("/")[0] == "transformer"}
    path.write_text(json.dumps({**manifest, "folder": str(bare), "files": kept}))
    distill_phase({**config, "results": str(mine)}, 1, [1])
    assert (mine / scenario / "phased2/seed1/phase1/expert.safetensors").is_file()


def test_a_scenario_goes_to_its_export_through_the_executor(tmp_path, repository, snakemake):
    """Every job submitted to this machine, from fetch on: first frames, both phases, scores."""
    folder = copied(tmp_path / "checkout", repository)
    target = "results/tiny/wan22i2v/phased2/seed1/export"
    options = ("--executor", "submitit", "--submitit-cluster", "local", "--submitit-poll", "0.5")
    done = snakemake(folder, target, "--jobs", "3", *options, *TINY[:2])
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    export = folder / target
    names = {f"{one}.safetensors" for one in FILES["wan22i2v"]}
    assert names == {path.name for path in export.glob("*.safetensors")}
    assert names == {path.name for path in (export / "comfyui").iterdir()}
    scores = json.loads((export.parent / "metrics.json").read_text())
    assert f"{scores['clip']:.4g}" in (export / "README.md").read_text()
