import pytest
import torch
from torch import Tensor

from pdmd.flow import (
    COSINE,
    RECTIFIED,
    Flow,
    per_sample,
    predict_x0,
    renoise,
    shift_time,
    step_to,
    transition,
    velocity_to_score,
)
from pdmd.models.mixture import GaussianMixture

DOUBLE = torch.float64


def times(*values: float, dtype: torch.dtype = DOUBLE) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def ordered_times(count: int, generator: torch.Generator) -> Tensor:
    """(3, count) times s < r < t in (0, 1)."""
    raw = torch.rand(3, count, generator=generator, dtype=DOUBLE)
    return (0.01 + 0.98 * raw).sort(0).values


def naive_sigma(flow: Flow, s: Tensor, t: Tensor) -> Tensor:
    """The control: sigma_ts as Eq. 2 writes it."""
    alpha_ts = flow.alpha(t) / flow.alpha(s)
    return (flow.sigma(t) ** 2 - (alpha_ts * flow.sigma(s)) ** 2).clamp_min(0).sqrt()


def relative_error(got: Tensor, exact: Tensor) -> float:
    return ((got.double() - exact) / exact).abs().max().item()


def test_the_transition_is_the_one_that_eq_2_writes(flow, generator):
    s, _, t = ordered_times(200, generator)
    alpha_ts, sigma_ts = transition(flow, s, t)
    torch.testing.assert_close(alpha_ts, flow.alpha(t) / flow.alpha(s))
    torch.testing.assert_close(sigma_ts, naive_sigma(flow, s, t), rtol=1e-6, atol=1e-9)


def test_two_transitions_compose_to_one(flow, generator):
    s, r, t = ordered_times(200, generator)
    alpha_rs, sigma_rs = transition(flow, s, r)
    alpha_tr, sigma_tr = transition(flow, r, t)
    alpha_ts, sigma_ts = transition(flow, s, t)
    torch.testing.assert_close(alpha_tr * alpha_rs, alpha_ts)
    torch.testing.assert_close((alpha_tr * sigma_rs) ** 2 + sigma_tr**2, sigma_ts**2)
    unscaled = sigma_rs**2 + sigma_tr**2  # control: alpha_tr forgotten
    assert not torch.allclose(unscaled, sigma_ts**2, rtol=1e-2)


def test_the_marginal_through_x_s_equals_the_marginal_from_x_0(flow, generator):
    s, _, t = ordered_times(200, generator)
    alpha_ts, sigma_ts = transition(flow, s, t)
    torch.testing.assert_close(alpha_ts * flow.alpha(s), flow.alpha(t))  # mean, Eq. 3
    variance = (alpha_ts * flow.sigma(s)) ** 2 + sigma_ts**2
    torch.testing.assert_close(variance, flow.sigma(t) ** 2)
    no_bridge = (alpha_ts * flow.sigma(s)) ** 2 + flow.sigma(t) ** 2  # control: sigma_t twice
    assert not torch.allclose(no_bridge, flow.sigma(t) ** 2, rtol=1e-2)


def test_renoised_samples_have_the_marginal_mean_and_variance(flow, generator):
    count, s, t = 100_000, times(0.4), times(0.8)
    noise = torch.randn(2, count, 1, generator=generator, dtype=DOUBLE)
    x_s = 1.5 * flow.alpha(s) + flow.sigma(s) * noise[0]
    x_t = renoise(flow, x_s, noise[1], s.expand(count), t.expand(count))
    error = (x_t.mean() - 1.5 * flow.alpha(t)) / (flow.sigma(t) / count**0.5)
    assert abs(error.item()) < 4
    ratio = x_t.var() / flow.sigma(t) ** 2
    assert abs(ratio.item() - 1) < 4 * (2 / count) ** 0.5


def test_a_transition_from_data_is_the_schedule_and_to_itself_is_nothing(flow):
    t = times(0.1, 0.5, 0.9)
    alpha_ts, sigma_ts = transition(flow, torch.zeros_like(t), t)
    torch.testing.assert_close(alpha_ts, flow.alpha(t))
    torch.testing.assert_close(sigma_ts, flow.sigma(t))
    alpha_ss, sigma_ss = transition(flow, t, t)
    assert torch.equal(alpha_ss, torch.ones_like(t))
    assert torch.equal(sigma_ss, torch.zeros_like(t))


@pytest.mark.parametrize("distance", [1e-4, 1e-5, 1e-6])
def test_float32_keeps_its_precision_as_t_nears_s(flow, distance):
    s = torch.linspace(0.05, 0.9375, 200)
    t = s + distance
    _, exact = transition(flow, s.double(), t.double())
    error = relative_error(transition(flow, s, t)[1], exact)
    assert error < 1e-6
    assert relative_error(naive_sigma(flow, s, t), exact) > 100 * error  # control


@pytest.mark.parametrize("distance", [1e-2, 1e-4, 1e-6, 0.0])
def test_float32_keeps_its_precision_as_t_nears_noise(flow, distance):
    s = times(0.0, 0.3, 0.5, 5 / 6, 0.9375, dtype=torch.float32)
    t = torch.full_like(s, 1 - distance)
    exact_alpha, exact_sigma = transition(flow, s.double(), t.double())
    alpha_ts, sigma_ts = transition(flow, s, t)
    assert relative_error(sigma_ts, exact_sigma) < 1e-5
    assert (alpha_ts.double() - exact_alpha).abs().max() < 2e-6  # cos(pi / 2) is -4e-8 in float32


