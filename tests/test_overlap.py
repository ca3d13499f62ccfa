"""The least overlap of noised laws, and the noise levels where it is some share."""

import math
from statistics import NormalDist

import pytest
import torch

from pdmd.config.times import ROOM, clamped, fit_range
from pdmd.flow import COSINE, RECTIFIED, transition
from pdmd.overlap import level_of, overlap_at
from pdmd.stages.ranges import OVERLAP, wished_range

ONE = torch.ones(1, dtype=torch.float64)


def constant(gap):
    """The distances of two laws that differ by a shift alone."""
    return torch.full((7, 1), gap, dtype=torch.float64)


def analytic(gap, end, share):
    """Where N(0, sigma_ts^2) and N(alpha_ts gap, sigma_ts^2) of the rectified flow have a share in
    common: 2 Phi(-d / 2) = share at d = alpha_ts gap / sigma_ts, solved for t by hand."""
    d = -2 * NormalDist().inv_cdf(share / 2)
    # sigma_ts / alpha_ts = (1 - s) sqrt((t / (1 - t))^2 - (s / (1 - s))^2)
    odds = math.hypot(gap / d, end) / (1 - end)
    return odds / (1 + odds)


@pytest.mark.parametrize("end", [0.0, 0.5])
@pytest.mark.parametrize("gap", [0.1, 1.0, 20.0])
def test_the_range_of_two_gaussians_is_the_analytic_one(gap, end):
    found = wished_range(RECTIFIED, constant(gap), ONE, end)
    assert found == pytest.approx([analytic(gap, end, share) for share in OVERLAP], abs=1e-9)
    wrong = wished_range(RECTIFIED, constant(gap), ONE, end, (0.25, 0.75))  # control
    assert wrong != pytest.approx(found, abs=1e-3)
    assert wrong == pytest.approx([analytic(gap, end, s) for s in (0.25, 0.75)], abs=1e-9)


def test_the_overlap_is_the_integral_of_the_lesser_density(flow):
    end, t, gap = 0.3, 0.6, 0.7
    alpha, sigma = transition(flow, *(torch.tensor(one, dtype=torch.float64) for one in (end, t)))
    x = torch.linspace(-9, 9, 200_001, dtype=torch.float64)
    means = torch.tensor([0.0, float(alpha) * gap])[:, None]
    densities = torch.exp(-(((x - means) / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))
    integral = float(densities.min(0).values.sum() * (x[1] - x[0]))
    assert overlap_at(flow, constant(gap), ONE, end, t) == pytest.approx(integral, abs=1e-5)
    assert overlap_at(flow, constant(2 * gap), ONE, end, t) < integral - 0.05  # control


def test_laws_overlap_at_least_as_much_as_their_pairs():
    """Of N(0, 1) and N(gap, 1), whose overlap is known, however samples are paired."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 20_000, 1, generator=generator, dtype=torch.float64)
    for gap in (0.2, 1.0, 3.0):
        for t in (0.1, 0.5, 0.9):
            distance = (1 - t) * gap / math.hypot(1 - t, t)
            true = 2 * NormalDist().cdf(-distance / 2)
            same = overlap_at(RECTIFIED, constant(gap), ONE, 0.0, t)  # the pair of one noise
            apart = overlap_at(RECTIFIED, (y + gap - x).abs(), ONE, 0.0, t)
            assert apart < true
            assert same < true
    assert same > apart  # control: how pairs are made matters to the bound


@pytest.mark.parametrize("flow_of", [RECTIFIED, COSINE])
def test_overlap_rises_from_nothing_at_the_end_to_all_at_one(flow_of):
    gaps = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) + 0.1
    shares = torch.tensor([0.2, 0.3, 0.5])
    times = torch.linspace(0.41, 1, 40).tolist()
    curve = [overlap_at(flow_of, gaps, shares, 0.4, t) for t in times]
    assert curve == sorted(curve)
    assert curve[-1] == pytest.approx(1)
    assert overlap_at(flow_of, gaps, shares, 0.4, 0.4001) < 0.01
    t = level_of(flow_of, gaps, shares, 0.4, 0.5)
    assert overlap_at(flow_of, gaps, shares, 0.4, t) == pytest.approx(0.5, abs=1e-6)
    other = level_of(flow_of, gaps, shares.flip(0), 0.4, 0.5)  # control: another law of exits
    assert overlap_at(flow_of, gaps, shares, 0.4, other) != pytest.approx(0.5, abs=1e-6)


def test_laws_that_are_one_overlap_everywhere():
    gaps = torch.zeros(4, 1)
    assert wished_range(RECTIFIED, gaps, ONE, 0.4) == pytest.approx((0.4, 0.4), abs=1e-9)
    assert fit_range(0.4, 0.4, 0.42, 0.98, 0.0, 1.0) == pytest.approx((0.42, 0.476))


def test_as_many_equal_numbers_more_carry_the_range_towards_noise():
    """In D numbers distances grow as sqrt(D): what is measured is of samples, not of numbers."""
    lows = [wished_range(RECTIFIED, constant(0.1 * d**0.5), ONE, 0.0)[0] for d in (1, 100, 10_000)]
    assert lows == sorted(lows)
    assert lows[0] < 0.05 < 0.7 < lows[-1]


@pytest.mark.parametrize(
    ("wished", "found"),
    [
        ((0.6, 0.9), (0.6, 0.9)),  # there is room
        ((0.1, 0.9), (0.52, 0.9)),
        ((0.6, 0.999), (0.6, 0.98)),
        ((0.99, 0.999), (0.934, 0.98)),  # above all of it: the last tenth
        ((0.1, 0.2), (0.52, 0.566)),  # below all of it: the first tenth
        ((0.7, 0.7), (0.654, 0.7)),
    ],
)
def test_a_wished_range_is_kept_within_the_phases_own(wished, found):
    assert fit_range(*wished, 0.52, 0.98, 0.0, 1.0) == pytest.approx(found)


def test_a_range_keeps_room_above_the_boundary_of_two_experts():
    """The clamp stays where the range reaches below it, unless most times were clamped."""
    within, floor, warp = (0.72, 0.98), 0.875, 5.0
    assert fit_range(0.75, 0.95, *within, floor, warp) == (0.75, 0.95)
    assert clamped(warp, 0.75, 0.95, floor) > 0
    low, high = fit_range(0.73, 0.74, *within, floor, warp)
    assert high == pytest.approx(floor + ROOM * (0.98 - floor))
    assert low == floor  # else more than nine in ten were clamped
    assert clamped(warp, 0.73, high, floor) > 1 - ROOM
    assert fit_range(0.73, 0.74, *within, 0.0, warp)[1] < floor  # control: without a boundary
