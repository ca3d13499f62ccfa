"""The oracles: what each objective's minimiser is, against velocities that are known exactly."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from pdmd import objectives
from pdmd.flow import COSINE, RECTIFIED, Flow, predict_x0, renoise, transition
from pdmd.models.mixture import GaussianMixture, atoms
from pdmd.objectives import full_like_time

DOUBLE = torch.float64
Target = Callable[[Flow, Tensor, Tensor, Tensor, Tensor], Tensor]


def naive_target(flow: Flow, x_s: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """The control: x_s taken for a clean sample."""
    return eps - x_s


def naive_data_target(flow: Flow, x_s: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> Tensor:
    return x_s


def mixture(dimension: int, flow: Flow = RECTIFIED, std: float = 0.2) -> GaussianMixture:
    """Four modes that no symmetry relates."""
    draw = torch.Generator().manual_seed(dimension)
    means = 1.2 * torch.randn(4, dimension, generator=draw, dtype=DOUBLE)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=DOUBLE)
    return GaussianMixture(means, weights, std, flow)


def toy_of_fig_2() -> GaussianMixture:
    """x_0 uniform on {-1, 0, 1, 2}."""
    means = torch.tensor([[-1.0], [0.0], [1.0], [2.0]], dtype=DOUBLE)
    return GaussianMixture(means, torch.full((4,), 0.25, dtype=DOUBLE), 0.0)


def quadrature(
    target: Target, mix: GaussianMixture, x_t: Tensor, s: float, t: float, side: int
) -> Tensor:
    """E[target | x_t], the minimiser at x_t (D,), by the trapezoid rule over x_s."""
    line = torch.linspace(-7, 7, side, dtype=DOUBLE)
    x_s = torch.cartesian_prod(*[line] * len(x_t)).view(-1, len(x_t))
    time_s, time_t = full_like_time(s, x_s), full_like_time(t, x_s)
    alpha_ts, sigma_ts = (c[:, None] for c in transition(mix.flow, time_s, time_t))
    eps = (x_t - alpha_ts * x_s) / sigma_ts
    log_weight = mix.log_density(x_s, time_s) - eps.square().sum(1) / 2
    return log_weight.softmax(0) @ target(mix.flow, x_s, eps, time_s, time_t)


def posterior_draws(
    mix: GaussianMixture, x_t: Tensor, s: float, t: float, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(x_s, eps), each (count, D), from p(x_s | x_t), itself a Gaussian mixture."""
    time_s, time_t = torch.tensor(s, dtype=DOUBLE), torch.tensor(t, dtype=DOUBLE)
    alpha_s, sigma_s = mix.flow.alpha(time_s), mix.flow.sigma(time_s)
    alpha_ts, sigma_ts = transition(mix.flow, time_s, time_t)
    prior = (alpha_s * mix.std) ** 2 + sigma_s**2
    marginal = alpha_ts**2 * prior + sigma_ts**2
    offset = x_t - alpha_ts * alpha_s * mix.means
    share = (mix.weights.log() - offset.square().sum(1) / (2 * marginal)).softmax(0)
    centre = alpha_s * mix.means + prior * alpha_ts / marginal * offset
    modes = torch.multinomial(share, count, replacement=True, generator=generator)
    noise = torch.randn(count, len(x_t), generator=generator, dtype=DOUBLE)
    x_s = centre[modes] + (prior / marginal).sqrt() * sigma_ts * noise
    return x_s, (x_t - alpha_ts * x_s) / sigma_ts


def standard_errors(
    target: Target, exact: Tensor, mix: GaussianMixture, x_t: Tensor, s: float, t: float
) -> float:
    """How many standard errors the mean target at x_t is from `exact`, in the worst axis."""
    generator = torch.Generator().manual_seed(1)
    x_s, eps = posterior_draws(mix, x_t, s, t, 50_000, generator)
    values = target(mix.flow, x_s, eps, full_like_time(s, x_s), full_like_time(t, x_s))
    error = values.std(0) / len(values) ** 0.5
    return ((values.mean(0) - exact) / error).abs().max().item()


