"""A plan is what a real run allocates and calculates, and what all blocks take."""

import json

import pytest
import torch
from configs import ROOT
from rehearsed import TEXT, real_trainer, settled, tiny_config
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from pdmd import cli
from pdmd.config.experiment import merge
from pdmd.files.storage import read_json
from pdmd.planning import knobs
from pdmd.planning.fake_update import count_update
from pdmd.planning.gpus import GPUS, UTILISATION, seconds, usable
from pdmd.planning.plan import Hardware, Planner, _memory
from pdmd.planning.store import OWN
from pdmd.planning.table import as_text

aten = torch.ops.aten
FULL = {"distill": {"fake": {"mode": "full"}, "fake_lr": 1.0e-4}}
PLAIN = {"distill": {"checkpointing": False, "microbatch": 2}}
ALONE = Hardware(1)
CASES = [
    ("wan21t2v", {}, 1),
    ("wan22t2v", {"model": {"offload": "none"}}, 2),  # both experts, two fakes
    ("wan22i2v", {}, 1),
    ("qwenimage", {}, 1),
    ("wan21t2v", merge(FULL, PLAIN), 1),
    ("wan22t2v", {"distill": {"rollout": "reuse"}}, 1),
]


@pytest.fixture(scope="module")
def planned():
    """(scenario, diff) -> the plan of a tiny method on one GPU, made once."""
    made = {}

    def plan(scenario, diff):
        key = json.dumps([scenario, diff])
        if key not in made:
            made[key] = Planner(tiny_config(scenario, diff), TEXT).plan(ALONE)
        return made[key]

    return plan


@pytest.mark.slow
@pytest.mark.parametrize(("scenario", "diff", "phase"), CASES)
def test_memory_is_what_torch_allocates_within_a_tenth(planned, scenario, diff, phase):
    real = settled(tiny_config(scenario, diff), phase)
    assert planned(scenario, diff).phases[phase - 1].bytes == pytest.approx(real, rel=0.1)


@pytest.mark.slow
def test_a_plan_of_another_microbatch_is_not(planned):
    """The control."""
    real = settled(tiny_config("wan21t2v"))
    wrong = planned("wan21t2v", {"distill": {"microbatch": 2}}).phases[0].bytes
    assert wrong > 1.2 * real


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["wan21t2v", "qwenimage"])
def test_operations_are_those_that_torch_counts(planned, scenario):
    """Of an update with all its fake updates and rows, by torch's own counter."""
    trainer, _ = real_trainer(tiny_config(scenario))
    attention = {
        aten._scaled_dot_product_flash_attention_for_cpu: (
            lambda q, k, v, *_, **more: sdpa_flop_count(q, k, v)
        ),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: (
            lambda grad, q, k, v, *_, **more: sdpa_backward_flop_count(grad, q, k, v)
        ),
    }
    with FlopCounterMode(display=False, custom_mapping=attention) as counter:
        trainer.update(0)
    phase = planned(scenario, {}).phases[0]
    assert sum(phase.flops.values()) == pytest.approx(counter.get_total_flops(), rel=1e-3)
    assert sum(trainer.cost.forwards.values()) == pytest.approx(phase.forwards)


@pytest.mark.slow
@pytest.mark.parametrize("diff", [{}, merge(FULL, PLAIN)], ids=["lora", "full"])
def test_all_blocks_lie_on_the_line_through_two_depths(diff):
    config = tiny_config("wan21t2v", diff)
    counted = {
        depth: count_update(config, 1, "9x32x48", 1, depth, 1, True, TEXT) for depth in (2, 3, 7)
    }
    wanted = _memory(counted[7], counted[7], (6, 7), 7, 1.0)
    found = _memory(counted[2], counted[3], (2, 3), 7, 1.0)
    assert found == (pytest.approx(wanted[0], rel=0.01, abs=2000), wanted[1])
    for name, segment in counted[7].segments.items():
        for kind, count in segment.flops.items():
            low, high = (counted[depth].segments[name].flops[kind] for depth in (2, 3))
            assert low + 5 * (high - low) == count
    # The control: without a slope, blocks beyond the third would take nothing.
    off = _memory(counted[3], counted[3], (2, 3), 7, 1.0)
    assert sum(off[0].values()) < 0.95 * sum(wanted[0].values())


