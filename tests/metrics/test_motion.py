import math

import pytest
import torch

from pdmd.errors import UserError
from pdmd.metrics.motion import (
    camera_motion,
    dynamic_degree,
    fit_similarity,
    mean_flow,
    nearest_direction,
    nearest_speed,
    object_motion,
    opencv_flow,
    raft_flow,
    wasserstein,
)
from pdmd.scenarios.moving import clips as moving
from pdmd.streams import Stream

SIDES = [16, 24, 32]
NOISE = [0.0, 0.1]


def spoilt(clips, noise):
    draws = torch.randn(clips.shape, generator=torch.Generator().manual_seed(1))
    return (clips.float() / 127.5 - 1 + noise * draws).clamp(-1, 1)


def objects(n, px, noise=0.0):
    clips, labels = moving.object_clips(n, px, Stream([0], 0, "test objects"))
    return spoilt(clips, noise), labels


def cameras(n, px, noise=0.0):
    clips, labels = moving.camera_clips(n, px, Stream([0], 0, "test cameras"))
    return spoilt(clips, noise), labels


def known(motion, px):
    return (
        nearest_direction(motion, list(moving.DIRECTIONS.values())),
        nearest_speed(motion.norm(dim=1), moving.speeds_of(px)),
    )


def strengths(px):
    """Pan and zoom of known moves."""
    return torch.tensor([moving.PAN * px, moving.PAN * px, math.log(moving.ZOOM)])


# ---- objects


@pytest.mark.parametrize("px", SIDES)
@pytest.mark.parametrize("noise", NOISE)
def test_the_motion_of_an_object_is_known_to_a_twentieth_of_a_pixel(px, noise):
    clips, labels = objects(32, px, noise)
    true = moving.motion(labels, px)
    error = (object_motion(clips) - true).norm(dim=1)
    assert error.mean() < 0.03
    assert error.max() < 0.1
    backwards = (object_motion(clips.flip(2)) - true).norm(dim=1)
    assert backwards.min() > 0.5


@pytest.mark.parametrize("px", SIDES)
def test_known_directions_and_speeds_are_recognised(px):
    clips, labels = objects(48, px, 0.1)
    direction, speed = known(object_motion(clips), px)
    assert torch.equal(direction, labels["direction"])
    assert torch.equal(speed, labels["speed"])
    half = clips[:, :, [0, 0, 1, 1, 2, 2, 3, 3]]
    _, slower = known(object_motion(half), px)
    assert not torch.equal(slower, labels["speed"])


def test_still_and_empty_clips_have_no_known_speed_and_frames_out_of_order_cancel():
    clips, _ = objects(8, 24)
    order = torch.tensor([3, 6, 1, 4, 7, 0, 5, 2])
    for damaged in (clips[:, :, :1].expand_as(clips), torch.zeros_like(clips)):
        assert object_motion(damaged).abs().max() < 1e-3
        assert torch.all(known(object_motion(damaged), 24)[1] == -1)
    straight, shuffled = (object_motion(x).norm(dim=1).mean() for x in (clips, clips[:, :, order]))
    assert shuffled < straight / 3


def test_speeds_go_to_the_nearest_known_one_and_directions_to_the_nearest_axis():
    speeds = torch.tensor([0.2, 0.3, 0.9, 1.1, 9.0])
    assert nearest_speed(speeds, [0.5, 1.5]).tolist() == [-1, 0, 0, 1, 1]
    motion = torch.tensor([[2.0, 1.0], [-0.1, 0.2], [-3.0, 2.9], [0.1, -5.0]])
    directions = list(moving.DIRECTIONS.values())
    names = [list(moving.DIRECTIONS)[i] for i in nearest_direction(motion, directions)]
    assert names == ["right", "down", "left", "up"]


# ---- cameras


@pytest.mark.parametrize("px", SIDES)
@pytest.mark.parametrize("noise", NOISE)
def test_pan_and_zoom_of_a_camera_are_known(px, noise):
    clips, labels = cameras(48, px, noise)
    moves = torch.tensor(list(moving.CAMERAS.values()))[labels["camera"]]
    true = moves * strengths(px)
    found = camera_motion(clips)
    pans = moves[:, 2] == 0
    assert (found - true)[pans].norm(dim=1).mean() < 0.05
    assert (found - true)[~pans, 2].abs().mean() < 0.015
    nearest = [
        (camera_motion(x) / strengths(px) @ torch.tensor(list(moving.CAMERAS.values())).T).argmax(1)
        for x in (clips, clips.flip(2))
    ]
    hits, backwards = ((move == labels["camera"]).double().mean() for move in nearest)
    assert hits > 0.95
    assert backwards < 0.05


def test_a_camera_that_holds_and_jumps_covers_the_same_way():
    """As a codec's patches of several frames make it: most pairs of frames are still."""
    clips, labels = cameras(48, 20)
    moves = torch.tensor(list(moving.CAMERAS.values()))[labels["camera"]]
    jumps = clips[:, :, [2, 2, 2, 2, 5, 5, 5, 5]]  # 3 of the 7 steps, at once
    found = camera_motion(jumps) * 7 / 3 / strengths(20)
    assert (found - moves).norm(dim=1).median() < 0.3
    assert (found + moves).norm(dim=1).median() > 1  # control: the other way


def test_a_still_scene_neither_pans_nor_zooms():
    clips, _ = cameras(8, 24)
    found = camera_motion(clips[:, :, :1].expand_as(clips))
    assert found.abs().max() < 1e-3


