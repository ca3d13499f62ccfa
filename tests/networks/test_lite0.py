import pytest
import torch
from sklearn.datasets import load_sample_images
from torchmetrics.image.fid import FrechetInceptionDistance

from pdmd.files.assets import fetch
from pdmd.networks.lite0 import Lite0, load_lite0


@pytest.fixture(scope="module")
def lite0():
    fetch("lite0")
    return load_lite0(224)


@pytest.fixture(scope="module")
def photos():
    """scikit-learn's two photos, 224 pixels of each: a Chinese palace and a flower."""
    crops = [torch.tensor(image[100:324, 100:324]) for image in load_sample_images().images]
    return torch.stack(crops).permute(0, 3, 1, 2).float() / 127.5 - 1


def test_it_knows_a_palace_and_a_daisy(lite0, photos, generator):
    assert lite0.logits(photos).argmax(1).tolist() == [698, 985]
    scrambled = photos.flatten(2)[:, :, torch.randperm(224 * 224, generator=generator)].view_as(
        photos
    )
    assert lite0.logits(scrambled).argmax(1).tolist() != [698, 985]  # control
    assert Lite0(224).eval().logits(photos).argmax(1).tolist() != [698, 985]  # control: untrained


def test_its_logits_are_those_of_an_independent_implementation(lite0, photos):
    """The four largest of each photo, by PyPI's efficientnet_lite_pytorch 0.1.0, same weights."""
    values, classes = lite0.logits(photos).topk(4)
    expected = [[7.5795, 6.6098, 4.8974, 4.7897], [6.3289, 6.0680, 5.1993, 4.9812]]
    assert classes.tolist() == [[698, 663, 858, 497], [985, 619, 996, 947]]
    assert torch.allclose(values, torch.tensor(expected), atol=2e-4)
    darker = lite0.logits(photos - 0.02).topk(4).values
    assert not torch.allclose(darker, torch.tensor(expected), atol=2e-4)  # control


def test_pixels_are_scaled_as_the_weights_were_trained(lite0):
    prepared = lite0.prepare(torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1).expand(3, 3, 8, 8))
    assert prepared.shape == (3, 3, 224, 224)
    assert prepared[:, 0, 0, 0].tolist() == pytest.approx([-127 / 128, 0.5 / 128, 1.0])


def test_it_is_frozen_and_as_large_as_published(lite0):
    assert sum(parameter.numel() for parameter in lite0.parameters()) == 4_652_008
    assert not any(parameter.requires_grad for parameter in lite0.parameters())
    assert not lite0.training


def test_a_batch_gives_what_its_rows_give_alone(lite0, photos):
    alone = torch.cat([lite0(photos[:1]), lite0(photos[1:])])
    assert alone.shape == (2, 1280)
    assert torch.allclose(lite0(photos), alone, atol=1e-5)
    assert not torch.allclose(alone[0], alone[1], atol=1e-5)  # control


def test_more_pictures_than_a_chunk_keep_their_order(lite0, photos):
    many = lite0(photos[torch.tensor([0, 1, 1, 1, 1, 0])])
    assert torch.allclose(many[[0, 4, 5]], lite0(photos)[[0, 1, 0]], atol=1e-5)


def test_torchmetrics_takes_it_for_its_frechet_distance(generator):
    fetch("lite0")
    lite0 = load_lite0(64)
    fid = FrechetInceptionDistance(feature=lite0)

    def smooth(n):
        coarse = torch.rand(n, 3, 4, 4, generator=generator) * 2 - 1
        return torch.nn.functional.interpolate(coarse, (32, 32), mode="bicubic").clamp(-1, 1)

    def distance(fake):
        fid.reset()
        fid.update(real, real=True)
        fid.update(fake, real=False)
        return float(fid.compute())

    real = smooth(24)
    noise = torch.rand(24, 3, 32, 32, generator=generator) * 2 - 1
    assert abs(distance(real)) < 1e-2
    assert distance(noise) > 2 * distance(smooth(24)) > 1  # control
