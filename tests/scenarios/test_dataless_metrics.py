"""What frozen networks see in samples of released models: where they compute, and how often."""

import pytest
import torch

from pdmd.config.sections import Networks
from pdmd.files.storage import save_pickled
from pdmd.metrics import alignment, frozen, motion
from pdmd.metrics.motion import opencv_flow
from pdmd.networks.small_clip import SIZES
from pdmd.scenarios.dataless.metrics import features

DEVICE = torch.device("cpu", 0)  # another than the one that is there without being asked for


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory):
    from clip.model import CLIP

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("clip") / "random.pt"
    save_pickled(path, CLIP(**SIZES).state_dict())
    return str(path)


@pytest.fixture
def clip(generator):
    return (255 * torch.rand(1, 3, 9, 32, 48, generator=generator)).byte()


class Moves(torch.nn.Module):
    """A network that remembers where it was asked to go."""

    def __init__(self, network, places):
        super().__init__()
        self.network, self.places = network, places

    def to(self, device, *_, **__):
        self.places.append(device)
        return self

    def forward(self, x):
        return self.network(x)


def test_every_network_computes_where_the_process_does(monkeypatch, clip, clip_file, tmp_path):
    """RAFT-large on one thread of a CPU takes minutes a clip."""
    places = {"flow": [], "clip": [], "features": [], "i3d": []}
    load = alignment.load_clip

    def load_clip(name, device="cpu"):
        places["clip"].append(device)
        return load(name)

    def raft(name, size, device="cpu"):
        places["flow"].append(device)
        return opencv_flow

    means = Moves(lambda x: x.flatten(1)[:, :8], places["features"])
    i3d = Moves(lambda x: [x.flatten(1)[:, :4]], places["i3d"])
    monkeypatch.setattr(alignment, "load_clip", load_clip)
    monkeypatch.setattr(motion, "raft_flow", raft)
    monkeypatch.setattr(frozen, "lite0", lambda: means)
    monkeypatch.setattr(frozen, "i3d", lambda: i3d)
    for one in (frozen.flow, frozen.features):
        one.cache_clear()
    try:
        wanted = Networks(features="lite0", flow="raft", clip=clip_file)
        features(clip, "a fox", wanted, tmp_path, DEVICE)
    finally:
        for one in (frozen.flow, frozen.features):
            one.cache_clear()
    for name, asked in places.items():
        assert asked, name
        assert set(asked) == {DEVICE}, name


def test_the_flow_of_each_pair_of_frames_is_computed_once(monkeypatch, clip, clip_file, tmp_path):
    seen = []

    def flow(clips):
        seen.extend(clips[0, :, k : k + 2] for k in range(clips.shape[2] - 1))
        return opencv_flow(clips)

    monkeypatch.setattr(frozen, "flow", lambda *_: flow)
    monkeypatch.setattr(frozen, "features", lambda *_: lambda x: x.flatten(1)[:, :8])
    monkeypatch.setattr(frozen, "i3d", lambda: Moves(lambda x: [x.flatten(1)[:, :4]], []))
    found = features(clip, "a fox", Networks(clip=clip_file), tmp_path, torch.device("cpu"))
    # 8 pairs of all frames; 4 of every second one, there and back
    assert len(seen) == 16
    assert len({pair.contiguous().numpy().tobytes() for pair in seen}) == 16
    whole = clip.float() / 127.5 - 1
    flows = opencv_flow(whole[:, :, ::2])
    assert torch.equal(found["dynamic"], motion.dynamic_degree(flows, 8.0).float())