def pairs(count: int = 400, low: float = 0.0) -> tuple[Tensor, Tensor]:
    """(s, t) with low <= s < t < 1, half of them very near each other."""
    draw = torch.Generator().manual_seed(2)
    s, share = torch.rand(2, count, generator=draw, dtype=DOUBLE)
    s = low + (0.97 - low) * s
    share[::2] = 10 ** (-6 * share[::2])
    return s, s + (0.999 - s) * share


def normal(count: int, *shape: int, seed: int = 3) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(count, *shape, generator=draw, dtype=DOUBLE)


# Eq. 11: the unbiased velocity target


@pytest.mark.parametrize(
    ("x", "t", "true", "naive"),
    [(0.3, 0.7, -0.4374, -0.1868), (-0.8, 0.6, -0.5964, -0.2068), (1.2, 0.9, 0.5827, 0.8428)],
)
def test_the_minimiser_of_eq_11_is_the_true_velocity_of_the_toy(x, t, true, naive):
    toy, x_t = toy_of_fig_2(), torch.tensor([x], dtype=DOUBLE)
    velocity = toy.velocity(x_t[None], full_like_time(t, x_t[None])).item()
    unbiased = quadrature(objectives.velocity_target, toy, x_t, 0.5, t, 4001).item()
    biased = quadrature(naive_target, toy, x_t, 0.5, t, 4001).item()
    assert velocity == pytest.approx(true, abs=5e-5)
    assert unbiased == pytest.approx(velocity, abs=1e-8)
    assert biased == pytest.approx(naive, abs=5e-5)  # control
    assert abs(biased - velocity) > 0.2


@pytest.mark.parametrize(("s", "t"), [(0.25, 0.6), (0.5, 0.9), (5 / 6, 0.95)])
@pytest.mark.parametrize(("dimension", "side"), [(1, 4001), (2, 301)])
def test_the_minimiser_of_eq_11_is_the_velocity_by_quadrature(flow, dimension, side, s, t):
    mix = mixture(dimension, flow)
    for x_t in normal(2, dimension):
        exact = mix.velocity(x_t[None], full_like_time(t, x_t[None]))[0]
        unbiased = quadrature(objectives.velocity_target, mix, x_t, s, t, side)
        torch.testing.assert_close(unbiased, exact, rtol=1e-6, atol=1e-6)
        biased = quadrature(naive_target, mix, x_t, s, t, side)  # control
        assert (biased - exact).abs().max() > 0.02


@pytest.mark.parametrize(("s", "t"), [(0.25, 0.6), (0.5, 0.9), (5 / 6, 0.95)])
@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_the_minimiser_of_eq_11_is_the_velocity_by_sampling(flow, dimension, s, t):
    mix, biased = mixture(dimension, flow), []
    for x_t in normal(4, dimension):
        exact = mix.velocity(x_t[None], full_like_time(t, x_t[None]))[0]
        assert standard_errors(objectives.velocity_target, exact, mix, x_t, s, t) < 4
        biased.append(standard_errors(naive_target, exact, mix, x_t, s, t))
    assert max(biased) > 15  # control


def test_the_target_is_the_formula_of_lightx2v():
    """ModelTC/LightX2V dmd/math.py writes Eq. 11 for the rectified flow with beta = sigma_ts."""
    s, t = pairs()
    x_s, eps = normal(len(s), seed=4), normal(len(s), seed=5)
    alpha = (1 - t) / (1 - s)
    beta = (t**2 - alpha**2 * s**2).sqrt()
    expected = -x_s / (1 - s) + (t + (1 - t) * s**2 / (1 - s) ** 2) / beta * eps
    got = objectives.velocity_target(RECTIFIED, x_s, eps, s, t)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    other = objectives.velocity_target(COSINE, x_s, eps, s, t)  # control
    assert not torch.allclose(other, expected, rtol=1e-2)


# The last phase


