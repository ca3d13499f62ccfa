import math

import pytest
import torch

from pdmd.metrics.modes import energy_distance, mixture_metrics
from pdmd.models.mixture import grid_mixture
from pdmd.streams import Stream

MIXTURE = grid_mixture(5, 0.08, 0, 0.3)


def draw(seed, n=8000):
    return MIXTURE.draw(Stream([seed], 0, "test"), n)


REFERENCE = draw(100, 4000)


def score(x):
    return mixture_metrics(x, MIXTURE, REFERENCE)


def nearest(x):
    return torch.cdist(x, MIXTURE.means).argmin(1)


def test_perfect_samples_score_perfectly():
    found = score(draw(1))
    entropy = -(MIXTURE.weights * MIXTURE.weights.log()).sum()
    assert found["inliers"] == pytest.approx(1 - math.exp(-8), abs=1e-3)
    assert found["modes_covered"] == 25
    assert found["effective_modes"] == pytest.approx(float(entropy.exp()), rel=0.01)
    assert found["tv"] < 0.04
    assert found["spread"] == pytest.approx(1, abs=0.02)
    assert abs(found["energy"]) < 5e-3


def test_dropped_modes_are_counted_and_nothing_else_suffers():
    x = draw(1)
    kept = x[nearest(x) >= 5]
    found = score(kept)
    assert found["modes_covered"] == 20
    assert found["tv"] == pytest.approx(float(MIXTURE.weights[:5].sum()), abs=0.03)
    assert found["effective_modes"] < score(x)["effective_modes"] - 3
    assert found["inliers"] > 0.999
    assert found["spread"] == pytest.approx(1, abs=0.03)
    assert found["energy"] > 0.05


def test_a_mode_with_a_sixth_of_its_weight_is_not_covered_with_a_quarter_it_is():
    x = draw(1, 20_000)
    mine = (nearest(x) == 12).nonzero()[:, 0]
    for share, covered in ((6, 24), (4, 25)):
        drop = mine[torch.arange(len(mine)) % share != 0]
        keep = torch.ones(len(x), dtype=torch.bool)
        keep[drop] = False
        assert score(x[keep])["modes_covered"] == covered


def test_blurred_samples_lose_inliers_and_gain_spread_not_modes():
    x = draw(1) + 0.08 * Stream([2], 0, "blur").normal(8000, (2,))
    found = score(x)
    inside = 1 - 4 / (math.exp(4) - 1)  # mean of Exp(1) cut at 4: inliers alone are measured
    assert found["spread"] == pytest.approx((2 * inside) ** 0.5, abs=0.01)
    assert found["inliers"] == pytest.approx(1 - math.exp(-4), abs=0.01)
    assert found["modes_covered"] == 25
    blurrier = score(draw(1) + 0.3 * Stream([2], 0, "blur").normal(8000, (2,)))
    assert blurrier["inliers"] < 0.6


def test_narrow_modes_have_little_spread():
    x = draw(1)
    found = score(MIXTURE.means[nearest(x)] + 0.5 * (x - MIXTURE.means[nearest(x)]))
    assert found["spread"] == pytest.approx(0.5, abs=0.01)
    assert found["inliers"] == 1
    assert found["modes_covered"] == 25


def test_collapse_onto_one_point_is_one_mode_without_spread():
    found = score(MIXTURE.means[7].repeat(500, 1))
    assert (found["inliers"], found["modes_covered"]) == (1, 1)
    assert found["effective_modes"] == pytest.approx(1)
    assert found["tv"] == pytest.approx(1 - float(MIXTURE.weights[7]), abs=1e-6)
    assert found["spread"] == 0
    assert found["energy"] > 1


def test_samples_far_from_every_mode_cover_none_at_the_greatest_distance():
    found = score(torch.full((100, 2), 50.0) + torch.rand(100, 2))
    assert (found["inliers"], found["modes_covered"], found["effective_modes"]) == (0, 0, 0)
    assert found["tv"] == 1
    assert found["spread"] is None  # there is nothing to have one
    some = score(torch.cat([torch.full((100, 2), 50.0), draw(1, 2000)]))  # control
    assert some["tv"] < 0.1
    assert some["effective_modes"] > 20
    assert some["spread"] == pytest.approx(1, abs=0.05)


def test_modes_with_one_inlier_each_have_no_spread():
    assert score(MIXTURE.means[:4])["spread"] is None
    assert score(MIXTURE.means[:4].repeat(2, 1))["spread"] == pytest.approx(0, abs=1e-6)


def test_the_energy_distance_is_that_of_a_loop_over_pairs():
    x, y = torch.randn(7, 2), torch.randn(5, 2) + 1

    def mean(pairs):
        distances = [float((a - b).norm()) for a, b in pairs]
        return sum(distances) / len(distances)

    between = mean((a, b) for a in x for b in y)
    within = [
        mean((s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j) for s in (x, y)
    ]
    assert energy_distance(x, y) == pytest.approx(2 * between - sum(within), abs=1e-5)


def test_the_energy_distance_is_unbiased_at_zero_and_sees_a_shift():
    values = [energy_distance(draw(seed, 300), draw(seed + 50, 300)) for seed in range(20)]
    assert abs(sum(values) / 20) < 4e-3
    assert min(values) < 0 < max(values)
    assert energy_distance(draw(1, 300) + 0.5, draw(51, 300)) > 0.05  # control