def test_a_similarity_is_fitted_to_a_flow_exactly_and_by_weight():
    x = torch.arange(20) - 9.5
    position = torch.stack(torch.meshgrid(x, x, indexing="xy"))
    flow = torch.tensor([1.0, -2.0]).view(2, 1, 1) + 0.05 * position
    flow = flow.expand(1, 3, 2, 20, 20).clone()
    weight = torch.ones(1, 3, 20, 20)
    expected = torch.tensor([[1.0, -2.0, 0.05]])
    torch.testing.assert_close(fit_similarity(flow, weight), expected, atol=1e-4, rtol=0)
    flow[..., :4] = 0  # ground without texture reports no flow
    assert (fit_similarity(flow, weight) - expected).abs().max() > 0.1
    weight[..., :4] = 0
    torch.testing.assert_close(fit_similarity(flow, weight), expected, atol=1e-4, rtol=0)


# ---- optical flow


def test_flow_within_an_object_is_its_motion():
    clips, labels = objects(16, 32)
    flow = opencv_flow(clips)
    assert flow.shape == (16, 7, 2, 32, 32)
    middle = flow[:, 3, :, 13:19, 13:19].flatten(2).mean(2)  # where every object is half-way
    true = moving.motion(labels, 32)
    assert (middle - true).norm(dim=1).mean() < 0.1
    assert (middle.flip(1) - true).norm(dim=1).mean() > 1  # right and down in the wrong order


def test_mean_flow_orders_still_half_and_full_speed():
    clips, _ = objects(16, 24)
    still = mean_flow(opencv_flow(clips[:, :, :1].expand_as(clips)))
    half = mean_flow(opencv_flow(clips[:, :, [0, 0, 1, 1, 2, 2, 3, 3]]))
    full = mean_flow(opencv_flow(clips))
    assert still.abs().max() < 0.02  # not quite 0: plain ground is a matter of rounding
    assert torch.all(still < half)
    assert torch.all(half < 0.75 * full)


def vbench(flow):
    """The definition, pair by pair."""
    height, width = flow.shape[-2:]
    moved = 0
    for pair in flow:
        speed = (pair[0] ** 2 + pair[1] ** 2).sqrt().flatten().sort(descending=True).values
        moved += float(speed[: int(height * width * 0.05)].mean()) > 6 * min(height, width) / 256
    return moved >= round(4 * (len(flow) + 1) / 16)


def test_the_dynamic_degree_is_vbenchs():
    generator = torch.Generator().manual_seed(0)
    flow = 0.3 * torch.randn(40, 7, 2, 24, 20, generator=generator)
    flow *= torch.rand(40, 7, 1, 1, 1, generator=generator)
    found = dynamic_degree(flow)
    assert found.tolist() == [vbench(one) for one in flow]
    assert 0.1 < found.double().mean() < 0.9


def test_half_the_frame_rate_doubles_the_threshold():
    flow = torch.full((1, 7, 2, 32, 32), 0.6)  # 0.85 px a frame; the threshold is 0.75
    assert dynamic_degree(flow).item()
    assert dynamic_degree(flow, fps=30).item()
    assert not dynamic_degree(flow, fps=4).item()


def test_one_pair_of_seven_does_not_move_a_clip():
    flow = torch.zeros(1, 7, 2, 32, 32)
    flow[:, 0] = 5
    assert not dynamic_degree(flow).item()
    flow[:, 4] = 5
    assert dynamic_degree(flow).item()


def test_raft_takes_small_frames_and_gives_flow_of_their_size():
    """Random weights: shapes and units alone."""
    clips, _ = objects(2, 24)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = raft_flow(None)(clips[:, :, :2])
    assert flow.shape == (2, 1, 2, 24, 24)
    assert flow.isfinite().all()


def test_raft_reads_a_local_file(tmp_path):
    from torchvision.models.optical_flow import raft_small

    clips, _ = objects(1, 24)
    models = []
    with torch.random.fork_rng():
        for seed in range(2):
            torch.manual_seed(seed)
            models.append(raft_small(weights=None))
    torch.save(models[0].state_dict(), tmp_path / "raft.pt")
    flows = [raft_flow(tmp_path / "raft.pt")(clips[:, :, :2]) for _ in range(2)]
    assert torch.equal(flows[0], flows[1])
    torch.save(models[1].state_dict(), tmp_path / "raft.pt")
    assert not torch.equal(raft_flow(tmp_path / "raft.pt")(clips[:, :, :2]), flows[0])


def test_unknown_weights_and_sizes_of_raft_are_refused():
    with pytest.raises(UserError, match=r"weights: nowhere\.pt: expected a file or one of C_T_V1"):
        raft_flow("nowhere.pt")
    with pytest.raises(UserError, match="size: 'tiny': expected small or large"):
        raft_flow(None, "tiny")


# ---- speeds


def test_the_wasserstein_distance_of_equal_numbers_is_that_of_sorted_pairs():
    a, b = torch.rand(2, 50, generator=torch.Generator().manual_seed(0))
    expected = float((a.sort().values - b.sort().values).abs().mean())
    assert wasserstein(a, b) == pytest.approx(expected, rel=1e-6)
    assert wasserstein(a, b) != pytest.approx(float((a - b).abs().mean()), rel=0.1)


def test_repeats_do_not_change_the_wasserstein_distance():
    a, b = torch.tensor([0.0, 1.0]), torch.tensor([0.5, 2.5])
    assert wasserstein(a.repeat(3), b) == pytest.approx(1.0)
    assert wasserstein(a, b + 0.5) == pytest.approx(1.5)