def test_the_last_phase_reduces_to_plain_dmd(flow):
    t = torch.linspace(0.05, 0.95, 50, dtype=DOUBLE)
    x, eps = normal(50, 3, seed=4), normal(50, 3, seed=5)
    weight_of_eq_7 = flow.alpha(t) ** 2 / (flow.alpha(t) * flow.sigma(t) + flow.sigma(t) ** 2)
    s = torch.zeros_like(t)
    torch.testing.assert_close(objectives.velocity_target(flow, x, eps, s, t), eps - x)
    torch.testing.assert_close(objectives.data_target(flow, x, eps, s, t), x)
    torch.testing.assert_close(objectives.generator_weight(flow, s, t), weight_of_eq_7)
    s, t = torch.full_like(t, 0.5), 0.5 + t / 2  # control: an earlier phase
    weight_of_eq_7 = flow.alpha(t) ** 2 / (flow.alpha(t) * flow.sigma(t) + flow.sigma(t) ** 2)
    assert not torch.allclose(objectives.velocity_target(flow, x, eps, s, t), eps - x, rtol=0.1)
    assert not torch.allclose(objectives.data_target(flow, x, eps, s, t), x, rtol=0.1)
    assert not torch.allclose(objectives.generator_weight(flow, s, t), weight_of_eq_7, rtol=0.1)


def test_the_subinterval_loss_at_data_is_the_flow_loss_where_the_clamp_is_idle(flow):
    v, x, eps = normal(50, 3, seed=4), normal(50, 3, seed=5), normal(50, 3, seed=6)
    t = torch.linspace(0.35, 0.95, 50, dtype=DOUBLE)  # sigma_t^2 > .1 for both schedules
    got = objectives.subinterval_loss(flow, v, x, eps, torch.zeros_like(t), t)
    torch.testing.assert_close(got, objectives.flow_loss(v, x, eps))
    early = objectives.subinterval_loss(flow, v, x, eps, torch.zeros_like(t), t / 10)  # control
    assert (early < objectives.flow_loss(v, x, eps)).all()


# Eq. 12: the data target


def test_the_velocity_and_data_targets_agree(flow):
    s, t = pairs()
    x_s, eps = normal(len(s), 2, seed=4), normal(len(s), 2, seed=5)
    x_t = renoise(flow, x_s, eps, s, t)
    velocity = objectives.velocity_target(flow, x_s, eps, s, t)
    data = objectives.data_target(flow, x_s, eps, s, t)
    alpha, sigma = flow.alpha(t)[:, None], flow.sigma(t)[:, None]
    torch.testing.assert_close((x_t - sigma * velocity) / (alpha + sigma), data)
    torch.testing.assert_close(predict_x0(flow, x_t, velocity, t), data)
    assert not torch.allclose(predict_x0(flow, x_t, eps - x_s, t), data, rtol=1e-2)  # control


def test_the_rectified_targets_are_one_euler_step_apart():
    s, t = pairs()
    x_s, eps = normal(len(s), 2, seed=4), normal(len(s), 2, seed=5)
    x_t = renoise(RECTIFIED, x_s, eps, s, t)
    euler = x_t - t[:, None] * objectives.velocity_target(RECTIFIED, x_s, eps, s, t)
    torch.testing.assert_close(euler, objectives.data_target(RECTIFIED, x_s, eps, s, t))


@pytest.mark.parametrize(("s", "t"), [(0.25, 0.6), (0.5, 0.9), (5 / 6, 0.95)])
@pytest.mark.parametrize("dimension", [1, 2])
def test_the_minimiser_of_eq_12_is_the_mean_of_the_clean_sample(flow, dimension, s, t):
    mix = mixture(dimension, flow)
    side = 4001 if dimension == 1 else 301
    for x_t in normal(2, dimension):
        time = full_like_time(t, x_t[None])
        exact = predict_x0(flow, x_t[None], mix.velocity(x_t[None], time), time)[0]
        unbiased = quadrature(objectives.data_target, mix, x_t, s, t, side)
        torch.testing.assert_close(unbiased, exact, rtol=1e-6, atol=1e-6)
        biased = quadrature(naive_data_target, mix, x_t, s, t, side)  # control
        assert (biased - exact).abs().max() > 0.02


# Eq. 13: the clamped loss


