import math

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from pdmd.flow import Flow
from pdmd.models.mixture import GaussianMixture, atoms, grid_mixture
from pdmd.objectives import full_like_time
from pdmd.streams import Stream

DOUBLE = torch.float64


def mixture(flow: Flow, std: float = 0.3, dimension: int = 2) -> GaussianMixture:
    means = torch.tensor([[-1.0, 0.5, 0.2], [1.0, 0.0, -0.4], [0.3, -1.2, 0.9]], dtype=DOUBLE)
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=DOUBLE)
    return GaussianMixture(means[:, :dimension], weights, std, flow)


def moved(mix: GaussianMixture) -> GaussianMixture:
    """The control: the same mixture with its weights in another order."""
    return GaussianMixture(mix.means, mix.weights.flip(0), mix.std, mix.flow)


def posterior_mean(mix: GaussianMixture, x_t: Tensor, t: float) -> Tensor:
    """E[eps - x_0 | x_t] in 1D by the trapezoid rule over x_0, from p(x_0) and Eq. 1 alone."""
    x_0 = torch.linspace(-6, 6, 8001, dtype=DOUBLE)
    components = (-((x_0[:, None] - mix.means[:, 0]) ** 2) / (2 * mix.std**2)).exp()
    time = torch.tensor(t, dtype=DOUBLE)
    eps = (x_t - mix.flow.alpha(time) * x_0) / mix.flow.sigma(time)
    weight = (components @ mix.weights) * (-(eps**2) / 2).exp()
    return (weight * (eps - x_0)).sum() / weight.sum()


@pytest.mark.parametrize("t", [0.05, 0.4, 0.9, 1.0])
def test_the_velocity_is_the_posterior_mean_by_quadrature(flow, t):
    mix = mixture(flow, dimension=1)
    x = torch.linspace(-2, 2, 9, dtype=DOUBLE)
    expected = torch.stack([posterior_mean(mix, value, t) for value in x])
    time = full_like_time(t, x)
    torch.testing.assert_close(mix.velocity(x[:, None], time)[:, 0], expected)
    assert not torch.allclose(moved(mix).velocity(x[:, None], time)[:, 0], expected, rtol=1e-2)


@pytest.mark.parametrize("t", [0.3, 0.7])
@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_the_velocity_is_the_posterior_mean_by_sampling(flow, generator, dimension, t):
    """Clean samples weighted by p(x_t | x_0), with the error of a self-normalised mean."""
    mix, count = mixture(flow, dimension=dimension), 50_000
    modes = torch.multinomial(mix.weights, count, replacement=True, generator=generator)
    noise = torch.randn(count, dimension, generator=generator, dtype=DOUBLE)
    x_0 = mix.means[modes] + mix.std * noise
    time, wrong = full_like_time(t, x_0), []
    for x_t in (torch.full((dimension,), value, dtype=DOUBLE) for value in (-0.3, 0.2, 0.7)):
        eps = (x_t - mix.flow.alpha(time)[:, None] * x_0) / mix.flow.sigma(time)[:, None]
        weight = (-eps.square().sum(1) / 2).softmax(0)[:, None]
        mean = (weight * (eps - x_0)).sum(0)
        error = (weight * (eps - x_0 - mean)).square().sum(0).sqrt()
        assert ((mix.velocity(x_t[None], time[:1])[0] - mean).abs() < 4 * error).all()
        control = moved(mix).velocity(x_t[None], time[:1])[0]
        wrong.append(((control - mean).abs() / error).max().item())
    assert max(wrong) > 6  # control: the weights in another order


@pytest.mark.parametrize("t", [0.05, 0.4, 0.9])
def test_the_velocity_follows_from_a_finite_difference_of_the_log_density(flow, t):
    """Eq. 5: v = -x / alpha - (sigma + sigma^2 / alpha) score."""
    mix, h = mixture(flow), 1e-5
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    time = full_like_time(t, x)
    alpha, sigma = flow.alpha(time)[:, None], flow.sigma(time)[:, None]
    shifts = h * torch.eye(2, dtype=DOUBLE)
    score = torch.stack(
        [(mix.log_density(x + d, time) - mix.log_density(x - d, time)) / (2 * h) for d in shifts], 1
    )
    expected = -x / alpha - (sigma + sigma**2 / alpha) * score
    torch.testing.assert_close(mix.velocity(x, time), expected, rtol=1e-6, atol=1e-6)
    noise_only = -x / alpha - sigma * score  # control: Eq. 5's second term left out
    assert not torch.allclose(noise_only, expected, rtol=1e-2)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_the_density_integrates_to_one(flow, t):
    mix = mixture(flow, dimension=1)
    x = torch.linspace(-9, 9, 20_001, dtype=DOUBLE)[:, None]
    density = mix.log_density(x, full_like_time(t, x)).exp()
    assert torch.trapezoid(density, x[:, 0]).item() == pytest.approx(1, abs=1e-9)
    unweighted = GaussianMixture(mix.means, 2 * mix.weights, mix.std, flow)  # control
    assert unweighted.log_density(x, full_like_time(t, x)).exp().mean() > 1.9 * density.mean()


