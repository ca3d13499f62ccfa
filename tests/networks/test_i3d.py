import pytest
import torch
from torch.nn import functional

from pdmd.files.assets import asset, fetch
from pdmd.files.storage import load_tensors
from pdmd.networks.i3d import load_i3d, load_unfolded, rename


def waves(frames, size):
    """A clip (1, 3, T, H, W) that any implementation can be fed."""
    t, y, x = torch.meshgrid(
        torch.arange(frames), torch.arange(size), torch.arange(size), indexing="ij"
    )
    colours = [torch.sin(0.07 * x + 0.3 * t + c) * torch.cos(0.05 * y - 0.2 * t) for c in range(3)]
    return torch.stack(colours)[None]


@pytest.fixture(scope="module")
def i3d():
    fetch("i3d")
    return load_i3d()


def test_logits_and_features_are_those_of_the_original_code(i3d):
    """The package's own flax code on the same clip (jax 0.10.2, flax 0.12.8)."""
    expected = {5: 11.63978, 327: 11.62102, 140: 10.82670, 374: 10.07756, 31: 9.99578}
    expected_pooled = {16: 2.156883, 141: 1.828632, 846: 1.657260, 6: 1.577763}
    logits, pooled = i3d(waves(16, 224))
    assert logits[0].topk(5).indices.tolist() == list(expected)
    assert logits[0, list(expected)].tolist() == pytest.approx(list(expected.values()), abs=1e-4)
    assert pooled[0].topk(4).indices.tolist() == list(expected_pooled)
    assert pooled[0, list(expected_pooled)].tolist() == pytest.approx(
        list(expected_pooled.values()), abs=1e-5
    )
    assert float(pooled.mean()) == pytest.approx(0.18920463, abs=1e-6)
    _, reversed_pooled = i3d(waves(16, 224).flip(2))
    assert float(reversed_pooled.mean()) != pytest.approx(0.18920463, abs=1e-6)  # control


def test_features_of_eight_small_frames_are_those_of_the_original_code(i3d, monkeypatch):
    monkeypatch.setattr(i3d, "size", 128)
    expected = {16: 3.848888, 318: 2.948879, 141: 2.845908, 34: 2.828313}
    _, pooled = i3d(waves(8, 128))
    assert pooled[0].topk(4).indices.tolist() == list(expected)
    assert pooled[0, list(expected)].tolist() == pytest.approx(list(expected.values()), abs=1e-5)
    assert float(pooled.mean()) == pytest.approx(0.5818109, abs=1e-6)


def test_folding_batch_normalisation_changes_nothing(i3d, monkeypatch):
    unfolded = load_unfolded(128)
    monkeypatch.setattr(i3d, "size", 128)
    clip = waves(8, 32)
    for folded, plain in zip(i3d(clip), unfolded(clip), strict=True):
        assert torch.allclose(folded, plain, rtol=1e-5, atol=1e-5 * float(plain.abs().max()))
    state = rename(load_tensors(asset("i3d", "i3d.safetensors")))
    state["body.Mixed_3b.Branch_0.Conv3d_0a_1x1.norm.running_var"] += 1e-3
    unfolded.load_state_dict(state)
    assert not torch.allclose(i3d(clip)[1], unfolded(clip)[1], atol=1e-5)  # control: epsilon 2e-3


@pytest.mark.parametrize("frames", [1, 2, 8, 9, 17])
def test_clips_of_any_length_give_finite_rows(i3d, monkeypatch, frames):
    monkeypatch.setattr(i3d, "size", 64)
    clips = torch.cat([waves(frames, 24), -waves(frames, 24)])
    logits, pooled = i3d(clips)
    assert logits.shape == (2, 400)
    assert pooled.shape == (2, 1024)
    assert bool(logits.isfinite().all())
    assert not torch.allclose(pooled[0], pooled[1], atol=1e-3)
    alone = i3d(clips[1:])[0]
    assert torch.allclose(logits[1:], alone, atol=1e-3)


def test_more_clips_than_a_chunk_keep_their_order(i3d, monkeypatch):
    monkeypatch.setattr(i3d, "size", 32)
    one, other = waves(2, 24), -waves(2, 24)
    _, pooled = i3d(torch.cat([one] * 8 + [other]))
    assert pooled.shape == (9, 1024)
    assert torch.allclose(pooled[8:], i3d(other)[1], atol=1e-4)
    assert not torch.allclose(pooled[8], pooled[0], atol=1e-4)  # control


def test_the_order_of_frames_matters(i3d, monkeypatch):
    """Unlike a picture network's mean over frames."""
    monkeypatch.setattr(i3d, "size", 128)
    clip = waves(8, 24)
    _, pooled = i3d(torch.cat([clip, clip.flip(2), clip]))
    assert torch.allclose(pooled[0], pooled[2], atol=1e-5)
    assert functional.cosine_similarity(pooled[0], pooled[1], dim=0) < 0.99


def test_every_frame_is_resized_by_itself(i3d):
    clip = waves(3, 24)
    for number, frame in enumerate(i3d.resize(clip).unbind(2)):
        expected = functional.interpolate(clip[:, :, number], (224, 224), mode="bilinear")
        assert torch.equal(frame, expected)
    assert i3d.resize(waves(2, 224)).shape == (1, 3, 2, 224, 224)


def test_it_is_frozen(i3d):
    assert not any(parameter.requires_grad for parameter in i3d.parameters())
    assert not i3d.training