def squared_error(flow: Flow, v: Tensor, x_s: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """The loss of Eq. 11 as written, which divides by sigma_ts."""
    target = objectives.velocity_target(flow, x_s, eps, s, t)
    return (v - target).square().flatten(1).mean(1)


def test_the_clamp_is_a_weight_on_the_squared_error_of_eq_11(flow):
    s, t = pairs()
    v, x_s, eps = (normal(len(s), 2, seed=seed) for seed in (4, 5, 6))
    _, sigma_ts = transition(flow, s, t)
    plain = squared_error(flow, v, x_s, eps, s, t)
    weight = (10 * sigma_ts**2).clamp(max=1)
    assert 0.1 < (weight < 1).double().mean() < 0.9  # both sides of the clamp are met
    got = objectives.subinterval_loss(flow, v, x_s, eps, s, t)
    torch.testing.assert_close(got, weight * plain, rtol=1e-8, atol=0)
    assert ((got - plain).abs() > 0.1 * plain).any()  # control: no clamp


def test_the_clamp_sets_in_where_the_paper_s_numbers_put_it():
    """Idle above t = .941 at s = .9375, .844 at .8333, .767 at .75 and .55 at .5."""
    for s, edge in ((0.9375, 0.941), (5 / 6, 0.844), (0.75, 0.767), (0.5, 0.55)):
        around = torch.tensor([edge - 1e-3, edge + 1e-3], dtype=DOUBLE)
        _, sigma_ts = transition(RECTIFIED, torch.tensor(s, dtype=DOUBLE), around)
        below, above = (10 * sigma_ts**2).tolist()
        assert below < 1 < above


def test_an_open_clamp_leaves_the_squared_error_of_eq_11(flow):
    s, t = pairs()
    v, x_s, eps = (normal(len(s), 2, seed=seed) for seed in (4, 5, 6))
    got = objectives.subinterval_loss(flow, v, x_s, eps, s, t, clamp=float("inf"))
    torch.testing.assert_close(got, squared_error(flow, v, x_s, eps, s, t), rtol=1e-8, atol=0)


@pytest.mark.parametrize("s", [0.0, 0.5, 5 / 6, 0.9375])
@pytest.mark.parametrize("where", ["just after s", "at s", "at noise"])
def test_the_loss_and_its_gradient_are_finite_in_float32(flow, s, where):
    s = torch.full((16,), s)
    t = {"just after s": s + 1e-7, "at s": s, "at noise": torch.ones_like(s)}[where]
    v = normal(16, 3, seed=4).float().requires_grad_()
    x_s, eps = normal(16, 3, seed=5).float(), normal(16, 3, seed=6).float()
    loss = objectives.subinterval_loss(flow, v, x_s, eps, s, t)
    (gradient,) = torch.autograd.grad(loss.sum(), v)
    assert loss.isfinite().all()
    assert gradient.isfinite().all()
    exact = objectives.subinterval_loss(flow, *(a.double() for a in (v, x_s, eps, s, t)))
    torch.testing.assert_close(loss.double(), exact, rtol=1e-4, atol=0)
    if where == "at s":
        assert not squared_error(flow, v, x_s, eps, s, t).isfinite().any()  # control


def test_the_biased_loss_is_the_flow_loss_of_the_wrong_sample():
    v, x_s, eps = (normal(16, 2, seed=seed) for seed in (4, 5, 6))
    expected = (v - (eps - x_s)).square().mean(1)
    torch.testing.assert_close(objectives.biased_loss(v, x_s, eps), expected)
    s, t = torch.full((16,), 0.5, dtype=DOUBLE), torch.full((16,), 0.9, dtype=DOUBLE)
    unbiased = objectives.subinterval_loss(RECTIFIED, v, x_s, eps, s, t)
    assert not torch.allclose(unbiased, expected, rtol=0.1)  # control


# Eqs. 7 and 10: the generator's gradient


@pytest.mark.parametrize(("s", "t"), [(0.0, 0.3), (0.5, 0.9), (5 / 6, 0.95)])
@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_the_gradient_is_alpha_ts_times_the_difference_of_scores(flow, dimension, s, t):
    teacher, student = mixture(dimension, flow), mixture(dimension + 3, flow, std=0.4)
    student = GaussianMixture(student.means[:, :dimension], student.weights, 0.4, flow)
    x = normal(200, dimension).requires_grad_()
    time_s, time_t = full_like_time(s, x), full_like_time(t, x)
    log_ratio = student.log_density(x, time_t) - teacher.log_density(x, time_t)
    (score_difference,) = torch.autograd.grad(log_ratio.sum(), x)
    alpha_ts, _ = transition(flow, time_s, time_t)
    expected = alpha_ts[:, None] * score_difference
    x = x.detach()
    velocities = teacher.velocity(x, time_t), student.velocity(x, time_t)
    got = objectives.generator_gradient(flow, *velocities, time_s, time_t)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-8)
    unweighted = velocities[0] - velocities[1]  # control
    assert not torch.allclose(unweighted, expected, rtol=0.1)


