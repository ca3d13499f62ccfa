import math

import numpy as np
import pytest
from scipy import stats

from pdmd.metrics.intervals import holm, mean_interval, paired


@pytest.mark.parametrize("n", [3, 5, 20])
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


@pytest.mark.parametrize("values", [[2.5], [2.0, 3.0], [2.0, math.nan, 3.0], [None, 2.5, None]])
def test_fewer_than_three_values_have_a_mean_and_no_bounds(values):
    mean, low, high = mean_interval(values)
    assert mean == 2.5
    assert math.isnan(low)
    assert math.isnan(high)
    assert all(map(math.isfinite, mean_interval([*values, 2.4, 2.6])))  # control


def test_no_value_has_nothing():
    assert all(math.isnan(value) for value in mean_interval([]))


def test_values_that_are_not_finite_are_left_out():
    kept = mean_interval([1.0, 3.0, 4.0])
    assert mean_interval([1.0, math.nan, 3.0, math.inf, 4.0]) == kept
    assert mean_interval([1.0, 2.0, 3.0, 4.0]) != kept  # control


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
    assert mean_interval([0.5, None, 0.7, 0.8]) == mean_interval([0.5, 0.7, 0.8])
    assert mean_interval([0.5, None, 0.7, 0.8]) != mean_interval([0.5, 0.0, 0.7, 0.8])


# ---- pairs


@pytest.mark.parametrize("n", [3, 5, 20])
def test_the_paired_test_is_scipys(n):
    dice = np.random.default_rng(n)
    one = dice.normal(3, 2, n)
    other = one + dice.normal(0.4, 0.3, n)
    test = paired((other - one).tolist())
    assert test.p == pytest.approx(stats.ttest_rel(other, one).pvalue)
    assert (test.low, test.high) == pytest.approx(
        tuple(stats.ttest_rel(other, one).confidence_interval(0.95))
    )
    assert (test.p < 0.05) == (not test.low <= 0 <= test.high)
    assert test.p != pytest.approx(stats.ttest_ind(other, one).pvalue)  # control: seeds not paired


def test_fewer_than_three_pairs_are_no_test():
    assert paired([1.0, 2.0, math.nan]).n == 2
    assert math.isnan(paired([1.0, 2.0, math.nan]).p)
    assert math.isfinite(paired([1.0, 2.0, 2.5]).p)  # control


def test_equal_differences_are_no_test_unless_there_are_none():
    assert paired([0.0, 0.0, 0.0]).p == 1
    assert paired([0.1 + 0.2 - 0.3, 0.0, 0.0]).p == 1  # rounding is no difference
    same = paired([0.5, 0.5, 0.5])
    assert (same.mean, same.low, same.high) == (0.5, 0.5, 0.5)
    assert math.isnan(same.p)
    assert paired([0.5, 0.5, 0.51]).p < 0.001  # control


def test_a_difference_is_no_larger_than_the_range_is_wide():
    values = [0.9, 0.99, 0.2]
    assert paired(values).high > 1
    assert paired(values, (0, 1)).high == 1
    assert paired(values, (0, 1)).low == max(paired(values).low, -1)
    assert paired(values, (0, 1)).p == paired(values).p


def test_holms_correction_is_that_of_a_hand_worked_example_with_ties():
    """Five tests: .01 x 5, .01 x 4 (no less than before it), .02 x 3, .04 x 2, .5 x 1."""
    found = holm([0.04, 0.01, 0.5, 0.01, 0.02])
    assert found == pytest.approx([0.08, 0.05, 0.5, 0.05, 0.06])
    naive = [0.04, 0.01, 0.5, 0.01, 0.02]
    assert sum(p < 0.05 for p in naive) == 4  # control: uncorrected, four would pass
    assert sum(p < 0.0499 for p in found) == 0
    bonferroni = [min(1, 5 * p) for p in naive]
    assert found != pytest.approx(bonferroni)


def test_what_is_no_test_is_not_corrected_for():
    assert holm([0.01, math.nan, 0.02])[::2] == pytest.approx([0.02, 0.02])
    assert math.isnan(holm([0.01, math.nan, 0.02])[1])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []
