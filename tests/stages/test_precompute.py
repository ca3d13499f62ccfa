"""The chain of a small Wan model by hand: every twin trains, and trains what it should."""

import copy
from dataclasses import replace

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
from pdmd.models.build import build, warm_start
from pdmd.phases import split_phases
from pdmd.stages import distill as distilling
from pdmd.stages import fit as fitting
from pdmd.stages import stage as stages
from pdmd.stages.bank import make_bank
from pdmd.stages.distill import distill_phase, phase_recipe, starts_of
from pdmd.stages.precompute import encode, evaluation, matching_row, render
from pdmd.stages.sample import sample_method
from pdmd.stages.stage import Stage

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


def test_new_memory_need_not_be_filled(repository, tmp_path, monkeypatch):
    """PyTorch's deterministic mode fills it with NaN; weights are the same, bit for bit."""
    parts = parts_of(repository, tmp_path, "moving", {"distill": {"updates": 20}})
    paths, _ = prepare(parts)
    fitting.fit_base(parts["config/base.json"])
    memory = torch.utils.deterministic

    def weights(fill):
        config = parts["dmd2/config/distill.json"]
        stages.prepare(config)
        assert not memory.fill_uninitialized_memory
        monkeypatch.setattr(memory, "fill_uninitialized_memory", fill)
        assert bool(torch.isnan(torch.empty(64)).all()) >= fill
        monkeypatch.setattr(distilling, "prepare", lambda config: None)
        distill_phase(config, 1, [1])
        return load_tensors(paths.scenario / "dmd2" / "seed1" / "phase1" / "expert.safetensors")

    filled, free = weights(True), weights(False)
    assert all(torch.equal(filled[name], free[name]) for name in filled)
    base = load_tensors(paths.base("model.safetensors"))
    assert any(not torch.equal(free[name], base[name]) for name in base)  # control: it trained


# ---- the twins of Wan2.2, two experts each


TWINS = {"movingmoe": "wan22t2v", "movingi2v": "wan22i2v"}


@pytest.fixture(scope="module")
def chains(repository, tmp_path_factory):
    """Scenario -> (parts, paths) of a twin that went through its chain."""
    made = {}
    for scenario in TWINS:
        diff = {"data": {"heldout": 700}}
        parts = parts_of(repository, tmp_path_factory.mktemp(scenario), scenario, diff)
        paths, _ = prepare(parts)
        train(parts)
        made[scenario] = parts, paths
    return made


def trainer_of(config, number):
    """One phase of seed 1, as `distill_phase` makes it."""
    stage = Stage(config)
    phase = stage.phase(number)
    roles, starts = stage.roles(phase, 1), starts_of(stage, phase, [1])
    return PhaseTrainer(stage.flow, phase, phase_recipe(stage.run, phase), roles, starts, [1])


def experts_of(roles):
    """Role and expert -> its weights now."""
    every = {**roles.states(), "teacher": roles.teacher.field}
    return {
        f"{name}.{side}": torch.cat(
            [p.detach().flatten() for p in getattr(role, side).parameters()]
        )
        for name, role in every.items()
        for side in ("high", "low")
    }


