import dataclasses

import pytest
import torch

from pdmd.errors import UserError
from pdmd.metrics.consistency import DIMENSIONS, steadiness
from pdmd.metrics.damages import (
    FEW,
    Samples,
    backwards,
    blur,
    collapse,
    half_speed,
    noise,
    one_mode,
    shuffled,
    still,
)
from pdmd.metrics.expectations import clip_plan, picture_plan
from pdmd.metrics.motion import opencv_flow
from pdmd.metrics.ranges import metric_range
from pdmd.metrics.validation import (
    IDENTITY,
    Plan,
    Rule,
    is_ordered,
    thirds,
    validate,
)
from pdmd.report.writing import write_table
from pdmd.scenarios.moving import clips as moving
from pdmd.streams import Stream

PROMPTS, MODES, EACH = 2, 4, 12


def generator():
    return torch.Generator().manual_seed(0)


def labels():
    """(prompt, mode) of EACH samples of every mode."""
    prompt = torch.arange(PROMPTS).repeat_interleave(MODES * EACH)
    return prompt, torch.arange(MODES).repeat_interleave(EACH).repeat(PROMPTS)


@pytest.fixture(scope="module")
def pictures():
    """(96, 3, 16, 16): coarse patterns, one for each mode of each prompt, each drawn unevenly."""
    patterns = torch.randn(PROMPTS * MODES, 3, 8, 8, generator=generator())
    prompt, mode = labels()
    own = torch.randn(len(prompt), 3, 8, 8, generator=generator().manual_seed(1))
    x = 0.3 * patterns[prompt * MODES + mode] + 0.15 * own
    return torch.nn.functional.interpolate(x, scale_factor=2).clamp(-1, 1)


def coarse(x):
    """Features far from zero, as those of trained networks are: means and slopes of 2x2 px."""
    pooled = torch.nn.functional.avg_pool2d(x, 4).flatten(1)
    slopes = (x[..., 1:] - x[..., :-1]).abs().mean((2, 3))
    return torch.cat([pooled, 5 * slopes], 1) + 4


def mean_square(pictures):
    rows = pictures.flatten(1)
    return 2 * rows.var(0).mean()


@pytest.fixture(scope="module")
def table(pictures):
    texts = torch.stack([coarse(pictures[labels()[0] == p]).mean(0) - 4 for p in range(PROMPTS)])
    plan = picture_plan(coarse, mean_square, (lambda x: coarse(x) - 4, texts))
    return validate(pictures, *labels(), plan).set_index(["damage", "metric"])


# ---- damages


def test_blur_keeps_a_plain_picture_and_flattens_noise():
    plain = torch.full((2, 3, 8, 8), 0.3)
    torch.testing.assert_close(blur(plain, generator()), plain)
    x = torch.randn(2, 3, 4, 16, 16, generator=generator())
    assert blur(x, generator()).shape == x.shape
    assert blur(x, generator()).std() < 0.5 * x.std()
    assert noise(0 * x, generator()).std() == pytest.approx(0.2, rel=0.05)


