import shutil
from dataclasses import replace

import pytest
import torch

from pdmd import distill, objectives
from pdmd.config.budget import forwards, phase_updates
from pdmd.config.run import read_run
from pdmd.config.sections import Average, Fake, Fit, Model
from pdmd.data.bank import read_bank
from pdmd.data.sources import MixtureData
from pdmd.distill import PhaseTrainer, Recipe
from pdmd.errors import UserError
from pdmd.flow import RECTIFIED
from pdmd.metrics.modes import energy_distance
from pdmd.models.base import Space
from pdmd.models.build import build, load_stacked, unstack_state
from pdmd.models.mixture import GaussianMixture
from pdmd.phases import split_phases
from pdmd.roles import Roles
from pdmd.rollout import sample
from pdmd.stages.distill import phase_recipe, starts_of
from pdmd.stages.stage import Stage
from pdmd.starts import BankStarts, MixedStarts, NoiseStarts
from pdmd.streams import Stream
from pdmd.training.fit import FitTrainer

MODEL = Model(kind="mlp", width=32, depth=2)
TEACHER = GaussianMixture(torch.tensor([[0.8]]), torch.ones(1), 0.5)  # mean .8, std .5
START = GaussianMixture(torch.tensor([[-0.4]]), torch.ones(1), 0.9)  # what the student knows first


@pytest.fixture(scope="module")
def base():
    """A network fitted to the wrong Gaussian."""
    recipe = Fit(updates=300, batch=256, lr=3e-3, ema=0.9, time="uniform", target="teacher")
    model = build(MODEL, Space((1,)), 1, 0)
    trainer = FitTrainer(RECTIFIED, recipe, model, MixtureData(START), [0], START)
    for step in range(recipe.updates):
        trainer.update(step)
    return unstack_state(trainer.average.state_dict(), 0)


def recipe(updates=150, **other):
    values = {
        "updates": updates,
        "budget": "expert",
        "batch": 128,
        "fake_updates": 5,
        "generator_lr": 2e-3,
        "fake_lr": 4e-3,
        "betas": (0.0, 0.999),
        "weight_decay": 0.0,
        "clip": 10.0,
        "average": Average(law="exponential", decay=0.9),
        "decay": 0.1,
        "backward": "all",
        "exits": "stratified",
        "target": "unbiased",
        "gradient": "literal",
        "rollout": "fresh",
        "normaliser": "sample",
        "region": "row",
        "fake": Fake(mode="full"),
        "checkpointing": False,
    }
    return Recipe(**{**values, **other})


def moments(base, how, boundaries=(1,), steps=1):
    """Mean and standard deviation of a one-phase student, before and after training."""
    (phase,) = split_phases(steps, boundaries, 1.0, "nested", 0.02)
    fake, generator, average = (
        load_stacked(MODEL, Space((1,)), [base], "base", trainable=i < 2) for i in range(3)
    )
    starts = NoiseStarts(RECTIFIED, [], phase.times, (1,), lambda stream, batch: None)
    roles = Roles(TEACHER, fake, generator, average)
    trainer = PhaseTrainer(RECTIFIED, phase, how, roles, starts, [1])

    def measure():
        noise = Stream([9], 0, "sample").normal(4000, (1,))
        with torch.no_grad():
            x = sample(RECTIFIED, [average] * steps, phase.times, noise, None)
        return float(x.mean()), float(x.std())

    before = measure()
    for step in range(how.updates):
        trainer.update(step)
    return before, measure()