def moved(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def moves(trainer, updates=4):
    """What each fake update moves, and all that some updates move together."""
    real, each = trainer._update_fake, []

    def noted(*arguments):
        before = experts_of(trainer.roles)
        losses = real(*arguments)
        each.append(moved(before, experts_of(trainer.roles)))
        return losses

    trainer._update_fake = noted
    start = experts_of(trainer.roles)
    for step in range(updates):
        trainer.update(step)
    return each, moved(start, experts_of(trainer.roles))


@pytest.mark.parametrize(("twin", "released"), TWINS.items())
def test_a_twin_has_the_phases_of_its_released_model(twin, released, repository):
    settings = read_yaml(repository / "config" / "config.yaml")
    runs = []
    for name in (twin, released):
        wanted = Experiment(repository, {**settings, "scenarios": [name]}).runs_of(name)
        runs += [run for run in wanted if run.method == "phased2"]
    ours, theirs = (phases_of(run) for run in runs)
    assert ours == theirs
    assert ours != phases_of(runs[0], runs[0].student.margin / 2)  # control
    first, second = ours
    assert first.times[2] == pytest.approx(5 / 6)  # below both boundaries: the low-noise expert's
    assert first.floor == first.switch == runs[1].model.boundary
    assert (first.called, first.scored) == (("high",), ("high",))
    assert (second.called, second.scored) == (("low",), ("high", "low"))
    assert {run.distill.region for run in runs} == {"update"}


def phases_of(run, margin=None):
    student = run.student
    return split_phases(
        *(student.steps, student.ends, student.shift, student.interval),
        margin or student.margin,
        run.model.boundary,
    )


@pytest.mark.parametrize("twin", TWINS)
def test_the_first_phase_trains_the_high_noise_experts_alone(twin, chains):
    parts, _ = chains[twin]
    each, all_moved = moves(trainer_of(parts["phased2/config/distill.json"], 1))
    assert all_moved == {"fake.high", "generator.high", "average.high"}
    assert all(one == {"fake.high"} for one in each)


@pytest.mark.parametrize("twin", TWINS)
def test_the_second_phase_trains_both_fakes_one_an_update(twin, chains):
    parts, _ = chains[twin]
    config = parts["phased2/config/distill.json"]
    config = merge(config, {"distill": {"fake_updates": 3}})
    each, all_moved = moves(trainer_of(config, 2))
    assert all_moved == {"fake.high", "fake.low", "generator.low", "average.low"}
    assert all(len(one) == 1 for one in each)
    by_row, _ = moves(trainer_of(merge(config, {"distill": {"region": "row"}}), 2))
    assert {"fake.high", "fake.low"} in by_row  # control: rows have sides of their own
    disjoint = merge(config, {"student": {"interval": "disjoint"}})
    _, all_moved = moves(trainer_of(disjoint, 2))
    assert "fake.high" not in all_moved  # control: no sample is noised above the boundary


@pytest.mark.parametrize("twin", TWINS)
def test_a_phase_keeps_the_one_expert_that_it_trains(twin, chains):
    _, paths = chains[twin]
    base = load_tensors(paths.base("model.safetensors"))
    for phase, trained in ((1, "high."), (2, "low.")):
        file = paths.scenario / "phased2" / "seed1" / f"phase{phase}" / "expert.safetensors"
        expert = load_tensors(file)
        changed = moved(base, expert)
        assert changed
        assert all(name.startswith(trained) for name in changed)


@pytest.mark.parametrize("twin", TWINS)
def test_both_experts_start_from_the_text_to_video_teacher(twin, chains, repository):
    """The kept teacher's own weights; a first frame's channels start at zero."""
    parts, _ = chains[twin]
    config = parts["config/base.json"]
    scenario = read_yaml(repository / "config" / "scenarios" / f"{twin}.yaml")
    run, kept = read_run(merge(config, {"model": scenario["model"]})), scenario["fit"]["start_from"]
    text_width = load_tensors(repository / kept)[
        "net.condition_embedder.text_embedder.linear_1.weight"
    ]
    space = replace(Stage(config).space, text_width=text_width.shape[1])
    model, state = build(run.model, space, 1, 0), load_tensors(repository / kept)
    assert not torch.equal(model.high.net.proj_out.weight, state["net.proj_out.weight"])  # control
    warm_start(model, state, kept)
    channels = state["net.patch_embedding.weight"].shape[1]
    for expert in (model.high, model.low):
        mine = expert.state_dict()
        inner = mine.pop("net.patch_embedding.weight")
        assert inner.shape[1] == channels + (28 if twin == "movingi2v" else 0)  # a mask of 4, 24
        assert torch.equal(inner[:, :channels], state["net.patch_embedding.weight"])
        assert not inner[:, channels:].any()
        assert all(torch.equal(mine[name], state[name]) for name in mine)