def test_the_density_in_the_plane_integrates_to_one(flow):
    mix, t = mixture(flow), torch.tensor(0.6, dtype=DOUBLE)
    line = torch.linspace(-7, 7, 301, dtype=DOUBLE)
    x, cell = torch.cartesian_prod(line, line), (line[1] - line[0]).item() ** 2
    log_density = mix.log_density(x, t.expand(len(x)))
    assert (log_density.exp().sum() * cell).item() == pytest.approx(1, abs=1e-6)
    variance = (flow.alpha(t) * mix.std) ** 2 + flow.sigma(t) ** 2
    one_axis = log_density + 0.5 * (2 * math.pi * variance).log()  # control: normalised in 1D
    assert (one_axis.exp().sum() * cell).item() != pytest.approx(1, abs=0.2)


def test_the_velocity_of_pure_noise_is_the_noise_less_the_mean(flow):
    mix = mixture(flow)
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    expected = x - mix.weights @ mix.means
    torch.testing.assert_close(mix.velocity(x, full_like_time(1.0, x)), expected)
    assert not torch.allclose(x - mix.means.mean(0), expected, rtol=1e-2)  # control: no weights


def shares_fit(mix: GaussianMixture, x: Tensor) -> float:
    """Probability under the mixture's weights of mode counts as uneven as those of x."""
    nearest = torch.cdist(x.double(), mix.means.double()).argmin(1)
    expected = mix.weights.double() * len(x)
    counts = nearest.bincount(minlength=len(expected))
    statistic = ((counts - expected) ** 2 / expected).sum().item()
    return float(chi2.sf(statistic, len(expected) - 1))


def test_drawn_samples_have_the_mixture_s_mode_shares(flow):
    mix = mixture(flow, std=0.02)
    x = mix.draw(Stream([0, 1], 0, "x"), 5000)
    assert shares_fit(mix, x) > 1e-3
    assert shares_fit(moved(mix), x) < 1e-9  # control: the wrong weights


def test_drawn_samples_have_the_mixture_s_spread(flow):
    mix = mixture(flow)
    one = GaussianMixture(mix.means[:1], torch.ones(1, dtype=DOUBLE), 0.3, flow)
    x = one.draw(Stream([0], 0, "x"), 20_000)
    tolerance = 4 * (1 / (2 * x.numel())) ** 0.5
    assert (x - one.means).square().mean().sqrt().item() == pytest.approx(0.3, rel=tolerance)
    assert (x.mean(0) - one.means[0]).abs().max() < 4 * 0.3 / 20_000**0.5
    assert x.std(0).max().item() != pytest.approx(0.3**2, rel=tolerance)  # control: variance


def test_a_run_draws_the_samples_it_draws_alone(flow):
    mix = mixture(flow)
    together = mix.draw(Stream([3, 4], 0, "x"), 50)
    assert torch.equal(together[1::2], mix.draw(Stream([4], 0, "x"), 50))
    assert not torch.equal(together[0::2], together[1::2])  # control


@pytest.mark.parametrize("t", [1e-3, 1e-5])
def test_atoms_near_data_pull_to_the_nearest_atom(t):
    toy = atoms([-1, 0, 1, 2])
    eps = torch.tensor([[-1.5], [-0.5], [0.5], [1.5]])
    time = torch.full((4,), t)
    v = toy.velocity((1 - t) * toy.means + t * eps, time)
    assert v.isfinite().all()
    torch.testing.assert_close(v, eps - toy.means, rtol=0, atol=2e-7 / t)  # float32 rounds x_t
    smeared = GaussianMixture(toy.means, toy.weights, 0.3).velocity(toy.means, time)  # control
    assert not torch.allclose(smeared, eps - toy.means, rtol=0, atol=0.1)


def test_atoms_are_drawn_exactly_on_their_positions():
    toy = atoms([-1, 0, 1, 2])
    x = toy.draw(Stream([0], 0, "x"), 4000)
    assert set(x.flatten().tolist()) == {-1.0, 0.0, 1.0, 2.0}
    assert shares_fit(toy, x) > 1e-3
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4])  # control
    assert shares_fit(GaussianMixture(toy.means, weights, 0.0), x) < 1e-9


def test_atoms_far_from_every_position_have_a_finite_velocity_and_density():
    toy, x = atoms([-1, 0, 1, 2]), torch.tensor([[50.0], [-50.0]])
    t = torch.full((2,), 0.01)
    assert toy.velocity(x, t).isfinite().all()
    assert toy.log_density(x, t).isfinite().all()
    plain = (-((x - toy.means[:, 0]) ** 2) / (2 * 0.01**2)).exp()  # control: no log-sum-exp
    assert not (plain / plain.sum(1, keepdim=True)).isfinite().any()


def test_a_grid_of_modes_is_the_one_its_seed_names():
    one, again, other = (grid_mixture(3, 0.05, seed, 0.2) for seed in (0, 0, 1))
    assert one.means.shape == (9, 2)
    assert one.means.abs().max() == 2
    assert math.isclose(one.weights.sum().item(), 1, abs_tol=1e-6)
    assert (one.weights.max() / one.weights.min()).item() <= 1.2 / 0.2
    assert torch.equal(one.weights, again.weights)
    assert not torch.equal(one.weights, other.weights)  # control