def off(found, wanted=(0.8, 0.5)):
    return max(abs(a - b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("rollout", ["fresh", "reuse"])
@pytest.mark.parametrize("gradient", ["literal", "normalised"])
def test_plain_dmd_carries_a_gaussian_to_the_teachers(base, gradient, rollout):
    """One step: the first prediction E[eps - x_0 | x_1 = eps] gives the mean and no spread."""
    before, after = moments(base, recipe(gradient=gradient, rollout=rollout))
    assert before[0] == pytest.approx(-0.4, abs=0.1)
    assert off(before) > 0.4
    assert off(after) < 0.12


def test_a_gradient_of_the_wrong_sign_leads_away(base, monkeypatch):
    """The control: everything else is as above."""
    right = objectives.generator_gradient
    monkeypatch.setattr(objectives, "generator_gradient", lambda *a: -right(*a))
    before, after = moments(base, recipe(updates=40))
    assert off(after) > off(before) + 0.3


def test_two_steps_through_both_calls_reach_the_teacher_too(base):
    before, after = moments(base, recipe(updates=120), boundaries=(2,), steps=2)
    assert off(before) > 0.4
    assert off(after) < 0.15


def test_no_generator_update_means_no_movement(base):
    before, after = moments(base, recipe(updates=3, generator_lr=0.0))
    assert off(after, before) < 1e-4
    _, moved = moments(base, recipe(updates=3, average=Average(law="live")))  # control
    assert off(moved, before) > 1e-3
    with pytest.raises(UserError, match="has not moved"):  # a rate that rounding swallows
        moments(base, recipe(updates=3, generator_lr=1e-12))


# ---- where a later phase starts


def phase_starts(tiny, results, method):
    config = tiny(results)[f"{method}/config/distill.json"]
    stage = Stage(config)
    return starts_of(stage, stage.phases[1], [1, 2]), stage


@pytest.fixture
def online(tiny, copied):
    """The second phase's online starts, made from the same first phase as the bank."""
    shutil.copytree(copied / "mixture2d/phased2", copied / "mixture2d/phased2-online")
    return phase_starts(tiny, copied, "phased2-online")[0]


def test_a_banks_rows_are_the_online_outputs_for_the_same_noise(online, copied):
    for run, seed in enumerate([1, 2]):
        bank = copied / f"mixture2d/phased2/seed{seed}/phase2/bank"
        rows, condition = read_bank(bank, Space((2,)), seed)
        assert condition is None
        same, _ = online(Stream([1, 2], 0, "bank"), len(rows))
        own = same.view(len(rows), 2, -1)[:, run]
        torch.testing.assert_close(rows, own, rtol=1e-4, atol=1e-5)
        other, _ = online(Stream([1, 2], 1, "bank"), len(rows))  # control: other noise
        assert not torch.allclose(rows, other.view(len(rows), 2, -1)[:, run], atol=0.1)


def test_starts_from_a_bank_and_online_have_one_law(tiny, online, copied):
    banked, _ = phase_starts(tiny, copied, "phased2")
    assert isinstance(banked, BankStarts)
    x, _ = banked(Stream([1, 2], 0, "test"), 1000)
    y, _ = online(Stream([1, 2], 5, "test"), 1000)
    assert x.shape == y.shape == (2000, 2)
    for run in (0, 1):
        mine, its = x[run::2], y[run::2]
        assert energy_distance(mine, its) < 0.03
        assert energy_distance(mine, its + 0.5) > 0.05  # control: another law


def test_each_run_draws_from_its_own_bank():
    x = torch.stack([torch.arange(50.0), torch.arange(50.0) + 100], 1)[..., None]
    condition = torch.stack([torch.arange(50), torch.arange(50) + 100], 1)
    rows, labels = BankStarts(x, condition)(Stream([1, 2], 0, "test"), 200)
    assert torch.equal(rows[:, 0].long(), labels)  # a latent keeps its condition
    assert (rows[0::2] < 50).all()
    assert (rows[1::2] >= 100).all()
    assert len(rows[0::2].unique()) > 40
    again, _ = BankStarts(x[:, 1:], None)(Stream([2], 0, "test"), 200)
    assert torch.equal(again, rows[1::2])  # the second run draws as it would alone


# ---- the parts of an update


def test_a_learning_rate_decays_over_the_phase(base):
    how = recipe(updates=10, decay=0.1)
    parts = [load_stacked(MODEL, Space((1,)), [base], "base", trainable=i < 2) for i in range(3)]
    (phase,) = split_phases(1, (1,), 1.0, "nested", 0.02)
    starts = NoiseStarts(RECTIFIED, [], phase.times, (1,), lambda stream, batch: None)
    trainer = PhaseTrainer(RECTIFIED, phase, how, Roles(TEACHER, *parts), starts, [1])
    rates = []
    for step in range(10):
        trainer.update(step)
        rates.append(trainer.optimizers["fake"].param_groups[0]["lr"] / how.fake_lr)
    assert rates == pytest.approx([1 - 0.9 * step / 10 for step in range(10)])


def weights_after(base, steps=4, updates=3, **other):
    """A student's weights after some updates of a phase with several exits."""
    values = {"backward": "exit", "normaliser": "sample", **other}
    how = recipe(updates=updates, batch=8, **values)
    parts = [load_stacked(MODEL, Space((1,)), [base], "base", trainable=i < 2) for i in range(3)]
    phase = split_phases(steps, (2, steps), 1.0, "nested", 0.02)[0]
    starts = NoiseStarts(RECTIFIED, [], phase.times, (1,), lambda stream, batch: None)
    trainer = PhaseTrainer(RECTIFIED, phase, how, Roles(TEACHER, *parts), starts, [1])
    records = [trainer.update(step) for step in range(updates)]
    weights = torch.cat([p.detach().flatten() for p in parts[1].parameters()])
    return weights, records[-1], dict(trainer.cost.forwards)


@pytest.mark.parametrize(
    ("backward", "rollout"), [("exit", "fresh"), ("exit", "reuse"), ("all", "reuse")]
)
@pytest.mark.parametrize("gradient", ["literal", "normalised"])  # on a line, projected is none
def test_microbatches_add_up_to_the_batch(base, gradient, backward, rollout):
    how = {"gradient": gradient, "backward": backward, "rollout": rollout}
    whole, record, cost = weights_after(base, **how)
    parts, again, cost_again = weights_after(base, **how, microbatch=3)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)
    for name, value in record.items():
        torch.testing.assert_close(again[name], value, rtol=1e-3, atol=1e-5)
    if rollout == "fresh":
        assert cost_again == pytest.approx(cost, rel=0.2)  # rollouts of parts leave less early
    other, *_ = weights_after(base, **how, microbatch=3, fake_updates=4)  # control
    assert (other - whole).abs().max() > 1e-4


@pytest.mark.parametrize("exits", ["stratified", "update", "late", "last"])
def test_rows_of_all_fake_updates_are_carried_as_those_of_each(base, monkeypatch, exits):
    how = {"exits": exits, "steps": 5, "gradient": "literal"}
    together, record, cost = weights_after(base, **how)
    monkeypatch.setattr(PhaseTrainer, "_carried", lambda self, draws: draws)
    apart, again, cost_again = weights_after(base, **how)
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-6)
    assert cost == pytest.approx(cost_again, rel=1e-6)
    torch.testing.assert_close(record["fake_loss"], again["fake_loss"], rtol=1e-4, atol=1e-6)

    def stay(self, draws):  # control: rows that leave where they start
        return [replace(one, carried=True) for one in draws]

    monkeypatch.setattr(PhaseTrainer, "_carried", stay)
    other, *_ = weights_after(base, **how)
    assert (other - together).abs().max() > 1e-5


