"""The chain of a small Wan model by hand: every twin trains, and trains what it should."""

import copy

import pytest
import torch

from pdmd.config.experiment import Experiment, merge, read_yaml
from pdmd.config.paths import Paths
from pdmd.config.run import read_run
from pdmd.data.conditions import save_prompts
from pdmd.data.prompts import heldout, read_prompts
from pdmd.distill import PhaseTrainer
from pdmd.errors import UserError
from pdmd.files.storage import load_tensors, read_json
from pdmd.stages import fit as fitting
from pdmd.stages.bank import make_bank
from pdmd.stages.distill import distill_phase
from pdmd.stages.precompute import encode, evaluation, matching_row, render
from pdmd.stages.sample import sample_method

TINY = {
    "methods": ["teacher", "dmd2", "phased2"],
    "seeds": [1],
    "data": {"px": 20, "objects": 128, "cameras": 64, "heldout": 160},
    "model": {"width": 24, "heads": 2, "depth": 1, "feedforward": 16},
    "fit": {"updates": 2, "batch": 4, "kept": None, "start_from": None},
    "distill": {"updates": 4, "batch": 4, "fake_updates": 1},
    "bank": {"rows": 8, "shard_rows": 8},
    "save": {"log_every": 2, "checkpoint_every": 2, "snapshots": 1},
    "evaluate": {"samples": 960, "beside": "teacher"},
}


def parts_of(repository, folder, scenario, diff=None):
    """The configs of a tiny scenario's jobs."""
    settings = read_yaml(repository / "config" / "config.yaml")
    wanted = {"results": str(folder), "scenarios": [scenario]}
    wanted["overrides"] = {scenario: merge(TINY, diff or {})}
    return Experiment(repository, merge(settings, wanted)).parts(scenario)


def prepare(parts):
    """Render, encode, and embed by random rows in the place of the text encoder's."""
    render(parts["config/data.json"])
    encode(parts["config/data.json"])
    paths = Paths(read_run(parts["config/data.json"]))
    prompts = read_prompts(paths.data("prompts.json"))
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(2 + i % 3, 16, generator=generator) for i in range(len(prompts))]
    save_prompts(paths.data("prompts.safetensors"), rows, len(prompts) - 1, {})
    return paths, prompts


def train(parts, method="phased2"):
    fitting.fit_base(parts["config/base.json"])
    distill_phase(parts[f"{method}/config/distill.json"], 1, [1])
    make_bank(parts[f"{method}/config/bank.json"], 2, [1])
    distill_phase(parts[f"{method}/config/distill.json"], 2, [1])
    sample_method(parts[f"{method}/config/sample.json"], [1])


def test_evaluation_asks_in_unseen_words_and_for_free_motion_often(repository, tmp_path):
    _, prompts = prepare(parts_of(repository, tmp_path, "moving"))
    asked = evaluation(prompts)
    assert set(asked) == set(heldout(prompts))
    assert all(prompts[number].split == "heldout" for number in asked)
    free = [number for number in asked if prompts[number].kind == "free"]
    assert len(free) == 4 * len(set(free))


@pytest.mark.parametrize("scenario", ["moving", "movingi2v", "movingmoe"])
def test_every_twin_goes_through_the_chain(repository, tmp_path, scenario):
    count = 700 if scenario == "movingi2v" else 160
    parts = parts_of(repository, tmp_path, scenario, {"data": {"heldout": count}})
    paths, prompts = prepare(parts)
    train(parts)
    found = load_tensors(paths.scenario / "phased2" / "seed1" / "samples.safetensors")
    assert bool(torch.isfinite(found["x"]).all())
    assert found["condition"].ndim == (2 if scenario == "movingi2v" else 1)
    if scenario == "movingi2v":
        held = load_tensors(paths.data("pictures.safetensors"))
        for i, number in enumerate(evaluation(prompts)):
            row = matching_row(held, prompts[number], i)
            said = {k: v for k, v in prompts[number].truth.items() if v is not None}
            assert all(int(held[f"heldout_{k}"][row]) == v for k, v in said.items())


