"""Weights of samples by their band of noise levels, from the gaps of teacher and fake."""

import shutil
from pathlib import Path

import pytest
import torch
from configs import accepted, own, refused, saving

from pdmd import cli
from pdmd.balance import BANDS, Balancer, number_strata, weights_of
from pdmd.config.sections import Average, Balance, Fake, Model
from pdmd.data.conditions import Prompts
from pdmd.distill import PhaseTrainer, Recipe
from pdmd.files.storage import read_json, write_json
from pdmd.flow import RECTIFIED
from pdmd.models.base import Prompted, Space, take
from pdmd.models.build import build, load_stacked, unstack_state
from pdmd.models.mixture import GaussianMixture
from pdmd.phases import split_phases
from pdmd.report.board import scalars
from pdmd.roles import Roles
from pdmd.stages.outputs import training_reads
from pdmd.starts import NoiseStarts
from pdmd.streams import Stream
from pdmd.training import loop
from pdmd.training.checkpoint import Checkpoints, state_tensors

ADAPTIVE = Balance(law="adaptive")
TEACHER = GaussianMixture(torch.tensor([[0.8]]), torch.ones(1), 0.5)
MODEL = Model(kind="mlp", width=16, depth=2)


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


# ---- the law


def test_a_band_weighs_less_the_larger_its_gap_is():
    gaps, rows = doubles(1, 2, 4, 3), doubles(5, 5, 5, 5)
    weights = weights_of(gaps, rows, 0.5)
    assert torch.equal(weights.argsort(), gaps.argsort(descending=True))
    raw = torch.sigmoid((2.5 - gaps) / (0.5 * 2.5))
    torch.testing.assert_close(weights, raw / raw.mean())
    other = weights_of(gaps.flip(0), rows, 0.5)  # control: gaps of other bands
    torch.testing.assert_close(other, weights.flip(0))
    assert not torch.allclose(other, weights, atol=0.1)
    torch.testing.assert_close(
        weights_of(gaps, rows, 1e3), torch.ones(4).double(), atol=1e-3, rtol=0
    )


def test_the_mean_weight_of_all_samples_is_one():
    gaps, rows = doubles(1, 2, 4, 3), doubles(1, 70, 5, 24)
    weights = weights_of(gaps, rows, 0.5)
    assert float((weights * rows).sum()) == pytest.approx(100)
    assert float(weights.mean()) != pytest.approx(1, abs=0.02)  # control: of bands it is not


def test_units_of_the_gap_do_not_matter():
    rows = doubles(5, 5, 5)
    torch.testing.assert_close(
        weights_of(doubles(1, 2, 3), rows, 0.5), weights_of(doubles(10, 20, 30), rows, 0.5)
    )
    assert torch.isfinite(weights_of(doubles(0, 0, 0), rows, 0.5)).all()


def test_weights_start_when_half_of_the_bands_have_a_gap():
    gaps = doubles(1, 5, 0, 0, 0)
    assert torch.equal(weights_of(gaps, doubles(3, 3, 0, 0, 0), 0.5), torch.ones(5).double())
    started = weights_of(doubles(1, 5, 3, 0, 0), doubles(3, 3, 3, 0, 0), 0.5)  # control
    assert started[0] > 1 > started[1]
    assert torch.equal(started[3:], torch.ones(2).double())


@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_bands_are_of_the_raw_time_and_of_the_phases_range(shift):
    first, last = split_phases(4, (2, 4), shift, "nested", 0.02)
    balancer = Balancer(ADAPTIVE, last, 1)
    uniform = Stream([0], 0, "test").uniform(4000)
    t = last.renoise_times(uniform)
    balancer(torch.zeros(4000, 2), torch.zeros(4000, 2), t)
    shares = balancer.counts[0] / 4000
    assert len(balancer.bands) == len(shares) == BANDS
    raw = last.raw_low + (last.raw_high - last.raw_low) * uniform
    torch.testing.assert_close(last.raw_times(t), raw, atol=1e-5, rtol=0)
    wanted = torch.histc(raw, BANDS, 0, 1) / 4000
    torch.testing.assert_close(shares.float(), wanted, atol=2e-3, rtol=0)
    if shift > 1:  # control: bands of the noise level itself
        assert not torch.allclose(torch.histc(t, BANDS, 0, 1) / 4000, wanted, atol=0.1)
    assert set(Balancer(ADAPTIVE, first, 1).names) < set(balancer.names)


def test_gaps_are_running_means_of_each_run():
    (phase,) = split_phases(1, (1,), 1.0, "nested", 0.02)
    balancer = Balancer(Balance(law="adaptive", decay=0.75), phase, 2)
    t = torch.tensor([0.15, 0.15, 0.85, 0.85])
    for gap in (2.0, 4.0):
        difference = torch.tensor([gap, -2 * gap, 0.5, 0.0])[:, None].expand(-1, 3)
        balancer(torch.ones(4, 3), difference, t)
        balancer.close()
    torch.testing.assert_close(balancer.gaps[:, 1], doubles(2.5, 5.0))
    torch.testing.assert_close(balancer.gaps[:, 8], doubles(0.5, 0.0))
    assert balancer.rows[:, [1, 8]].tolist() == [[2, 2], [2, 2]]
    assert int(balancer.rows.sum()) == 8