def test_a_rollout_that_is_reused_is_the_generators_own(base):
    """Without fake updates both are one update; with them the fake sees other samples."""
    for backward in ("exit", "all"):
        alone = {"backward": backward, "fake_updates": 1, "fake_lr": 1e-12, "updates": 1}
        fresh, *_ = weights_after(base, **alone)
        reused, *_ = weights_after(base, **alone, rollout="reuse")
        assert torch.equal(fresh, reused)
        fresh, *_ = weights_after(base, backward=backward)
        reused, *_ = weights_after(base, backward=backward, rollout="reuse")  # control
        assert (fresh - reused).abs().max() > 1e-5


@pytest.mark.parametrize("exits", ["stratified", "late", "last"])
@pytest.mark.parametrize("rollout", ["fresh", "reuse"])
@pytest.mark.parametrize("backward", ["exit", "all"])
def test_calls_are_those_that_a_budget_counts(base, tiny, tmp_path, rollout, backward, exits):
    if (backward, exits) in (("all", "late"), ("all", "last")):
        pytest.skip("has no exits")
    how = {"backward": backward, "rollout": rollout, "exits": exits}
    steps, updates = 5, 40
    _, _, calls = weights_after(base, steps, updates, **how)
    student = {"steps": steps, "boundaries": [2, steps], "backward": backward, "exits": exits}
    config = tiny(tmp_path)["phased2/config/distill.json"]
    config["student"] |= student
    config["distill"] |= {"rollout": rollout, "fake_updates": 5}
    wanted = forwards(read_run(config), 0, 2)
    assert sum(calls.values()) / updates == pytest.approx(wanted, rel=0.02)
    other = {"fresh": "reuse", "reuse": "fresh"}[rollout]  # control
    config["distill"]["rollout"] = other
    assert forwards(read_run(config), 0, 2) != pytest.approx(wanted, rel=0.02)


