import pytest
import torch

from pdmd.phases import Phase, split_phases, step_grid


def two_phases(interval: str = "nested", margin: float = 0.0) -> tuple[Phase, ...]:
    return split_phases(4, (2, 4), shift=5.0, interval=interval, margin=margin)


@pytest.mark.parametrize(
    ("shift", "thousandths"), [(5.0, (1000, 937.5, 833.3, 625)), (3.0, (1000, 900, 750, 500))]
)
def test_the_step_grid_is_the_one_of_the_paper(shift, thousandths):
    grid = [1000 * t for t in step_grid(4, shift)]
    assert grid == pytest.approx([*thousandths, 0], abs=0.05)
    unshifted = [1000 * t for t in step_grid(4, 1.0)]  # control
    assert unshifted != pytest.approx([*thousandths, 0], abs=0.05)


def test_the_step_grid_runs_from_exactly_one_to_exactly_zero():
    for steps in (1, 3, 4, 50):
        grid = step_grid(steps, 5.0)
        assert (grid[0], grid[-1], len(grid)) == (1.0, 0.0, steps + 1)
        assert list(grid) == sorted(grid, reverse=True)


def test_two_phases_of_four_steps_end_at_five_sixths_and_at_data():
    first, second = two_phases()
    assert first.end == pytest.approx(5 / 6)
    assert second.end == 0
    assert [(p.number, p.first, p.last) for p in (first, second)] == [(1, 0, 2), (2, 2, 4)]
    assert first.times == second.times == step_grid(4, 5.0)
    assert split_phases(4, (1, 4), 5.0, "nested", 0.0)[0].end != pytest.approx(5 / 6)  # control


def test_the_phases_take_each_step_once():
    for boundaries in ((4,), (2, 4), (1, 4), (1, 2, 3, 4)):
        phases = split_phases(4, boundaries, 5.0, "nested", 0.0)
        steps = [i for phase in phases for i in range(phase.first, phase.last)]
        assert steps == [0, 1, 2, 3]


def test_nested_ranges_reach_noise_and_each_contains_the_one_before():
    first, second = two_phases("nested")
    assert (first.raw_low, first.raw_high) == (0.5, 1.0)
    assert (second.raw_low, second.raw_high) == (0.0, 1.0)


def test_disjoint_ranges_meet_and_do_not_overlap():
    first, second = two_phases("disjoint")
    assert (first.raw_low, first.raw_high) == (0.5, 1.0)
    assert (second.raw_low, second.raw_high) == (0.0, 0.5)
    assert second.raw_high != two_phases("nested")[1].raw_high  # control


@pytest.mark.parametrize("interval", ["nested", "disjoint"])
def test_renoise_times_stay_inside_the_phase_and_reach_its_ends(interval):
    margin = 1e-3
    uniform = torch.cat([torch.zeros(1), torch.rand(10_000), torch.tensor([1 - 1e-7])])
    for phase in two_phases(interval, margin):
        t = phase.renoise_times(uniform)
        top = 1.0 if interval == "nested" or phase.number == 1 else 5 / 6
        assert t.min() >= phase.end + margin - 1e-6
        assert t.max() <= top - (margin if top == 1 else 0) + 1e-6
        assert t.min() < phase.end + 0.01
        assert t.max() > top - 0.01


def test_disjoint_times_never_reach_the_range_that_nested_times_do():
    uniform = torch.rand(10_000)
    assert two_phases("disjoint")[1].renoise_times(uniform).max() <= 5 / 6 + 1e-6
    share = (two_phases("nested")[1].renoise_times(uniform) > 5 / 6).float().mean()  # control
    assert 0.47 < share < 0.53


def test_renoise_times_are_uniform_before_the_shift():
    """P(t > .875) is 41.7% in the last phase of the paper's grid (raw u > .5833)."""
    uniform = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    t = two_phases()[1].renoise_times(uniform)
    assert (t > 0.875).double().mean().item() == pytest.approx(0.4167, abs=1e-3)
    assert (uniform > 0.875).double().mean().item() != pytest.approx(0.4167, abs=1e-3)  # control


def test_the_margin_keeps_times_away_from_both_ends_of_the_range():
    u = torch.tensor([0.0, 1.0], dtype=torch.float64)
    phase = two_phases(margin=0.02)[0]
    assert phase.renoise_times(u).tolist() == pytest.approx([5 / 6 + 0.02, 0.98])
    assert two_phases(margin=0.0)[0].renoise_times(u).tolist() == pytest.approx([5 / 6, 1.0])


def test_four_phases_have_one_step_and_a_nested_range_each():
    phases = split_phases(4, (1, 2, 3, 4), 5.0, "nested", 0.0)
    assert [p.last - p.first for p in phases] == [1, 1, 1, 1]
    assert [1000 * p.end for p in phases] == pytest.approx([937.5, 833.33, 625, 0], abs=0.01)
    ranges = [(p.raw_low, p.raw_high) for p in phases]
    assert ranges == [(0.75, 1.0), (0.5, 1.0), (0.25, 1.0), (0.0, 1.0)]
    disjoint = split_phases(4, (1, 2, 3, 4), 5.0, "disjoint", 0.0)
    assert [p.raw_high for p in disjoint] == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize(
    "boundaries",
    [
        (),
        (2,),
        (2, 5),
        (4, 2),
        (2, 2, 4),
        (0, 4),
        (-1, 4),
    ],
)
def test_bad_boundaries_are_refused_by_name(boundaries):
    with pytest.raises(ValueError, match=r"boundaries: .*expected") as error:
        split_phases(4, boundaries, 5.0, "nested", 0.0)
    assert str(list(boundaries)) in str(error.value)


def test_an_unknown_interval_is_refused_by_name():
    with pytest.raises(ValueError, match="interval: 'reverse': expected 'nested' or 'disjoint'"):
        split_phases(4, (2, 4), 5.0, "reverse", 0.0)