def test_a_step_of_the_rectified_flow_is_an_euler_step(generator):
    x, v = torch.randn(2, 50, 3, generator=generator, dtype=DOUBLE)
    s, _, t = ordered_times(50, generator)
    euler = x + (s - t)[:, None] * v
    torch.testing.assert_close(step_to(RECTIFIED, x, v, t, s), euler)
    assert not torch.allclose(step_to(COSINE, x, v, t, s), euler, rtol=1e-2)  # control


def test_a_step_is_exact_for_a_point_mass(flow, generator):
    s, _, t = ordered_times(50, generator)
    point = torch.tensor([0.7, -1.3], dtype=DOUBLE)
    teacher = GaussianMixture(point[None], torch.ones(1, dtype=DOUBLE), 0.0, flow)
    eps = torch.randn(50, 2, generator=generator, dtype=DOUBLE)

    def at(time: Tensor) -> Tensor:
        return flow.alpha(time)[:, None] * point + flow.sigma(time)[:, None] * eps

    moved = step_to(flow, at(t), teacher.velocity(at(t), t), t, s)
    torch.testing.assert_close(moved, at(s))
    wrong = step_to(flow, at(t), -teacher.velocity(at(t), t), t, s)  # control: the sign
    assert not torch.allclose(wrong, at(s), rtol=1e-2)


def test_a_step_to_data_is_the_clean_prediction(flow, generator):
    x, v = torch.randn(2, 50, 3, generator=generator, dtype=DOUBLE)
    t = ordered_times(50, generator)[1]
    end = step_to(flow, x, v, t, torch.zeros_like(t))
    torch.testing.assert_close(end, predict_x0(flow, x, v, t))


def test_predict_x0_inverts_noising(flow, generator):
    x_0, eps = torch.randn(2, 50, 3, generator=generator, dtype=DOUBLE)
    t = ordered_times(50, generator)[1]
    x_t = flow.alpha(t)[:, None] * x_0 + flow.sigma(t)[:, None] * eps
    torch.testing.assert_close(predict_x0(flow, x_t, eps - x_0, t), x_0)
    assert not torch.allclose(predict_x0(flow, x_t, eps, t), x_0, rtol=1e-2)  # control


def test_only_the_rectified_flow_may_skip_the_division_in_predict_x0(generator):
    x, v = torch.randn(2, 50, 3, generator=generator, dtype=DOUBLE)
    t = ordered_times(50, generator)[1]
    shortcut = x - t[:, None] * v
    torch.testing.assert_close(predict_x0(RECTIFIED, x, v, t), shortcut)
    assert not torch.allclose(predict_x0(COSINE, x, v, t), shortcut, rtol=1e-2)  # control


def test_the_score_of_an_optimal_velocity_is_the_gradient_of_the_log_density(flow, generator):
    means = torch.tensor([[-1.0, 0.5], [1.0, 0.0], [0.3, -1.2]], dtype=DOUBLE)
    mixture = GaussianMixture(means, torch.tensor([0.2, 0.5, 0.3], dtype=DOUBLE), 0.3, flow)
    t = ordered_times(100, generator)[1]
    x = torch.randn(100, 2, generator=generator, dtype=DOUBLE).requires_grad_()
    (score,) = torch.autograd.grad(mixture.log_density(x, t).sum(), x)
    velocity = mixture.velocity(x.detach(), t)
    torch.testing.assert_close(velocity_to_score(flow, x.detach(), velocity, t), score)
    naive = -velocity / flow.sigma(t)[:, None]  # control: the velocity taken for the noise
    assert not torch.allclose(naive, score, rtol=1e-2)


def test_the_score_is_finite_at_pure_noise(flow, generator):
    x, v = torch.randn(2, 8, 3, generator=generator)
    t = torch.ones(8)
    score = velocity_to_score(flow, x, v, t)
    torch.testing.assert_close(score, -x, rtol=1e-5, atol=1e-6)
    divided_by_alpha = -(v + x / (1 - t)[:, None])  # control: Eq. 5 as written, alpha_1 = 0
    assert not divided_by_alpha.isfinite().all()


def test_shift_keeps_the_ends_and_moves_the_rest_towards_noise():
    u = torch.linspace(0, 1, 11, dtype=DOUBLE)
    t = shift_time(u, 5.0)
    assert t[0] == 0
    assert t[-1] == 1
    assert (t[1:-1] > u[1:-1]).all()
    assert (t.diff() > 0).all()
    torch.testing.assert_close(shift_time(u, 1.0), u)
    torch.testing.assert_close(shift_time(shift_time(u, 5.0), 0.2), u)
    torch.testing.assert_close(shift_time(times(0.5), 5.0), times(5 / 6))
    assert not torch.allclose(shift_time(times(0.5), 1 / 5.0), times(5 / 6), rtol=1e-2)  # control


def test_per_sample_multiplies_rows_and_not_columns():
    value, like = torch.tensor([1.0, 2.0]), torch.ones(2, 2, 2)
    assert torch.equal((per_sample(value, like) * like)[1], 2 * torch.ones(2, 2))
    assert not torch.equal((value * like)[1], 2 * torch.ones(2, 2))  # control: plain broadcasting