TEACHER_STD, S, T = 0.8, 0.5, 0.75


def one_gaussian(flow: Flow, mean: Tensor | float, std: float) -> GaussianMixture:
    means = torch.as_tensor(mean, dtype=DOUBLE).detach().view(1, 1)
    return GaussianMixture(means, torch.ones(1, dtype=DOUBLE), std, flow)


def clean_std(flow: Flow, scale: Tensor) -> float:
    """Standard deviation of the x_0 whose marginal at S has the standard deviation `scale`."""
    s = torch.tensor(S, dtype=DOUBLE)
    return (((scale.detach() ** 2 - flow.sigma(s) ** 2).sqrt()) / flow.alpha(s)).item()


def divergence(flow: Flow, mean: Tensor, scale: Tensor) -> Tensor:
    """KL at time T of generator samples N(mean, scale^2) at time S from the teacher N(0, std^2)."""
    s, t = torch.tensor(S, dtype=DOUBLE), torch.tensor(T, dtype=DOUBLE)
    alpha_ts, sigma_ts = transition(flow, s, t)
    fake = (alpha_ts * scale) ** 2 + sigma_ts**2
    real = (flow.alpha(t) * TEACHER_STD) ** 2 + flow.sigma(t) ** 2
    return 0.5 * ((fake + (alpha_ts * mean) ** 2) / real - 1 - (fake / real).log())


def sampled_gradients(
    flow: Flow, mean: Tensor, scale: Tensor, swap: bool = False, count: int = 20_000
) -> tuple[Tensor, Tensor]:
    """Per-sample gradients, each (count,), for mean and scale, by way of x_s = mean + scale z."""
    z, eps = normal(count, 1, seed=7), normal(count, 1, seed=8)
    x_s = mean.detach() + scale.detach() * z
    s, t = full_like_time(S, x_s), full_like_time(T, x_s)
    x_t = renoise(flow, x_s, eps, s, t)
    teacher = one_gaussian(flow, 0.0, TEACHER_STD).velocity(x_t, t)
    student = one_gaussian(flow, mean / flow.alpha(s[0]), clean_std(flow, scale))
    fake = student.velocity(x_t, t)
    if swap:
        teacher, fake = fake, teacher
    gradient = objectives.generator_gradient(flow, teacher, fake, s, t)
    return gradient[:, 0], (gradient * z)[:, 0]


def test_the_mean_gradient_is_that_of_the_reverse_kl(flow):
    mean = torch.tensor(0.6, dtype=DOUBLE, requires_grad=True)
    scale = torch.tensor(1.1, dtype=DOUBLE, requires_grad=True)
    exact = torch.autograd.grad(divergence(flow, mean, scale), (mean, scale))
    sampled = sampled_gradients(flow, mean, scale)
    swapped = sampled_gradients(flow, mean, scale, swap=True)  # control
    for truth, values, wrong in zip(exact, sampled, swapped, strict=True):
        error = values.std() / len(values) ** 0.5
        assert abs(values.mean() - truth) < 4 * error
        assert abs(wrong.mean() - truth) > 20 * error