class Marked:
    """Starts that say which they are."""

    def __init__(self, number):
        self.number, self.calls = number, 0.0

    def __call__(self, stream, batch):
        return torch.full((batch, 1), float(self.number)), None


def test_updates_have_sizes_by_their_shares_and_one_size_each():
    mixed = MixedStarts([Marked(0), Marked(1), Marked(2)], [0.1, 0.3, 0.6])
    drawn = [mixed(Stream([1], step, "fake0"), 4)[0] for step in range(600)]
    assert all((x == x[0]).all() for x in drawn)
    shares = torch.bincount(torch.stack([x[0, 0] for x in drawn]).long()) / 600
    assert (shares - torch.tensor([0.1, 0.3, 0.6])).abs().max() < 0.06


def test_processes_agree_on_the_size():
    mixed = MixedStarts([Marked(0), Marked(1)], [0.5, 0.5])
    for step in range(20):
        sizes = {
            float(mixed(Stream([1], step, "x", share=slice(rank, None, 3)), 3)[0][0, 0])
            for rank in range(3)
        }
        assert len(sizes) == 1


def test_the_norm_of_one_run_is_that_of_all_its_gradients():
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in (3, 5000, 7)]
    for parameter in parameters[:2]:
        parameter.grad = torch.randn_like(parameter)
    wanted = torch.cat([p.grad for p in parameters[:2]]).double().norm().float()
    assert distill.gradient_norms(parameters, 1).tolist() == pytest.approx([float(wanted)])
    assert distill.gradient_norms(parameters[:1], 1) != pytest.approx(float(wanted))  # control


def test_gradients_are_clipped_run_by_run():
    parameter = torch.nn.Parameter(torch.zeros(3, 4))
    parameter.grad = torch.tensor([[3.0, 4, 0, 0], [0.3, 0.4, 0, 0], [0, 0, 60, 80]])
    norms = distill.gradient_norms([parameter], 3)
    assert norms.tolist() == pytest.approx([5, 0.5, 100])
    distill.clip_gradients([parameter], norms, 1.0)
    wanted = [[0.6, 0.8, 0, 0], [0.3, 0.4, 0, 0], [0, 0, 0.6, 0.8]]
    torch.testing.assert_close(parameter.grad, torch.tensor(wanted))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stops_before_the_update(value):
    good = torch.ones(2)
    distill.check_finite(3, "fake", good, good)  # control
    for loss, norms in ((torch.tensor([1, value]), good), (good, torch.tensor([value, 1]))):
        with pytest.raises(FloatingPointError, match="step 3: fake: "):
            distill.check_finite(3, "fake", loss, norms)


def test_updates_are_shared_among_phases_by_steps(tiny, tmp_path):
    config = tiny(tmp_path, {"distill": {"updates": 90}})["phased2/config/distill.json"]
    for boundaries in ([2, 4], [1, 4], [1, 2, 3, 4], [4]):
        config["student"]["boundaries"] = boundaries
        phases = split_phases(4, boundaries, 1.0, "nested", 0.02)
        shares = [phase_recipe(read_run(config), phase).updates for phase in phases]
        assert sum(shares) == 90
        steps = [phase.last - phase.first for phase in phases]
        assert all(abs(a - 90 * n / 4) < 1 for a, n in zip(shares, steps, strict=True))


def test_budgets_share_out_updates_as_they_say(tiny, tmp_path):
    config = tiny(tmp_path, {"distill": {"updates": 90}})["phased2/config/distill.json"]
    config["bank"]["rows"] = 8

    def updates(budget, boundaries):
        config["student"]["boundaries"] = boundaries
        config["distill"]["budget"] = budget
        run = read_run(config)
        return [phase_updates(run, number) for number, _ in enumerate(boundaries, 1)], run

    assert updates("expert", [2, 4])[0] == [90, 90]
    assert updates("total", [2, 4])[0] == [45, 45]
    calls = 90 * forwards(updates("total", [4])[1], 0, 4)
    for boundaries in ([2, 4], [1, 2, 3, 4], [1, 4]):
        shares, run = updates("forwards", boundaries)
        phases = zip((0, *boundaries[:-1]), boundaries, strict=True)
        spent = sum(n * forwards(run, *of) for n, of in zip(shares, phases, strict=True))
        assert spent == pytest.approx(calls, rel=0.02)
        assert sum(shares) > 90  # shorter rollouts: the same calls are more updates
    assert updates("forwards", [4])[0] == [90]
