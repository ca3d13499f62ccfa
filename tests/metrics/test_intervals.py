import math

import numpy as np
import pytest
from scipy import stats

from pdmd.metrics.intervals import mean_interval


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_the_interval_is_scipys(n):
    values = np.random.default_rng(n).normal(3, 2, n)
    mean, low, high = mean_interval(values.tolist())
    wanted = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert (mean, low, high) == pytest.approx((values.mean(), *wanted))
    normal = stats.norm.interval(0.95, loc=values.mean(), scale=stats.sem(values))
    assert high > normal[1] + 1e-6  # control: the normal law's interval is narrower


def test_it_holds_the_true_mean_ninety_five_times_in_a_hundred():
    dice = np.random.default_rng(0)
    held = [
        low <= 0 <= high
        for _, low, high in (mean_interval(dice.normal(0, 1, 3).tolist()) for _ in range(4000))
    ]
    assert np.mean(held) == pytest.approx(0.95, abs=0.012)


def test_one_value_has_a_mean_and_no_bounds():
    mean, low, high = mean_interval([2.5])
    assert mean == 2.5
    assert math.isnan(low)
    assert math.isnan(high)


def test_no_value_has_nothing():
    assert all(math.isnan(value) for value in mean_interval([]))


def test_values_that_are_not_finite_are_left_out():
    assert mean_interval([1.0, math.nan, 3.0, math.inf]) == mean_interval([1.0, 3.0])
    assert mean_interval([1.0, 2.0, 3.0]) != mean_interval([1.0, 3.0])  # control


def test_equal_values_have_an_interval_of_no_width():
    assert mean_interval([2.0, 2.0, 2.0]) == (2.0, 2.0, 2.0)


def test_an_interval_is_cut_where_the_metric_ends():
    values = [25.0, 25.0, 24.0]
    _, low, high = mean_interval(values)
    assert high > 25  # the control: of 25 modes
    mean, cut_low, cut_high = mean_interval(values, (0, 25))
    assert (mean, cut_low, cut_high) == (sum(values) / 3, low, 25)
    assert mean_interval([0.0, 0.0, 0.1], (0, 1))[1] == 0


def test_an_undefined_value_is_not_counted():
    assert mean_interval([0.5, None, 0.7]) == mean_interval([0.5, 0.7])
    assert mean_interval([0.5, None, 0.7]) != mean_interval([0.5, 0.0, 0.7])