@pytest.mark.parametrize("swap", [False, True])
def test_descent_lowers_the_kl_and_swapped_scores_raise_it(flow, swap):
    mean, scale = torch.tensor(0.6, dtype=DOUBLE), torch.tensor(1.1, dtype=DOUBLE)
    history = [divergence(flow, mean, scale).item()]
    for _ in range(10):
        for_mean, for_scale = sampled_gradients(flow, mean, scale, swap, count=2000)
        mean, scale = mean - 0.2 * for_mean.mean(), scale - 0.2 * for_scale.mean()
        history.append(divergence(flow, mean, scale).item())
    falling = all(later < earlier for earlier, later in pairwise(history))
    rising = all(later > earlier for earlier, later in pairwise(history))
    assert (falling, rising) == (not swap, swap)


def test_the_surrogate_passes_the_gradient_on_and_nothing_else():
    x_s, gradient = normal(8, 3).requires_grad_(), normal(8, 3, seed=4).requires_grad_()
    objectives.surrogate_loss(x_s, gradient).sum().backward()
    torch.testing.assert_close(x_s.grad, gradient.detach() / 3)
    assert gradient.grad is None
    (x_s.detach() * gradient).mean(1).sum().backward()  # control: not detached
    assert gradient.grad is not None


# The normalised gradient of DMD2