def test_too_few_heldout_clips_for_first_frames_are_refused(repository, tmp_path):
    parts = parts_of(repository, tmp_path, "movingi2v", {"data": {"heldout": 48}})
    with pytest.raises(UserError, match=r"data\.heldout: 48: expected enough clips for one of"):
        prepare(parts)


def test_the_first_phase_of_two_experts_trains_the_high_noise_one_alone(repository, tmp_path):
    parts = parts_of(repository, tmp_path, "movingmoe")
    paths, _ = prepare(parts)
    train(parts)
    base = load_tensors(paths.base("model.safetensors"))
    for phase, trained in ((1, "high."), (2, "low.")):
        file = paths.scenario / "phased2" / "seed1" / f"phase{phase}" / "expert.safetensors"
        expert = load_tensors(file)
        moved = {name for name in base if not torch.equal(base[name], expert[name])}
        assert moved
        assert all(name.startswith(trained) for name in moved)


def test_an_adapter_alone_is_trained_and_kept(repository, tmp_path):
    parts = parts_of(repository, tmp_path, "moving", {"student": {"lora": {"rank": 2, "alpha": 2}}})
    paths, _ = prepare(parts)
    train(parts)
    file = paths.scenario / "phased2" / "seed1" / "phase2" / "expert.safetensors"
    expert = load_tensors(file)
    assert all(".lora_" in name for name in expert)
    assert any(bool(value.any()) for name, value in expert.items() if "lora_B" in name)


def test_a_stopped_run_ends_in_the_same_weights(repository, tmp_path, monkeypatch):
    parts = parts_of(repository, tmp_path / "whole", "moving")
    paths, _ = prepare(parts)
    train(parts)
    again = copy.deepcopy(parts["dmd2/config/distill.json"])
    distill_phase(again, 1, [1])
    file = paths.scenario / "dmd2" / "seed1" / "phase1" / "expert.safetensors"
    undisturbed = load_tensors(file)
    file.unlink()
    calls = iter(range(100))
    real = PhaseTrainer.update

    def dies(self, step):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return real(self, step)

    monkeypatch.setattr(PhaseTrainer, "update", dies)
    with pytest.raises(KeyboardInterrupt):
        distill_phase(again, 1, [1])
    monkeypatch.setattr(PhaseTrainer, "update", real)
    distill_phase(again, 1, [1])
    assert read_json(file.with_name("metrics.json"))["restarts"] == 1
    resumed = load_tensors(file)
    assert all(torch.equal(resumed[name], undisturbed[name]) for name in undisturbed)
    base = load_tensors(paths.base("model.safetensors"))
    assert any(not torch.equal(resumed[name], base[name]) for name in base)  # control: it trained


def test_a_kept_network_is_taken_whole_and_only_by_its_recipe(repository, tmp_path):
    parts = parts_of(repository, tmp_path, "moving")
    paths, _ = prepare(parts)
    fitting.fit_base(parts["config/base.json"])
    fitted = load_tensors(paths.base("model.safetensors"))
    kept = tmp_path / "kept.safetensors"
    fitting.keep(parts["config/base.json"], kept)
    paths.base("model.safetensors").unlink()
    config = copy.deepcopy(parts["config/base.json"])
    config["fit"]["kept"] = str(kept)
    fitting.fit_base(config)
    taken = load_tensors(paths.base("model.safetensors"))
    assert all(torch.equal(taken[name], fitted[name]) for name in fitted)
    config["data"]["seed"] += 1
    with pytest.raises(UserError, match=r"kept\.safetensors: data\.seed: 1: expected 0"):
        fitting.fit_base(config)
    config["data"]["seed"] -= 1
    config["flow"] = "other"
    with pytest.raises(UserError, match=r"kept\.safetensors: flow: other: expected rectified"):
        fitting._check_recipe(kept, config, read_json(kept.with_suffix(".json"))["recipe"])
    config["flow"] = "rectified"
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="sha256"):
        fitting.fit_base(config)
