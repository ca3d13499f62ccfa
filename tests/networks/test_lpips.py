import pytest
import torch
from sklearn.datasets import load_sample_images
from torchmetrics.functional.image.lpips import _LPIPS

from pdmd.errors import UserError
from pdmd.files.assets import asset, fetch
from pdmd.files.storage import load_tensors
from pdmd.networks.lpips import Lpips, check_heads, enlarge, load_lpips


@pytest.fixture(scope="module")
def lpips():
    fetch("alexnet")
    return load_lpips()


@pytest.fixture(scope="module")
def photos():
    """256 pixels of scikit-learn's two photos, (2, 3, 256, 256)."""
    crops = [torch.tensor(image[:256, :256]) for image in load_sample_images().images]
    return torch.stack(crops).permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.fixture
def pictures(generator):
    """Smooth pictures, (9, 3, 32, 32)."""
    coarse = torch.rand(9, 3, 6, 6, generator=generator) * 2 - 1
    return torch.nn.functional.interpolate(coarse, (32, 32), mode="bilinear")


def test_distances_are_those_of_an_independent_implementation(lpips, photos):
    """By the package's own flax code (jax 0.10.2, flax 0.12.8)."""
    palace, flower = photos[:1], photos[1:]
    pairs = [
        (palace, flower, 0.9094524),
        (palace, palace.flip(3), 0.7320659),
        (palace, palace * 0.5 - 0.5, 0.1414886),
        (palace[..., :64, :64], flower[..., :64, :64], 0.6793849),
    ]
    for a, b, expected in pairs:
        assert lpips.distance(a, b).item() == pytest.approx(expected, abs=1e-5)
    shuffled = palace.roll(1, 1)  # control: colours in the wrong order
    assert lpips.distance(shuffled, flower).item() != pytest.approx(0.9094524, abs=1e-3)


def test_untrained_weights_give_another_distance(photos):
    """Control of the values above: they need AlexNet's weights, not torchmetrics' heads alone."""
    network = Lpips(_LPIPS(net="alex", pnet_rand=True))
    assert network.distance(photos[:1], photos[1:]).item() != pytest.approx(0.9094524, abs=1e-2)


def test_a_picture_has_no_distance_to_itself_and_distance_is_symmetric(lpips, pictures):
    a, b = pictures[:4], pictures[4:8]
    assert lpips.distance(a, a).tolist() == [0.0] * 4
    assert torch.allclose(lpips.distance(a, b), lpips.distance(b, a))
    assert lpips.distance(a, b).min() > 0.01


def test_small_pictures_are_enlarged_and_large_ones_left(lpips, pictures, photos):
    assert enlarge(pictures).shape == (9, 3, 64, 64)
    assert enlarge(photos[..., :32, :]).shape == (2, 3, 64, 256)
    assert enlarge(photos) is photos
    twice = lpips.distance(enlarge(pictures[:2]), enlarge(pictures[2:4]))
    assert torch.equal(lpips.distance(pictures[:2], pictures[2:4]), twice)


@pytest.mark.parametrize("chunk", [2, 64])
def test_the_mean_over_pairs_is_that_of_torchmetrics(lpips, pictures, chunk):
    i, j = torch.triu_indices(9, 9, 1)
    each = lpips.network(enlarge(pictures[i]), enlarge(pictures[j])).flatten()
    found = lpips.pairwise(pictures, chunk)
    assert found.item() == pytest.approx(each.mean().item(), rel=1e-5)
    wrong = torch.cat([each, torch.zeros(9)]).mean()  # control: pairs with themselves counted
    assert found.item() != pytest.approx(wrong.item(), rel=1e-2)


def test_squared_distances_of_rows_are_lpips(lpips, pictures):
    rows = lpips.embed(pictures)
    expected = lpips.distance(pictures[:4], pictures[4:8])
    squared = (rows[:4] - rows[4:8]).square().sum(1)
    assert torch.allclose(squared, expected, rtol=1e-4)
    assert not torch.allclose(squared.sqrt(), expected, rtol=1e-1)  # control


def test_the_mean_over_pairs_runs_alexnet_once_a_picture(lpips, pictures):
    seen = []
    hook = lpips.network.net.slice1.register_forward_hook(
        lambda _, inputs, __: seen.append(len(inputs[0]))
    )
    lpips.pairwise(pictures)
    assert sum(seen) == 9
    seen.clear()
    lpips.distance(pictures[:1], pictures[1:2])
    hook.remove()
    assert sum(seen) == 2  # control: the hook counts


def test_collapse_lowers_the_mean_over_pairs(lpips, pictures):
    collapsed = torch.cat([pictures[:3]] * 3)
    assert lpips.pairwise(collapsed) < 0.9 * lpips.pairwise(pictures)
    assert lpips.pairwise(pictures[:1].expand(4, -1, -1, -1)).item() == pytest.approx(0, abs=1e-6)


def test_one_picture_has_no_pairs(lpips, pictures):
    with pytest.raises(ValueError, match="at least 2"):
        lpips.pairwise(pictures[:1])


def test_heads_that_are_not_the_archive_s_are_refused(lpips):
    arrays = load_tensors(asset("alexnet", "alexnet.safetensors"))
    check_heads(lpips, arrays)  # control
    arrays["NetLinLayer_2/Conv_0/kernel"] = arrays["NetLinLayer_2/Conv_0/kernel"] * 1.001
    with pytest.raises(UserError, match="head 2"):
        check_heads(lpips, arrays)


def test_loading_moves_neither_random_numbers_nor_torch_s_hub(lpips):
    before, hub = torch.random.get_rng_state(), torch.hub.get_dir()
    load_lpips()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.hub.get_dir() == hub


def test_it_is_frozen(lpips):
    assert not any(parameter.requires_grad for parameter in lpips.parameters())
    assert not lpips.training