# ---- by stratum


STRATA = number_strata(["slow", None, "fast", "slow"])


def by_strata(strata, numbers):
    """Gaps after one update whose prompts 0, 2, 3 have gaps 1, 2, 3 in every band."""
    (phase,) = split_phases(1, (1,), 1.0, "nested", 0.02)
    balancer = Balancer(Balance(law="adaptive", by="stratum"), phase, 1, strata=strata)
    t = phase.renoise_times(Stream([0], 0, "test").uniform(600))
    prompts = torch.tensor(numbers).repeat(600 // len(numbers))
    known = Prompted(torch.zeros(600, 1, 1), torch.ones(600).long(), numbers=prompts)
    gaps = torch.tensor([1.0, 9.0, 2.0, 3.0])[prompts]
    balancer(torch.ones(600, 1), gaps[:, None], t, known)
    balancer.close()
    return balancer


def test_each_stratum_has_bands_of_its_own():
    balancer = by_strata(STRATA, [0, 2, 3])
    assert STRATA.names == ("fast", "slow")
    assert balancer.names[:2] == ["fast/0.0", "fast/0.1"]
    assert balancer.names[-1] == "slow/0.9"
    fast, slow = balancer.gaps[0].chunk(2)
    assert torch.equal(fast, torch.full((BANDS,), 2.0).double())
    assert ((slow > 1) & (slow < 3)).all()
    other = by_strata(number_strata(["fast", None, "slow", "fast"]), [0, 2, 3])  # control
    assert torch.equal(other.gaps[0], torch.cat([slow, fast]))
    assert (balancer.weights[0].chunk(2)[0] != other.weights[0].chunk(2)[0]).any()


def test_one_stratum_is_bands_alone():
    one, bands = by_strata(number_strata(["all"] * 4), [0, 2, 3]), by_strata(None, [0, 2, 3])
    assert torch.equal(one.gaps, bands.gaps)
    assert torch.equal(one.weights, bands.weights)
    assert not torch.equal(by_strata(STRATA, [0, 2, 3]).gaps[:, :BANDS], bands.gaps)  # control


def test_a_prompt_without_a_stratum_is_refused():
    with pytest.raises(ValueError, match="a prompt without a stratum"):
        by_strata(STRATA, [0, 1])


def test_numbers_go_with_their_prompts():
    rows, starts = torch.randn(9, 4), torch.tensor([0, 2, 5, 9])
    known = Prompts(rows, starts, None).values(torch.tensor([2, 0, 1]))
    assert known.numbers.tolist() == [2, 0, 1]
    assert known[torch.tensor([2, 0])].to("cpu").numbers.tolist() == [1, 2]
    assert take(known, slice(1, 3)).numbers.tolist() == [0, 1]
    pairs = torch.tensor([[1, 5], [2, 0]])
    assert Prompts(rows, starts, None).values(pairs).numbers.tolist() == [1, 2]


@pytest.mark.parametrize("scenario", ["mixture2d", "digits"])
def test_strata_are_refused_where_prompts_have_none(scenario):
    by = {"distill": {"balance": {"law": "adaptive", "by": "stratum"}}}
    line = refused(own(scenario, **by))
    assert "distill.balance.by: 'stratum'" in line
    assert "expected 'band'" in line
    accepted(own(scenario, distill={"balance": {"law": "adaptive"}}))  # control
    accepted(own("moving", **by))


def test_strata_are_read_from_the_prompts_by_the_methods_that_weigh_by_them():
    methods = ["teacher", "teacher-again", "phased2-adaptive", "phased2-adaptive-strata"]
    runs = accepted(own("emoji", methods=methods)).runs
    reads = {
        name: {path.name for path in training_reads(runs["emoji", name], 1, 1)}
        for name in methods[2:]
    }
    extra = reads["phased2-adaptive-strata"] - reads["phased2-adaptive"]
    assert extra == {"prompts.json"}


# ---- in training


def recipe(**other):
    values = {
        **{"updates": 12, "budget": "expert", "batch": 16, "fake_updates": 2},
        **{"generator_lr": 2e-3, "fake_lr": 4e-3, "betas": (0.0, 0.999), "weight_decay": 0.0},
        **{"clip": 10.0, "average": Average(law="exponential", decay=0.9), "decay": 0.1},
        **{"backward": "exit", "exits": "stratified", "target": "unbiased", "rollout": "fresh"},
        **{"gradient": "literal", "normaliser": "sample", "region": "row"},
        **{"fake": Fake(mode="full"), "checkpointing": False, "balance": ADAPTIVE},
    }
    return Recipe(**{**values, **other})


def made(seeds=(1,), **other):
    """A trainer of one phase of two steps."""
    (phase,) = split_phases(2, (2,), 1.0, "nested", 0.02)
    states = [unstack_state(build(MODEL, Space((1,)), 1, 0).state_dict(), 0)] * len(seeds)
    parts = [load_stacked(MODEL, Space((1,)), states, "", trainable=i < 2) for i in range(3)]
    starts = NoiseStarts(RECTIFIED, [], phase.times, (1,), lambda stream, batch: None)
    return PhaseTrainer(RECTIFIED, phase, recipe(**other), Roles(TEACHER, *parts), starts, seeds)


def trained(seeds=(1,), updates=12, **other):
    trainer = made(seeds, **other)
    records = [trainer.update(step) for step in range(updates)]
    return state_tensors(trainer.states, trainer.optimizers), trainer, records[-1]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("gradient", ["literal", "normalised"])
def test_the_fixed_law_is_as_without_any(gradient):
    plain, trainer, record = trained(balance=Balance(), gradient=gradient)
    ones, *_ = trained(balance=Balance(law="adaptive", tau=1000.0), gradient=gradient)
    adaptive, other, logged = trained(gradient=gradient)
    assert trainer.balancer is None
    assert not any("weight" in name for name in record)
    assert not any(name.startswith("balance") for name in plain)
    weights = {name for name in plain if name.startswith("generator/")}
    assert all(torch.allclose(plain[name], ones[name], atol=1e-4) for name in weights)
    assert not all(torch.allclose(plain[name], adaptive[name], atol=1e-4) for name in weights)
    assert other.balancer.weights.std() > 0.05  # control
    assert logged["weight/0.1"].shape == (1,)


def test_microbatches_weigh_as_the_batch():
    whole, trainer, _ = trained()
    parts, *_ = trained(microbatch=3)
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-3, atol=1e-4)
    assert trainer.balancer.rows.sum() == 12 * 16


