"""Grids and phase ends that are chosen from errors of single steps."""

from itertools import combinations, pairwise

import numpy as np
import pytest

from pdmd.grids import best_grid, lattice, phase_ends, step_costs


def random_errors(seed, levels=8):
    return np.triu(np.random.default_rng(seed).random((levels, levels)), 1)


def every_grid(errors, steps):
    """(sum, indices) of every grid of so many steps."""
    last = len(errors) - 1
    for inner in combinations(range(1, last), steps - 1):
        grid = (0, *inner, last)
        yield sum(errors[i, j] for i, j in pairwise(grid)), grid


def greedy(errors, steps):
    """Indices that are evenly spaced: the control of choices."""
    return tuple(np.linspace(0, len(errors) - 1, steps + 1).round().astype(int))


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("seed", range(5))
def test_the_best_grid_is_the_best_of_all(steps, seed):
    errors = random_errors(seed)
    least, grid = min(every_grid(errors, steps))
    found, total = best_grid(errors, steps)
    assert found == grid
    assert total == pytest.approx(least)


def test_even_grids_are_not_the_best_of_random_errors():
    """The control: the test above is seen to fail for another choice."""
    errors = random_errors(0)
    assert greedy(errors, 3) != min(every_grid(errors, 3))[1]


def euler_errors(levels):
    """Squared errors of Euler steps of x' = x^2 t, whose fine solution is known."""
    t = np.asarray(levels)
    true = 1 / (1.5 - t**2 / 2)
    slope = true**2 * t
    step = true[:, None] + slope[:, None] * (t[None, :] - t[:, None])
    return np.triu((step - true[None, :]) ** 2, 1)


def test_more_steps_never_cost_more_where_half_steps_err_less():
    errors = euler_errors(lattice(24))
    costs = [best_grid(errors, steps)[1] for steps in range(1, 24)]
    assert all(more < less for less, more in pairwise(costs))
    backwards = np.where(errors > 0, 1.0, 0)  # control: where each step costs the same, they do
    assert best_grid(backwards, 3)[1] > best_grid(backwards, 2)[1]


def test_too_many_steps_are_refused_by_number():
    with pytest.raises(ValueError, match="steps: 8: expected 1 to 7"):
        best_grid(random_errors(0), 8)


def test_levels_run_from_one_to_zero_and_are_finer_at_both_ends():
    levels = lattice(24)
    gaps = -np.diff(levels)
    assert (levels[0], levels[-1], len(levels)) == (1.0, 0.0, 24)
    assert gaps.min() > 0
    assert max(gaps[0], gaps[-1]) < gaps[11] / 10
    assert levels[::-1] == pytest.approx([1 - t for t in levels])


def test_costs_at_measured_levels_are_the_measured_ones():
    levels = lattice(9)
    errors = euler_errors(levels)
    indices = (0, 2, 5, 8)
    found = step_costs(levels, errors, [levels[i] for i in indices])
    assert found == pytest.approx([errors[0, 2], errors[2, 5], errors[5, 8]])


def test_costs_between_levels_are_near_those_of_a_measurement_there():
    times = [1.0, 0.83, 0.51, 0.27, 0.0]
    found = step_costs(lattice(24), euler_errors(lattice(24)), times)
    true = euler_errors(times)[range(4), range(1, 5)]
    assert found == pytest.approx(true, rel=0.05)
    nearest = [min(lattice(24), key=lambda level, t=t: abs(level - t)) for t in times]  # control
    rough = euler_errors(nearest)[range(4), range(1, 5)]
    assert rough != pytest.approx(true, rel=0.05)


def every_division(costs, phases):
    for inner in combinations(range(1, len(costs)), phases - 1):
        ends = (*inner, len(costs))
        sums = [sum(costs[i:j]) for i, j in zip((0, *inner), ends, strict=True)]
        yield max(sums), ends


@pytest.mark.parametrize("phases", [1, 2, 3, 6])
@pytest.mark.parametrize("seed", range(5))
def test_phases_end_where_the_largest_sum_is_least(phases, seed):
    costs = np.random.default_rng(seed).random(6).tolist()
    ends = phase_ends(costs, phases)
    worst = {ends: worst for worst, ends in every_division(costs, phases)}
    assert worst[ends] == pytest.approx(min(worst.values()))


def test_even_phases_are_not_balanced_where_one_step_errs_most():
    assert phase_ends([10.0, 1, 1, 1], 2) == (1, 4)
    assert phase_ends([1.0, 1, 1, 1], 2) == (2, 4)  # control


def test_phases_without_room_are_passed_over_or_refused():
    assert phase_ends([10.0, 1, 1, 1], 2, lambda first, end: end != 1) == (2, 4)
    with pytest.raises(ValueError, match="phases: 4: expected so many that have room in 4 steps"):
        phase_ends([10.0, 1, 1, 1], 4, lambda first, end: end != 1)