def normalised_case(count: int = 24) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x_t, teacher, fake, t, x0_student, with sizes that differ from row to row."""
    size = torch.linspace(0.1, 10, count, dtype=DOUBLE)[:, None]
    x_t, teacher, fake, x0 = (size * normal(count, 3, seed=seed) for seed in (4, 5, 6, 7))
    return x_t, teacher, fake, torch.linspace(0.55, 0.95, count, dtype=DOUBLE), x0


@pytest.mark.parametrize("per", ["sample", "batch"])
def test_normalising_keeps_the_direction_of_every_sample(flow, per):
    x_t, teacher, fake, t, x0 = normalised_case()
    got = objectives.normalised_gradient(flow, x_t, teacher, fake, t, x0, per=per)
    literal = objectives.generator_gradient(flow, teacher, fake, torch.full_like(t, 0.5), t)
    cosine = torch.cosine_similarity(got, literal)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))
    swapped = objectives.normalised_gradient(flow, x_t, fake, teacher, t, x0, per=per)  # control
    assert (torch.cosine_similarity(swapped, literal) < 0).all()


def test_the_normalised_gradient_is_the_residual_over_the_distance(flow):
    x_t, teacher, fake, t, x0 = normalised_case()
    x0_teacher, x0_fake = (predict_x0(flow, x_t, v, t) for v in (teacher, fake))
    distance = (x0 - x0_teacher).abs().mean(1)
    for per, scale in (("sample", distance[:, None]), ("batch", distance.mean())):
        got = objectives.normalised_gradient(flow, x_t, teacher, fake, t, x0, per=per)
        torch.testing.assert_close(got, (x0_fake - x0_teacher) / scale)
    assert not torch.allclose(got, (x0_fake - x0_teacher) / distance[:, None])  # control


@pytest.mark.parametrize("per", ["sample", "batch"])
def test_a_run_s_normalised_gradient_is_what_it_is_alone(flow, per):
    runs, case = 3, normalised_case()
    together = objectives.normalised_gradient(flow, *case, runs=runs, per=per)
    for run in range(runs):
        alone = objectives.normalised_gradient(flow, *[a[run::runs] for a in case], per=per)
        torch.testing.assert_close(together[run::runs], alone)
    if per == "batch":  # control: one denominator for all
        pooled = objectives.normalised_gradient(flow, *case, runs=1, per=per)
        assert not torch.allclose(pooled[0::runs], together[0::runs], rtol=1e-3)


def test_the_normalised_gradient_is_finite_where_student_and_teacher_agree(flow):
    x_t, teacher, fake, t, _ = (a.float() for a in normalised_case())
    x0 = predict_x0(flow, x_t, teacher, t)
    got = objectives.normalised_gradient(flow, x_t, teacher, fake, t, x0)
    assert got.isfinite().all()
    residual = predict_x0(flow, x_t, fake, t) - x0
    assert not (residual / (x0 - x0).abs().mean(1, keepdim=True)).isfinite().any()  # control


# Small helpers


def test_a_mean_per_run_follows_the_interleaved_rows():
    loss = torch.tensor([1.0, 10.0, 3.0, 30.0])  # sample 0 of runs 0, 1; sample 1 of runs 0, 1
    assert objectives.per_run_mean(loss, 2).tolist() == [2.0, 20.0]
    assert loss.view(2, -1).mean(1).tolist() != [2.0, 20.0]  # control: run after run


def test_times_take_the_type_of_what_they_go_with():
    like = torch.zeros(3, 2, dtype=DOUBLE)
    t = full_like_time(1 / 3, like)
    assert (t.shape, t.dtype) == ((3,), DOUBLE)
    assert t[0].item() == 1 / 3
    assert full_like_time(1 / 3, like.float())[0].item() != 1 / 3  # control: float32 rounds


def test_the_atoms_of_the_toy_are_those_of_the_package():
    toy, package = toy_of_fig_2(), atoms([-1, 0, 1, 2])
    x, t = torch.linspace(-2, 3, 20)[:, None], torch.full((20,), 0.7)
    exact = toy.velocity(x.double(), t.double())
    assert math.isclose(package.weights.sum().item(), 1)
    torch.testing.assert_close(package.velocity(x, t).double(), exact, rtol=1e-4, atol=1e-5)


# ---- other rules for the generator and the fake


def residuals(rows=6, size=5):
    draw = torch.Generator().manual_seed(3)
    x_t, teacher, fake, own = (torch.randn(rows, size, generator=draw) for _ in range(4))
    return x_t, teacher, fake, torch.rand(rows, generator=draw) * 0.8 + 0.1, own


def test_the_projected_gradient_has_nothing_along_the_students_own_residual():
    x_t, teacher, fake, t, own = residuals()
    plain = objectives.normalised_gradient(RECTIFIED, x_t, teacher, fake, t, own)
    found = objectives.normalised_gradient(RECTIFIED, x_t, teacher, fake, t, own, project=True)
    axis = own - predict_x0(RECTIFIED, x_t, fake, t)
    assert (found * axis).sum(1).abs().max() < 1e-5
    assert (plain * axis).sum(1).abs().max() > 0.1  # control
    along = axis * ((plain * axis).sum(1) / axis.square().sum(1))[:, None]
    torch.testing.assert_close(found, plain - along)


def test_a_direction_stays_where_there_is_no_axis():
    direction = torch.ones(2, 3)
    axis = torch.tensor([[0.0, 0, 0], [1, 0, 0]])
    found = objectives.without_parallel(direction, axis)
    assert found[0].tolist() == [1, 1, 1]
    assert found[1].tolist() == pytest.approx([0, 1, 1], abs=1e-6)


def test_the_estimates_target_is_eq_8_where_the_student_ends_at_data():
    x_0, eps, v, t, _ = residuals()
    x_t = (1 - t)[:, None] * x_0 + t[:, None] * eps
    found = objectives.estimate_loss(RECTIFIED, v, x_t, x_0, eps, t)
    torch.testing.assert_close(found, objectives.flow_loss(v, x_0, eps), rtol=1e-3, atol=1e-4)


def test_the_estimates_target_is_the_students_own_estimate():
    """A velocity that predicts the estimate from x_t has no loss, at any end of a phase."""
    own, eps, x_s, t, _ = residuals()
    t = 0.5 + 0.4 * t
    x_t = renoise(RECTIFIED, x_s, eps, torch.full_like(t, 0.5), t)
    right = (x_t - own) / t[:, None]  # x_0 = x_t - t v
    assert objectives.estimate_loss(RECTIFIED, right, x_t, own, eps, t).abs().max() < 1e-6
    wrong = (x_t - x_s) / t[:, None]  # control
    assert objectives.estimate_loss(RECTIFIED, wrong, x_t, own, eps, t).min() > 0.01