def test_each_run_has_gaps_of_its_own():
    """Two seeds together are each as alone."""
    _, both, _ = trained((1, 2))
    _, one, _ = trained((1,))
    _, two, _ = trained((2,))
    torch.testing.assert_close(both.balancer.gaps[0], one.balancer.gaps[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(both.balancer.gaps[1], two.balancer.gaps[0], rtol=1e-3, atol=1e-4)
    assert torch.equal(both.balancer.rows[1], two.balancer.rows[0])
    assert not torch.allclose(both.balancer.gaps[0], two.balancer.gaps[0], atol=1e-3)  # control


class Stop(Exception):
    """Stands in for a kill."""


def resumed(folder, step, damage=lambda tensors: None):
    """State after a job that died in an update and went on from its last checkpoint."""
    trainer, save = made(), saving(2, 4, 2)
    update, left = trainer.update, [step]

    def dying(number):
        if number == step and left:
            raise Stop
        return update(number)

    trainer.update = dying
    with pytest.raises(Stop):
        loop.train(trainer, 12, save, folder, "x", "test")
    number, tensors, extra = Checkpoints(folder, "x").latest()
    assert number == 8
    damage(tensors)
    Checkpoints(folder, "x").save(number, tensors, extra)
    again = made()
    finished = loop.train(again, 12, save, folder, "x", "test")
    return state_tensors(again.states, again.optimizers), finished


def test_a_killed_run_ends_in_the_same_gaps_and_weights(tmp_path):
    whole, trainer, _ = trained()
    again, finished = resumed(tmp_path / "one", 10)
    assert same(again, whole)
    assert finished.log[-1]["weight/0.1"] != [1.0]
    assert trainer.balancer.gaps.abs().max() > 0


def test_gaps_of_a_checkpoint_are_read(tmp_path):
    """The control: with other gaps it ends in other weights."""
    whole, *_ = trained()

    def flip(tensors):
        tensors["balance/gaps"] = tensors["balance/gaps"].flip(1).contiguous()

    again, _ = resumed(tmp_path, 10, flip)
    assert not torch.equal(again["generator/out.bias"], whole["generator/out.bias"])


def test_a_phases_metrics_have_each_seeds_weights_by_band(tiny, copied):
    results = Path(copied)
    method, diff = "dmd2-adaptive", {"methods": ["dmd2-adaptive"]}
    name = f"{method}/config/distill.json"
    path = results / "mixture2d" / name
    write_json(path, tiny(results, diff)[name])
    assert cli.main(["distill", "--config", str(path), "--phase", "1", "--seeds", "1", "2"]) == 0
    one, two = (
        read_json(results / f"mixture2d/{method}/seed{seed}/phase1/metrics.json") for seed in (1, 2)
    )
    assert list(one["weight_by_band"]) == [f"{band / 10:.1f}" for band in range(10)]
    assert one["gap_by_band"] != two["gap_by_band"]
    assert all(gap > 0 for gap in one["gap_by_band"].values())
    order = sorted(one["gap_by_band"], key=one["gap_by_band"].get)
    weights = one["weight_by_band"]
    assert sorted(weights, key=weights.get, reverse=True) == order
    assert one["last"]["weight/0.0"] > 0
    assert scalars(one["last"])["weight/0.0"] == one["last"]["weight/0.0"]
    shutil.rmtree(results)
