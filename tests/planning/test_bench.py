"""`pdmd bench` runs the real trainer, on a CPU at a tiny size."""

import json
import time
from dataclasses import replace

import pytest
import torch
from benches import LARGER, MODELS, command
from configs import ROOT
from rehearsed import TEXT, tiny_config

from pdmd import cli
from pdmd.config.run import read_run
from pdmd.models.blank import blank_velocity
from pdmd.models.families import FAMILIES, load_velocity
from pdmd.models.source import architecture_of
from pdmd.models.tiny import tiny_architecture, write_tiny
from pdmd.planning.bench import Exclusive, bench
from pdmd.planning.command import method_config


@pytest.mark.slow
def test_a_tiny_bench_says_what_the_plan_says(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    command = ["bench", "wan21t2v", "--random-init", "--tiny", "--updates", "1"]
    assert cli.main([*command, "--rows", "4", "--text-rows", str(TEXT)]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["bytes"] == pytest.approx(made["plan"]["bytes"], rel=0.1)
    assert set(made["seconds_by_role"]) == {"rollout", "fake", "teacher", "generator", "optimizer"}
    total = sum(made["seconds_by_role"].values())
    assert 0.5 * made["seconds"][0] < total <= made["seconds"][0]
    assert made["tokens_a_second"] == pytest.approx(4 * 3 * 2 * 3 / made["seconds"][0])
    assert 0 < made["utilisation"] < 1


@pytest.mark.slow
def test_a_plan_of_fewer_rows_at_a_time_is_told_apart(monkeypatch):
    """The control: what is measured is not what another microbatch is planned to take."""
    monkeypatch.chdir(ROOT)
    config = tiny_config("wan21t2v", {"distill": {"microbatch": 4}})
    made = bench(config, 1, "9x32x48", "cpu", 4, 1, 2, TEXT)
    other = bench(tiny_config("wan21t2v"), 1, "9x32x48", "cpu", 4, 1, 2, TEXT)
    assert made["bytes"] > 1.2 * other["plan"]["bytes"]


def test_a_second_counts_once_for_the_inner_of_two_roles():
    cost = Exclusive(torch.device("cpu"))
    with cost.time("outer"):
        time.sleep(0.02)
        with cost.time("inner"):
            time.sleep(0.2)
    assert cost.seconds["inner"] >= 0.2
    assert 0.02 <= cost.seconds["outer"] < 0.15


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--random-init: absent"),
        (["--random-init", "--tiny", "--size", "1x1x1"], "--size: '1x1x1': expected one of"),
        (["--random-init", "--tiny", "--phase", "3"], "--phase: 3: expected 1 to 2"),
        (["--random-init", "--tiny", "--updates", "none"], "--updates: 'none': expected a whole"),
    ],
)
def test_a_mistake_is_one_line(arguments, said, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert cli.main(["bench", "wan22t2v", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]


@pytest.mark.parametrize("name", {**MODELS, **LARGER})
def test_a_command_for_a_gpu_is_one_that_pdmd_takes(name):
    given = cli.parser().parse_args(command(name)[2:])
    files = [ROOT / path for path in given.configfile]
    config = method_config(ROOT, given.scenario, given.method, files, "bench")
    assert given.random_init
    assert given.size is None or given.size in config["data"]["sizes"]


@pytest.mark.parametrize("name", ["qwen-image", "wan2.2-i2v-a14b"])
def test_random_weights_have_the_shapes_and_precisions_of_loaded_ones(name, tmp_path):
    family = FAMILIES[name]
    write_tiny(name, tmp_path / "model")
    loaded = load_velocity(tmp_path / "model", family, torch.bfloat16)
    made = blank_velocity(family, tiny_architecture(family), torch.bfloat16)
    kinds = [
        {key: (tuple(p.shape), p.dtype) for key, p in one.named_parameters()}
        for one in (loaded, made)
    ]
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_familys_architecture_has_as_many_weights_as_it_says(name):
    family = FAMILIES[name]
    with torch.device("meta"):
        network = blank_velocity(family, family.architecture, torch.float32, "meta", None, ("low",))
    count = sum(p.numel() for p in network.parameters())
    assert count == pytest.approx(family.parameters * 1e9, rel=0.002)


def test_a_folders_own_architecture_comes_before_the_released_one(tmp_path):
    spec = replace(read_run(tiny_config("wan21t2v")).model, source=str(tmp_path))
    assert architecture_of(spec, "results/tiny")["num_layers"] == 40
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer/config.json").write_text(json.dumps({"num_layers": 7}))
    assert architecture_of(spec, "results/tiny")["num_layers"] == 7
