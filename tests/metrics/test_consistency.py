"""Steadiness of clips: VBench's formulas on clips whose answer is known."""

import math

import pytest
import torch
from torch.nn import functional

from pdmd.errors import UserError
from pdmd.metrics.consistency import (
    DIMENSIONS,
    consistency,
    motion_smoothness,
    steadiness,
    temporal_flicker,
)
from pdmd.metrics.motion import opencv_flow


def moving_clips(places):
    """(1, 3, T, 32, 32): a soft blob on plain ground at given places, px from the left."""
    at = torch.arange(32) + 0.5
    rows = torch.exp(-((at - 16) ** 2) / 18)
    frames = [2 * torch.outer(rows, torch.exp(-((at - place) ** 2) / 18)) - 1 for place in places]
    return torch.stack(frames).expand(1, 3, -1, -1, -1)


EVEN = moving_clips([8, 10, 12, 14, 16, 18, 20])
JERKY = moving_clips([8, 8, 12, 12, 16, 16, 20])


def test_flicker_is_the_mean_change_in_units_of_the_whole_range():
    """VBench: (255 - mean |difference|) / 255 of frames in [0, 255]."""
    clips = torch.rand(3, 3, 5, 9, 11) * 2 - 1
    frames = (clips + 1) * 127.5
    wanted = (255 - frames.diff(dim=2).abs().mean((1, 2, 3, 4))) / 255
    torch.testing.assert_close(temporal_flicker(clips), wanted)
    assert temporal_flicker(clips[:, :, :1].expand(-1, -1, 5, -1, -1)).eq(1).all()
    black_and_white = torch.ones(1, 3, 4, 8, 8) * torch.tensor([1.0, -1, 1, -1]).view(4, 1, 1)
    assert temporal_flicker(black_and_white).eq(0).all()  # the control


def test_even_motion_is_guessed_from_its_neighbours_and_jerks_are_not():
    even, jerky = (float(motion_smoothness(x, opencv_flow)) for x in (EVEN, JERKY))
    between = EVEN[:, :, 1::2]
    plain = (EVEN[:, :, :-1:2] + EVEN[:, :, 2::2]) / 2  # the mean of neighbours, not carried
    blended = 1 - float((plain - between).abs().mean()) / 2
    assert even > blended  # flow helps
    assert 1 - jerky > 3 * (1 - even)
    still = EVEN[:, :, :1].expand(-1, -1, 7, -1, -1)
    assert float(motion_smoothness(still, opencv_flow)) == pytest.approx(1, abs=1e-4)


def test_smoothness_takes_an_even_number_of_frames_too():
    """The last of eight frames has no later neighbour."""
    eight = moving_clips([8, 10, 12, 14, 16, 18, 20, 31])
    torch.testing.assert_close(
        motion_smoothness(eight, opencv_flow), motion_smoothness(EVEN, opencv_flow)
    )


def test_a_frame_is_compared_with_the_one_before_and_with_the_first():
    """At 0, 60, 90 degrees: cosines to the one before .5, cos 30; to the first .5, 0."""
    angles = torch.tensor([0.0, math.pi / 3, math.pi / 2])
    features = 3 * torch.stack([angles.cos(), angles.sin()], 1)[None]
    wanted = ((0.5 + 0.5) / 2 + (math.cos(math.pi / 6) + 0) / 2) / 2
    assert float(consistency(features)) == pytest.approx(wanted)
    opposite = torch.tensor([[[1.0, 0], [-1, 0]]])
    assert float(consistency(opposite)) == 0  # a negative cosine counts for none
    assert float(consistency(features[:, :1].expand(-1, 4, -1))) == pytest.approx(1)


def test_the_four_dimensions_stand_in_their_order():
    def means(x):
        return functional.adaptive_avg_pool2d(x, 2).flatten(1)

    every = steadiness(torch.cat([EVEN, JERKY]), opencv_flow, means, lambda x: x.flatten(1))
    assert every.shape == (2, len(DIMENSIONS))
    torch.testing.assert_close(every[:1, 0], temporal_flicker(EVEN))
    torch.testing.assert_close(every[1:, 1], motion_smoothness(JERKY, opencv_flow))
    whole = EVEN.movedim(2, 1).flatten(2)
    torch.testing.assert_close(every[:1, 3], consistency(whole))
    assert every[0, 2] != every[0, 3]  # the control: each has a network of its own


@pytest.mark.parametrize(
    ("clips", "said"),
    [
        (torch.full((1, 3, 4, 16, 16), torch.nan), "temporal_flicker"),
        (torch.zeros(1, 3, 2, 16, 16), "motion_smoothness: 2 frames: expected at least 3"),
    ],
)
def test_what_cannot_be_measured_is_refused(clips, said):
    with pytest.raises(UserError, match=said):
        steadiness(clips, opencv_flow, lambda x: x.flatten(1), lambda x: x.flatten(1))


def test_a_flow_that_is_known_is_not_computed_again():
    asked = []

    def flow(clips):
        asked.append(clips.shape[2] - 1)
        return opencv_flow(clips)

    for clips in (EVEN, JERKY, EVEN[:, :, :7], EVEN[:, :, :3]):
        asked.clear()
        whole = motion_smoothness(clips, flow)
        pairs = sum(asked)
        asked.clear()
        known = motion_smoothness(clips, flow, opencv_flow(clips[:, :, ::2]))
        assert torch.equal(known, whole)
        assert 2 * sum(asked) == pairs
    other = opencv_flow(EVEN[:, :, ::2].roll(3, -1))  # control: of another clip
    assert not torch.equal(motion_smoothness(EVEN, flow, other), motion_smoothness(EVEN, flow))
