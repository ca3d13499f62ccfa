import pytest
import torch

from pdmd.config.sections import Renoise
from pdmd.phases import Phase, split_phases, step_grid


def two_phases(interval: str = "nested", margin: float = 0.0, **law: float) -> tuple[Phase, ...]:
    return split_phases(4, (2, 4), 5.0, interval, margin, law=Renoise(**law))


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
    assert (first.raw_low, first.raw_high) == (pytest.approx(0.5), 1.0)
    assert (second.raw_low, second.raw_high) == (0.0, 1.0)


def test_disjoint_ranges_meet_and_do_not_overlap():
    first, second = two_phases("disjoint")
    assert (first.raw_low, first.raw_high) == (pytest.approx(0.5), 1.0)
    assert (second.raw_low, second.raw_high) == (0.0, pytest.approx(0.5))
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
    assert [low for low, _ in ranges] == pytest.approx([0.75, 0.5, 0.25, 0.0])
    assert {high for _, high in ranges} == {1.0}
    disjoint = split_phases(4, (1, 2, 3, 4), 5.0, "disjoint", 0.0)
    assert [p.raw_high for p in disjoint] == pytest.approx([1.0, 0.75, 0.5, 0.25])


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


# ---- the law of re-noising


@pytest.mark.parametrize("interval", ["nested", "disjoint"])
def test_no_re_noising_time_is_an_atom(interval):
    """A clamp after the shift would put 18.5% of phase 1's draws at .98 and 37% of four phases'."""
    uniform = torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for boundaries in ((4,), (2, 4), (1, 2, 3, 4)):
        for phase in split_phases(4, boundaries, 5.0, interval, 0.02):
            t = phase.renoise_times(uniform)
            assert len(t.unique()) == len(uniform)
            raw = phase.raw_low + (phase.raw_high - phase.raw_low) * uniform
            assert torch.allclose(t, 5 * raw / (1 + 4 * raw))
    clamped = (5 * uniform / (1 + 4 * uniform)).clamp(0.02, 0.98)  # control
    assert float((clamped == 0.98).double().mean()) > 0.08


def test_the_law_of_re_noising_has_a_shift_of_its_own():
    uniform = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    grid = two_phases()[1]
    own = two_phases(shift=1.0)[1]
    assert grid.times == own.times
    assert (own.renoise_times(uniform) > 0.875).double().mean() == pytest.approx(0.125, abs=1e-3)
    assert (grid.renoise_times(uniform) > 0.875).double().mean() > 0.4  # control


def test_a_law_keeps_to_its_levels_and_to_the_phases():
    uniform = torch.rand(1000)
    first, second = two_phases(margin=0.01, low=0.3, high=0.9)
    assert (first.low, first.high) == pytest.approx((5 / 6 + 0.01, 0.9))
    assert (second.low, second.high) == pytest.approx((0.3, 0.9))
    for phase in (first, second):
        t = phase.renoise_times(uniform)
        assert phase.low - 1e-6 <= t.min() < t.max() <= phase.high + 1e-6


@pytest.mark.parametrize("at", [0.882, 0.95])
def test_all_samples_may_be_noised_to_one_level(at):
    for phase in two_phases(margin=0.02, at=at):
        t = phase.renoise_times(torch.rand(64))
        assert t.unique().tolist() == [pytest.approx(at)]
        assert phase.high_share == 1.0


def test_one_level_lies_with_one_of_two_experts():
    phase = split_phases(4, (4,), 5.0, "nested", 0.02, switch=0.875, law=Renoise(at=0.357))[0]
    assert (phase.high_share, phase.scored) == (0.0, ("low",))


@pytest.mark.parametrize("law", [{"at": 0.5}, {"at": 0.999}, {"high": 0.8}, {"low": 0.99}])
def test_a_law_that_leaves_a_phase_no_room_is_refused(law):
    with pytest.raises(ValueError, match=r"re-noising: .*expected rising times in phase 1's"):
        two_phases(margin=0.02, **law)


# ---- one of two experts an update


def wan22(shift=5.0, boundaries=(2, 4), margin=1e-4):
    """The last phase of Wan2.2's grid, whose experts meet at .875."""
    return split_phases(4, boundaries, shift, "nested", margin, switch=0.875)[-1]


def test_wan22_text_to_video_calls_the_high_noise_expert_at_five_in_twelve_draws():
    assert wan22().high_share == pytest.approx(5 / 12, abs=1e-3)  # raw time .583 of [0, 1)
    assert wan22(boundaries=(4,)).high_share == pytest.approx(5 / 12, abs=1e-3)
    assert wan22(shift=1.0).high_share == pytest.approx(0.125, abs=1e-3)
    assert wan22(margin=0.001).high_share == pytest.approx(5 / 12, abs=0.003)  # as in scenarios
    assert wan22(margin=0.02).high_share < 0.37  # control: a wide margin is another law


def test_an_update_is_for_one_expert_and_the_law_of_times_stays():
    phase = wan22()
    generator = torch.Generator().manual_seed(0)
    sides = torch.rand(4000, generator=generator)
    uniform = torch.rand(4000, 16, generator=generator)
    t = phase.region_times(uniform, sides[:, None].expand_as(uniform))
    high = t >= 0.875
    assert bool((high.all(1) | ~high.any(1)).all())
    assert float(high.all(1).double().mean()) == pytest.approx(phase.high_share, abs=0.03)
    rows = phase.renoise_times(torch.rand(64000, generator=generator))
    at = torch.linspace(0.05, 0.95, 10)
    assert torch.allclose(t.flatten().quantile(at), rows.quantile(at), atol=0.02)
    by_row = phase.renoise_times(uniform) >= 0.875  # control: most updates need both experts
    assert float((by_row.any(1) & ~by_row.all(1)).double().mean()) > 0.9


def test_edges_of_a_region_stay_inside_of_it():
    phase, edges = wan22(), torch.tensor([0.0, 1 - 2**-24])
    assert bool((phase.region_times(edges, torch.ones(2) - 2**-24) >= 0.875).all())
    assert bool((phase.region_times(edges, torch.zeros(2)) < 0.875).all())


def test_a_phase_of_one_expert_has_one_region():
    first = split_phases(4, (2, 4), 5.0, "nested", 0.02, switch=0.875)[0]
    plain = split_phases(4, (2, 4), 5.0, "nested", 0.02)[1]
    uniform, side = torch.rand(64), torch.zeros(64)
    for phase in (first, plain):
        assert torch.equal(phase.region_times(uniform, side), phase.renoise_times(uniform))


def test_experts_are_those_that_a_phase_calls_and_scores():
    """Wan2.2: phase 1 has the high-noise expert alone, phase 2 the low-noise one and both fakes."""
    first, second = split_phases(4, (2, 4), 5.0, "nested", 0.001, switch=0.875)
    assert (first.called, first.scored) == (("high",), ("high",))
    assert (second.called, second.scored) == (("low",), ("high", "low"))
    (only,) = split_phases(4, (4,), 5.0, "nested", 0.001, switch=0.875)
    assert (only.called, only.scored) == (("high", "low"), ("high", "low"))
    *_, last = split_phases(4, (1, 2, 3, 4), 5.0, "disjoint", 0.001, switch=0.875)
    assert (last.called, last.scored) == (("low",), ("low",))
