import warnings

import pytest
import torch
from torch import nn

from pdmd.errors import UserError
from pdmd.metrics.fidelity import (
    FeatureStatistics,
    frechet_distance,
    kernel_distance,
    precision_recall,
)


def gaussian(n, seed, dim=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, generator=generator, dtype=torch.float64)


class Features(nn.Module):
    """Passes features through torchmetrics as if they were pictures."""

    num_features = 6

    def forward(self, x):
        return x.flatten(1)


# ---- streaming statistics


@pytest.mark.parametrize("sizes", [[100], [1, 99], [7, 0, 50, 43], [1] * 100])
def test_parts_have_the_statistics_of_the_whole(sizes):
    x = gaussian(100, 0) * torch.arange(1, 7) + 1000
    found = FeatureStatistics()
    for part in x.split(sizes):
        found.update(part)
    assert found.n == 100
    torch.testing.assert_close(found.mean, x.mean(0), rtol=1e-13, atol=0)
    torch.testing.assert_close(found.covariance, x.T.cov(), rtol=1e-10, atol=1e-10)


def test_shards_merge_to_the_whole_and_a_lost_row_shows():
    x = gaussian(90, 1) + 5
    shards = [FeatureStatistics().update(part) for part in x.split(40)]
    found = shards[0].merge(shards[1]).merge(shards[2])
    torch.testing.assert_close(found.covariance, x.T.cov(), rtol=1e-12, atol=1e-12)
    short = FeatureStatistics().update(x[:-1])
    assert (short.covariance - x.T.cov()).abs().max() > 1e-4


def test_merging_leaves_the_other_as_it_was():
    first, second = (FeatureStatistics().update(gaussian(20, seed)) for seed in (0, 1))
    before = second.scatter.clone()
    FeatureStatistics().merge(second).merge(first)
    assert second.n == 20
    torch.testing.assert_close(second.scatter, before)


def test_widths_that_differ_and_a_single_row_are_refused():
    with pytest.raises(UserError, match="width 3: expected 6"):
        FeatureStatistics().update(gaussian(9, 0)).merge(
            FeatureStatistics().update(gaussian(9, 0, 3))
        )
    with pytest.raises(UserError, match="1 rows: expected at least 2"):
        frechet_distance(gaussian(1, 0), gaussian(9, 0))


# ---- Frechet distance


def test_the_frechet_distance_is_that_of_known_gaussians():
    """Diagonal: |m1 - m2|^2 + sum (s1 - s2)^2; from statistics, so that nothing is sampled."""
    scales = torch.tensor([[1.0, 2, 3], [2.0, 2, 1]], dtype=torch.float64)
    means = torch.tensor([[0.0, 0, 0], [1.0, 0, 2]], dtype=torch.float64)
    first, second = (
        FeatureStatistics(11, mean, 10 * scale.square().diag())
        for mean, scale in zip(means, scales, strict=True)
    )
    expected = float((means[0] - means[1]).square().sum() + (scales[0] - scales[1]).square().sum())
    assert frechet_distance(first, second) == pytest.approx(expected, abs=1e-9)
    without_root = float((scales[0] ** 2 - scales[1] ** 2).square().sum())
    assert without_root != pytest.approx(expected)


def test_the_frechet_distance_is_torchmetrics():
    from torchmetrics.image.fid import FrechetInceptionDistance

    a, b = gaussian(80, 0) @ gaussian(6, 9), gaussian(70, 1) @ gaussian(6, 8) + 0.3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fid = FrechetInceptionDistance(
            Features(), normalize=True, input_img_size=(1, 1, 6)
        ).set_dtype(torch.float64)
    fid.update(a[:, None, None], real=True)
    fid.update(b[:, None, None], real=False)
    expected = float(fid.compute())
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(a, b + 0.1) != pytest.approx(expected, rel=1e-2)


def test_fewer_rows_than_dimensions_stay_finite_symmetric_and_zero_to_themselves():
    a, b = gaussian(8, 0, 40), gaussian(9, 1, 40)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert frechet_distance(a, b) > 1
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_the_frechet_distance_is_biased_up_for_few_rows():
    """Why values compare only at equal numbers of rows."""
    few = frechet_distance(gaussian(30, 0, 20), gaussian(30, 1, 20))
    many = frechet_distance(gaussian(3000, 0, 20), gaussian(3000, 1, 20))
    assert few > 20 * many


# ---- kernel distance


def test_the_kernel_distance_of_whole_sets_is_torchmetrics():
    from torchmetrics.image.kid import KernelInceptionDistance

    a, b = gaussian(40, 0), gaussian(40, 1) + 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kid = KernelInceptionDistance(Features(), subsets=1, subset_size=40)
    kid.update(a, real=True)
    kid.update(b, real=False)
    expected = float(kid.compute()[0])
    assert kernel_distance(a, b, 1, 40, 0) == pytest.approx(expected, rel=1e-5)
    assert kernel_distance(a, b - 0.1, 1, 40, 0) != pytest.approx(expected, rel=1e-2)


def test_the_kernel_distance_is_unbiased_for_few_rows():
    found = [kernel_distance(gaussian(20, s), gaussian(20, 500 + s), 1, 20, 0) for s in range(200)]
    spread = float(torch.tensor(found).std())
    assert abs(sum(found) / len(found)) < 3 * spread / 200**0.5
    assert kernel_distance(gaussian(20, 0), gaussian(20, 1) + 1, 1, 20, 0) > 3 * spread


def test_subsets_are_chosen_by_the_seed_and_draw_on_no_global_state():
    a, b = gaussian(60, 0), gaussian(50, 1)
    before = torch.random.get_rng_state()
    first = kernel_distance(a, b, 5, 20, 0)
    assert torch.equal(before, torch.random.get_rng_state())
    assert first == kernel_distance(a, b, 5, 20, 0)
    assert first != kernel_distance(a, b, 5, 20, 1)


@pytest.mark.parametrize("size", [1, 51])
def test_subsets_of_one_row_or_of_more_than_there_are_are_refused(size):
    with pytest.raises(UserError, match=f"size: {size}: expected 2 to 50"):
        kernel_distance(gaussian(60, 0), gaussian(50, 1), 1, size, 0)


# ---- precision and recall


def loop_precision(real, fake, k):
    inside = 0
    for x in fake:
        for centre in real:
            radius = (real - centre).norm(dim=1).sort().values[k]
            if (x - centre).norm() <= radius:
                inside += 1
                break
    return inside / len(fake)


def test_precision_and_recall_are_those_of_a_loop():
    real, fake = gaussian(40, 0, 2), 1.5 * gaussian(30, 1, 2)
    found = precision_recall(real, fake, 3)
    assert found == pytest.approx((loop_precision(real, fake, 3), loop_precision(fake, real, 3)))
    assert found != pytest.approx((loop_precision(real, fake, 1), loop_precision(fake, real, 1)))


def test_collapse_keeps_precision_and_loses_recall_and_noise_does_the_reverse():
    real = gaussian(300, 0, 4)
    collapsed = real[:1] * 0.1 + 0.05 * gaussian(300, 1, 4)
    precision, recall = precision_recall(real, collapsed, 3)
    assert precision > 0.95
    assert recall < 0.05
    precision, recall = precision_recall(real, 5 * gaussian(300, 2, 4), 3)
    assert precision < 0.1
    assert recall > 0.3


def test_no_kth_neighbour_is_refused():
    with pytest.raises(UserError, match="k: 9: expected 1 to 8"):
        precision_recall(gaussian(20, 0), gaussian(9, 1), 9)