def test_damages_of_time_move_frames_and_change_none():
    clips = torch.arange(8.0).view(1, 1, 8, 1, 1).expand(5, 3, 8, 2, 2)
    orders = {
        damage: damage(clips, generator())[:, 0, :, 0, 0]
        for damage in (still, half_speed, backwards)
    }
    assert orders[still][0].tolist() == [0] * 8
    assert orders[half_speed][0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert orders[backwards][0].tolist() == [7, 6, 5, 4, 3, 2, 1, 0]
    mixed = shuffled(clips, generator())
    assert torch.equal(mixed.sort(2).values, clips)
    assert not torch.equal(mixed[0], mixed[1])
    assert torch.equal(mixed[:, :1].expand_as(mixed), mixed)  # frames stay whole


def test_selections_keep_prompts_and_leave_one_mode_or_a_few_samples():
    prompt, mode = labels()
    samples = Samples(prompt, mode, {"row": torch.arange(len(prompt))})
    for select in (one_mode, collapse):
        left = samples.take(select(samples))
        assert torch.equal(left.prompt, prompt)
    for number in range(PROMPTS):
        mine = prompt == number
        assert len(mode[one_mode(samples)][mine].unique()) == 1
        assert len(one_mode(samples)[mine].unique()) == EACH
        assert len(collapse(samples)[mine].unique()) == FEW


def test_thirds_are_disjoint_and_alike_and_change_with_the_seed():
    prompt, mode = labels()
    parts = thirds(mode, prompt, 0)
    assert len(torch.cat(parts).unique()) == sum(len(part) for part in parts) == len(prompt)
    for part in parts:
        assert torch.all(torch.bincount(prompt[part] * MODES + mode[part]) == EACH // 3)
    assert not torch.equal(parts[0], thirds(mode, prompt, 1)[0])


def test_too_few_real_samples_are_refused():
    prompt, mode = (x[::2] for x in labels())
    with pytest.raises(UserError, match="4 of a prompt in each third: expected at least 8"):
        thirds(mode[::2], prompt[::2], 0)


# ---- the table


def test_every_rule_has_a_row_for_every_metric(table):
    plan = picture_plan(coarse, mean_square, (coarse, torch.zeros(2, 51)))
    expected = [(rule.damage, metric) for rule in plan.rules for metric in rule.metrics]
    assert sorted(table.index) == sorted(expected)
    assert len(set(expected)) == len(expected)  # no pair is expected to do two things


def test_damages_are_seen_by_metrics_that_should_see_them(table):
    for damage, metric in [
        ("blur", "kid"),
        ("noise", "kid"),
        ("one mode", "cosine"),
        ("one mode", "vendi"),
        ("one mode", "coverage"),
        ("collapse", "lpips"),
        ("collapse", "recall"),
    ]:
        assert table.loc[(damage, metric), "ordered"] == "yes", (damage, metric)


def test_another_draw_changes_metrics_far_less_than_damage_does(table):
    """By size: whether an interval holds 0 is a matter of chance, one time in twenty or more."""
    for damage, metric in [("blur", "kid"), ("collapse", "vendi"), ("collapse", "lpips")]:
        drawn = abs(table.loc[(IDENTITY, metric), "change_mean"])
        assert drawn < 0.1 * abs(table.loc[(damage, metric), "change_mean"]), metric


def test_a_metric_that_misses_is_in_the_table_with_no(pictures):
    plan = picture_plan(coarse)
    blind = dataclasses.replace(
        plan,
        metrics={
            "blind": lambda x, ref: 1.0,
            "opposite": lambda x, ref: -plan.metrics["kid"](x, ref),
        },
        rules=[Rule("noise", ("blind", "opposite"), "rises", "to be missed")],
    )
    found = validate(pictures, *labels(), blind)
    assert found["ordered"].tolist() == ["no", "no"]


def test_the_values_are_those_of_the_metrics(pictures, table):
    """Recomputed for one split; the mean over splits lies near."""
    plan = picture_plan(coarse)
    single = validate(pictures, *labels(), plan, splits=1).set_index(["damage", "metric"])
    mine, _, reference = thirds(labels()[1], labels()[0], 0)
    from pdmd.metrics.fidelity import kernel_distance

    spoilt = coarse(noise(pictures, generator()))[mine]
    expected = kernel_distance(spoilt, coarse(pictures)[reference], 20, 16, 0)
    assert single.loc[("noise", "kid"), "damaged_mean"] == pytest.approx(expected, rel=1e-5)
    assert single.loc[("noise", "kid"), "real_mean"] != pytest.approx(expected, rel=0.1)


def test_one_split_proves_nothing(pictures):
    plan = picture_plan(coarse)
    assert set(validate(pictures, *labels(), plan, splits=1)["ordered"]) == {"no"}


def test_a_rule_for_an_unknown_damage_is_refused(pictures):
    plan = Plan({}, {}, {}, {}, [Rule("rain", ("kid",), "rises", "")])
    with pytest.raises(UserError, match="damage 'rain': expected one of"):
        validate(pictures, *labels(), plan)


def test_samples_features_and_metrics_that_are_not_finite_are_named(pictures):
    plan = picture_plan(coarse)
    broken = pictures.clone()
    broken[3, 0, 0, 0] = float("nan")
    with pytest.raises(UserError, match="validation: real samples, row 3: nan"):
        validate(broken, *labels(), plan)
    blind = dataclasses.replace(plan, features={**plan.features, "lite0": lambda x: coarse(x) / 0})
    with pytest.raises(UserError, match="lite0: features, row 0: "):
        validate(pictures, *labels(), blind)
    none = dataclasses.replace(plan, metrics={"kid": lambda x, ref: float("nan")})
    with pytest.raises(UserError, match=r"kid: nan: expected a finite number \(no damage\)"):
        validate(pictures, *labels(), none)
    torn = dataclasses.replace(plan, transforms={**plan.transforms, "blur": lambda x, _: x / 0})
    with pytest.raises(UserError, match=r"row 0: .* \(damage: blur\)"):
        validate(pictures, *labels(), torn)


def test_an_expectation_that_nothing_meets_is_refused_before_anything_is_measured(pictures):
    plan = Plan({"lite0": coarse}, {}, {}, {}, [Rule(IDENTITY, ("kid",), "grows", "")])
    with pytest.raises(UserError, match="'grows': expected one of rises, falls, stays"):
        validate(pictures, *labels(), plan)


def test_no_samples_are_refused():
    none = torch.zeros(0, dtype=torch.long)
    with pytest.raises(UserError, match="real samples: 0: expected at least 8"):
        thirds(none, none, 0)


def test_intervals_of_values_stay_in_the_metrics_range(table):
    for (_, metric), row in table.iterrows():
        low, high = metric_range(metric)
        for part in ("real", "damaged"):
            assert low <= row[f"{part}_low"] <= row[f"{part}_mean"] <= row[f"{part}_high"] <= high


def test_an_order_is_an_interval_on_the_right_side():
    assert is_ordered([1.0, 1.1, 0.9], "rises") == "yes"
    assert is_ordered([1.0, 1.1, 0.9], "falls") == "no"
    assert is_ordered([1.0, 1.1, 0.9], "stays") == "no"
    assert is_ordered([1.0, -1.1, 0.2], "rises") == "no"
    assert is_ordered([1.0, -1.1, 0.2], "stays") == "yes"
    assert is_ordered([0.0, 0.0, 0.0], "stays") == "yes"
    assert is_ordered([0.0, 0.0, 0.0], "rises") == "no"
    with pytest.raises(UserError, match="'grows': expected one of rises, falls, stays"):
        is_ordered([1.0, 1.0], "grows")


def test_the_table_is_written_as_every_other(table, tmp_path):
    write_table(table.reset_index(), tmp_path / "metrics", "Metrics")
    assert "ordered" in (tmp_path / "metrics.csv").read_text().splitlines()[0]
    rows = (tmp_path / "metrics.md").read_text().splitlines()[2:]
    assert sum(row.startswith("| blur ") for row in rows) == len(table.loc["blur"])


# ---- clips


def coarse_frames(frames):
    """(N, 48): what stands in for a network's features."""
    return torch.nn.functional.adaptive_avg_pool2d(frames + 1, 4).flatten(1)


@pytest.fixture(scope="module")
def clip_table():
    clips, known = moving.object_clips(480, 16, Stream([0], 0, "validation"))
    prompt = known["object"] % 2
    mode = known["direction"] * 2 + known["speed"]

    def i3d(x):  # coarse features of space and time instead of the network's
        pooled = torch.nn.functional.adaptive_avg_pool3d(x, (4, 4, 4)).flatten(1)
        change = (x[:, :, 1:] - x[:, :, :-1]).abs().mean((1, 3, 4))
        features = torch.cat([pooled, 5 * change], 1)
        return features[:, :1].expand(-1, 400) + 0, features

    def steady(x):  # coarse features of frames instead of the networks'
        return steadiness(x, opencv_flow, coarse_frames, coarse_frames)

    plan = clip_plan(i3d, list(moving.DIRECTIONS.values()), moving.speeds_of(16), steady)
    table = validate(clips.float() / 127.5 - 1, prompt, mode, plan, splits=3)
    return table.set_index(["damage", "metric"])


def test_still_and_slow_clips_are_seen_by_every_measure_of_motion(clip_table):
    for damage in ("still", "half speed"):
        for metric in ("flow", "speed", "speed_w1", "control", "kvd"):
            assert clip_table.loc[(damage, metric), "ordered"] == "yes", (damage, metric)


def test_steadiness_sees_stillness_leaps_and_noise(clip_table):
    for metric in DIMENSIONS:
        for damage in ("still", "shuffled", "noise"):
            assert clip_table.loc[(damage, metric), "ordered"] == "yes", (damage, metric)
    assert clip_table.loc[("half speed", "motion_smoothness"), "ordered"] == "yes"
    still = clip_table.loc[("still", "temporal_flicker")]
    assert still["damaged_mean"] == 1 > still["real_mean"]  # so that most is not best


def test_reversal_is_seen_by_control_and_not_by_the_amount_of_motion(clip_table):
    assert clip_table.loc[("reversed", "control"), "ordered"] == "yes"
    assert clip_table.loc[("reversed", "control"), "damaged_mean"] < 0.05
    gap = clip_table.loc[("reversed", "speed"), "change_mean"]
    assert abs(gap) < 0.02 * clip_table.loc[("reversed", "speed"), "real_mean"]


def test_one_motion_a_prompt_leaves_no_entropy(clip_table):
    row = clip_table.loc[("one mode", "entropy")]
    assert row["ordered"] == "yes"
    assert row["real_mean"] > 0.95
    assert row["damaged_mean"] < 0.05
