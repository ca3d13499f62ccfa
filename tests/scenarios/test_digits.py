import pytest
import torch

from pdmd.scenarios.digits.pictures import (
    CLASSES,
    SIDE,
    STYLES,
    fit_codec,
    jitter,
    split_digits,
    writing_styles,
)


@pytest.fixture(scope="module")
def digits():
    return split_digits(450, 0)


@pytest.fixture(scope="module")
def jittered(digits):
    return torch.cat([digits[0], *[jitter(digits[0], seed) for seed in range(1, 4)]])


def test_the_split_is_whole_and_in_range(digits):
    train, labels, held, held_labels = digits
    assert (len(train), len(held)) == (1797 - 450, 450)
    assert (len(labels), len(held_labels)) == (len(train), len(held))
    assert train.min() == held.min() == -1
    assert train.max() == held.max() == 1


def test_the_split_is_stratified(digits):
    _, labels, _, held_labels = digits
    for label in range(CLASSES):
        share = (held_labels == label).sum() / (
            (labels == label).sum() + (held_labels == label).sum()
        )
        assert float(share) == pytest.approx(450 / 1797, abs=0.01)


def test_no_held_out_picture_is_in_training(digits):
    train, _, held, _ = digits
    known = {picture.numpy().tobytes() for picture in train}
    assert not any(picture.numpy().tobytes() in known for picture in held)
    assert all(picture.numpy().tobytes() in known for picture in train[:5])  # control


def test_the_split_depends_on_the_seed_alone(digits):
    again, other = split_digits(450, 0), split_digits(450, 1)
    assert all(torch.equal(a, b) for a, b in zip(digits, again, strict=True))
    assert not torch.equal(digits[2], other[2])


def test_full_whitening_gives_every_latent_unit_variance(jittered):
    codec = fit_codec(jittered, 32, 1.0)
    latents = codec.encode(jittered)
    torch.testing.assert_close(latents.var(0), torch.ones(32), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(latents.mean(0), torch.zeros(32), rtol=0, atol=1e-4)
    off = latents.T.cov() - torch.eye(32)
    assert off.abs().max() < 1e-3


@pytest.mark.parametrize("whitening", [0.0, 0.5])
def test_less_whitening_keeps_the_order_and_a_mean_variance_of_one(jittered, whitening):
    variances = fit_codec(jittered, 32, whitening).encode(jittered).var(0)
    assert float(variances.mean()) == pytest.approx(1, abs=1e-3)
    assert (variances.diff() < 1e-4).all()
    assert variances[0] > 2 * variances[-1]  # control: not white


def psnr(pictures, components, fitted_to):
    codec = fit_codec(fitted_to, components, 1.0)
    error = (codec.decode(codec.encode(pictures)) - pictures).square().mean()
    return float(10 * torch.log10(4 / error))


def test_decoding_inverts_encoding_on_held_out_pictures(jittered, digits):
    held = digits[2]
    found = [psnr(held, components, jittered) for components in (8, 16, 32, 64)]
    assert found == sorted(found)
    assert found[2] > 20
    assert found[3] > 40  # all components: only rounding is left


def test_decoded_pictures_stay_in_range(jittered):
    codec = fit_codec(jittered, 32, 1.0)
    wild = codec.decode(5 * torch.randn(50, 32, generator=torch.Generator().manual_seed(0)))
    assert wild.abs().max() <= 1


def test_jitter_keeps_range_and_mean_and_moves_pictures(digits):
    train = digits[0]
    moved = jitter(train, 1)
    assert moved.shape == train.shape
    assert moved.min() >= -1
    assert moved.max() <= 1
    assert float(moved.mean()) == pytest.approx(float(train.mean()), abs=0.03)
    difference = float((moved - train).square().mean().sqrt())
    apart = float((train[1:] - train[:-1]).square().mean().sqrt())
    assert 0.05 < difference < 0.5 * apart  # control: another picture is further away


def test_jitter_is_small_enough_to_leave_a_picture_nearest_to_itself(digits):
    train = digits[0]
    nearest = torch.cdist(jitter(train, 1), train).argmin(1)
    assert (nearest == torch.arange(len(train))).double().mean() > 0.8


def test_jitter_depends_on_its_seed_alone(digits):
    train = digits[0][:20]
    assert torch.equal(jitter(train, 1), jitter(train, 1))
    assert not torch.equal(jitter(train, 1), jitter(train, 2))


def test_every_class_has_its_own_writing_styles(digits):
    train, labels, *_ = digits
    styles = writing_styles(train, labels)
    assert styles.shape == (CLASSES, STYLES, SIDE * SIDE)
    for label in (0, 7):
        own = torch.cdist(train[labels == label], styles[label]).min(1).values.mean()
        centre = (train[labels == label] - train[labels == label].mean(0)).norm(dim=1).mean()
        other = torch.cdist(train[labels == label], styles[(label + 1) % 10]).min(1).values.mean()
        assert own < centre < other