@pytest.mark.slow
def test_sharding_helps_a_full_fake_more_than_adapters(planned):
    shares = []
    for diff in ({}, FULL):
        planner = Planner(tiny_config("wan21t2v", diff), TEXT)
        whole, shared = (planner.plan(Hardware(2, one)).bytes for one in (False, True))
        shares.append(shared / whole)
    assert shares[1] < shares[0] < 1.1


@pytest.mark.slow
def test_an_idle_expert_waits_elsewhere_unless_all_is_shared_out():
    plans = [
        Planner(tiny_config("wan22t2v", {"model": {"offload": how}}), TEXT)
        for how in ("idle", "none")
    ]
    one, two = (plan.plan(ALONE).phases[1].memory for plan in plans)
    assert two["base"] / 2 <= one["base"] < 0.6 * two["base"]  # rotations stay
    assert one["activations"] == two["activations"]
    shared = [plan.plan(Hardware(2, True)).phases[1].memory["base"] for plan in plans]
    assert shared[0] == pytest.approx(shared[1])


@pytest.mark.slow
def test_the_nearest_setting_that_fits_is_found_by_planning_with_it():
    """Its bytes are those of a plan of that very configuration."""
    config = tiny_config("wan21t2v", {"distill": {"microbatch": 4}})
    planner = Planner(config, TEXT)
    tight = Planner(tiny_config("wan21t2v", {"distill": {"microbatch": 1}}), TEXT).plan(ALONE)
    tried = knobs.nearest(planner, ALONE, tight.bytes)
    assert [one.changes for one in tried if one.fits] == [("distill.microbatch: 1",)]
    assert tried[0].bytes == pytest.approx(tight.bytes)
    assert not any(one.fits for one in knobs.nearest(planner, ALONE, 1.0))


def test_time_is_that_of_each_precision_at_its_own_peak():
    gpu = GPUS["h100"]
    assert seconds({"bfloat16": 989e12}, gpu, 1.0) == pytest.approx(1)
    assert seconds({"bfloat16": 989e12, "float32": 67e12}, gpu, 0.5) == pytest.approx(4)
    assert all(gpu.source for gpu in GPUS.values())
    assert 0 < UTILISATION[0] < UTILISATION[1] < 1
    assert usable(80) < 80 * 2**30


@pytest.mark.slow
def test_the_table_is_readable_on_80_columns(planned):
    plan = planned("wan21t2v", {})
    text = as_text(plan, "h100", GPUS["h100"], 80, [knobs.Tried(("--shard",), 2**30, True)])
    assert max(map(len, text.splitlines())) <= 80
    assert "activations" in text
    assert "fits" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["wan22t3v"], "scenario: 'wan22t3v': expected one of"),
        (["mixture2d"], "model.kind: 'mlp': expected a scenario of a released model"),
        (["wan22t2v", "--gpus", "0"], "--gpus: '0': expected a whole number"),
        (["wan22t2v", "--gpus", "7"], "--gpus: 7: expected a number that distill.batch"),
        (["wan22t2v", "--gpu-memory", "much"], "--gpu-memory: 'much': expected a number"),
        (["wan22t2v", "--gpu-memory", "nan"], "--gpu-memory: 'nan': expected a number"),
        (["wan22t2v", "--gpu", "abacus"], "--gpu: 'abacus': expected one of"),
        (["wan22t2v", "--method", "teacher"], "--method: 'teacher': expected one that trains"),
    ],
)
def test_a_mistake_is_one_line(arguments, said, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert cli.main(["plan", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]


@pytest.mark.slow
def test_json_has_the_tables_numbers_and_jobs_find_them(capsys, monkeypatch, tmp_path):
    (tmp_path / "config").symlink_to(ROOT / "config")
    monkeypatch.chdir(tmp_path)
    tiny = ["wan21t2v", "--configfile", "config/tiny.yaml", "--gpus", "1", "--json"]
    assert cli.main(["plan", *tiny, "--gpu-memory", "24"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["computed"] is True
    assert made["gpu"]["gib"] == 24
    assert made["fits"] is True
    assert made["bytes"] == max(sum(phase["memory"].values()) for phase in made["phases"])
    (kept,) = read_json(tmp_path / "results/tiny" / OWN).values()
    assert [one["flops"] for one in kept["phases"]] == [
        one["flops_an_update"] for one in made["phases"]
    ]
