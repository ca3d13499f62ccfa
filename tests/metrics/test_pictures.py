import pytest
import torch

from pdmd.errors import UserError
from pdmd.metrics.pictures import (
    coverage_and_density,
    pairwise_cosine,
    style_modes,
)
from pdmd.scenarios.digits.metrics import PictureMetrics
from pdmd.scenarios.digits.pictures import Classifier, split_digits, writing_styles


def gaussian(n, seed, dim=8):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


# ---- coverage and density


@pytest.mark.parametrize("k", [1, 3, 5])
def test_real_against_real_reaches_coverage_of_one_minus_two_to_the_minus_k(k):
    found = [coverage_and_density(gaussian(400, s), gaussian(400, s + 50), k) for s in range(8)]
    coverage, density = torch.tensor(found).mean(0).tolist()
    assert coverage == pytest.approx(1 - 2**-k, abs=0.02)
    assert density == pytest.approx(1, abs=0.06)


def test_coverage_does_not_grow_with_the_number_of_fakes():
    """Blocks as large as the real set: five times the samples buy no coverage."""
    real = gaussian(300, 0)
    few, _ = coverage_and_density(gaussian(300, 1), real, 3)
    many, _ = coverage_and_density(gaussian(1500, 2), real, 3)
    assert many == pytest.approx(few, abs=0.04)


def test_fewer_fakes_than_reals_are_one_block():
    coverage, _ = coverage_and_density(gaussian(50, 1), gaussian(300, 0), 3)
    assert 0 < coverage < 0.7


def test_collapse_keeps_density_and_loses_coverage():
    real = gaussian(300, 0)
    centre = real[real.norm(dim=1).argmin()]
    coverage, density = coverage_and_density(centre + 0.01 * gaussian(300, 1), real, 3)
    assert coverage < 0.4
    assert density > 1


def test_noise_loses_density():
    coverage, density = coverage_and_density(4 * gaussian(300, 1), gaussian(300, 0), 3)
    assert density < 0.1
    assert coverage < 0.2


# ---- cosines


def test_the_pairwise_cosine_is_that_of_a_loop():
    x = gaussian(9, 0) + 0.5
    pairs = [
        float(torch.nn.functional.cosine_similarity(x[i], x[j], dim=0))
        for i in range(9)
        for j in range(9)
        if i != j
    ]
    assert pairwise_cosine(x) == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)


def test_equal_rows_have_cosine_one_and_independent_ones_none():
    assert pairwise_cosine(gaussian(1, 0).repeat(6, 1)) == pytest.approx(1, abs=1e-6)
    assert pairwise_cosine(gaussian(2000, 0)) == pytest.approx(0, abs=2e-3)
    assert pairwise_cosine(torch.tensor([[1.0, 0], [-1, 0]])) == pytest.approx(-1)


# ---- writing styles


def test_styles_are_counted_against_the_real_shares():
    styles = torch.tensor([[0.0], [10], [20], [30]])
    real = torch.tensor([[0.0]] * 40 + [[10.0]] * 40 + [[20.0]] * 20)
    assert style_modes(real, real, styles) == (3, 0)  # no real picture has the fourth style
    covered, tv = style_modes(torch.tensor([[1.0]] * 95 + [[11.0]] * 5), real, styles)
    assert (covered, tv) == (1, pytest.approx(0.55))
    covered, _ = style_modes(torch.tensor([[1.0]] * 90 + [[11.0]] * 10), real, styles)
    assert covered == 2
    _, tv = style_modes(torch.tensor([[31.0]] * 10), real, styles)
    assert tv == pytest.approx(1)


# ---- all of them on digits


@pytest.fixture(scope="module")
def digits():
    return split_digits(450, 0)


@pytest.fixture(scope="module")
def metrics(digits):
    """Scores by a classifier with a little training, against the held-out pictures."""
    train, labels, held, held_labels = digits
    torch.manual_seed(0)
    classifier = Classifier()
    optimizer = torch.optim.Adam(classifier.parameters(), 3e-3)
    for step in range(80):
        rows = torch.arange(step * 64, step * 64 + 64) % len(train)
        loss = torch.nn.functional.cross_entropy(classifier.both(train[rows])[0], labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        _, features = classifier.both(train)
        classifier.feature_mean.copy_(features.mean(0))
        classifier.feature_std.copy_(features.std())
    styles = writing_styles(train, labels)
    return PictureMetrics(held, held_labels, train.mean(0), styles, classifier.eval(), 3)


def test_real_training_pictures_score_like_real_ones(metrics, digits):
    found = metrics(digits[0], digits[1])
    assert found["accuracy"] > 0.9
    assert abs(found["kid"]) < 0.02
    assert found["coverage"] == pytest.approx(1 - 2**-3, abs=0.06)
    assert found["density"] == pytest.approx(1, abs=0.2)
    assert found["tv"] < 0.2
    assert found["modes_covered"] >= 45


def test_noise_scores_badly_on_everything_that_measures_fidelity(metrics, digits):
    labels = torch.arange(10).repeat_interleave(60)
    noise = 2 * torch.rand(600, 64, generator=torch.Generator().manual_seed(0)) - 1
    found = metrics(noise, labels)
    assert found["accuracy"] < 0.3
    assert found["kid"] > 0.1
    assert found["density"] < 0.05
    assert found["coverage"] < 0.05


def test_one_picture_a_class_is_faithful_and_not_diverse(metrics, digits):
    train, labels, *_ = digits
    centres = torch.stack([train[labels == label].mean(0) for label in range(10)])
    nearest = [
        train[labels == label][(train[labels == label] - centres[label]).norm(dim=1).argmin()]
        for label in range(10)
    ]
    asked = torch.arange(10).repeat_interleave(50)
    found, real = metrics(torch.stack(nearest)[asked], asked), metrics(train, labels)
    assert found["accuracy"] > 0.8
    assert found["density"] > 1
    assert found["cosine"] == pytest.approx(1, abs=1e-4)
    assert found["feature_cosine"] == pytest.approx(1, abs=1e-4)
    assert found["modes_covered"] == 10
    assert found["coverage"] < 0.5 * real["coverage"]
    assert real["cosine"] < 0.8


def test_pictures_of_the_wrong_class_lose_accuracy_and_coverage(metrics, digits):
    train, labels, *_ = digits
    right, wrong = metrics(train, labels), metrics(train, (labels + 1) % 10)
    assert wrong["accuracy"] < 0.1
    assert wrong["coverage"] < 0.3 * right["coverage"]
    assert wrong["kid"] == pytest.approx(right["kid"], abs=1e-6)  # control: it asks for no class


def test_the_kernel_distance_does_not_depend_on_luck(metrics, digits):
    torch.manual_seed(1)
    one = metrics.kernel_distance(digits[0][:450])
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert metrics.kernel_distance(digits[0][:450]) == one
    torch.manual_seed(1)
    metrics.kernel_distance(digits[0][:450])
    assert torch.equal(torch.get_rng_state(), state)  # and takes none of the caller's


def test_a_picture_that_is_not_finite_and_a_class_without_a_pair_are_named(metrics, digits):
    train, labels, *_ = digits
    broken = train.clone()
    broken[40, 7] = float("nan")
    with pytest.raises(UserError, match="accuracy: samples, row 40: nan: expected a finite number"):
        metrics(broken, labels)
    with pytest.raises(UserError, match="kid: samples, row 40: nan"):
        metrics.kernel_distance(broken)
    few = torch.cat([(labels != 3).nonzero().flatten(), (labels == 3).nonzero().flatten()[:1]])
    with pytest.raises(UserError, match=r"cosine: samples: 1 rows: .* \(class 3\)"):
        metrics(train[few], labels[few])
    with pytest.raises(UserError, match=r"accuracy: labels, row 2: 10: expected 0 to 9"):
        metrics(train[:3], torch.tensor([0, 1, 10]))
    with pytest.raises(UserError, match="accuracy: samples: width 63: expected 64"):
        metrics(train[:, :-1], labels)
    with pytest.raises(UserError, match="kid: size: 1: expected 2 to"):
        metrics.kernel_distance(train[:2])


def test_samples_on_the_mean_picture_are_the_least_diverse(metrics):
    asked = torch.arange(10).repeat_interleave(8)
    found = metrics(metrics.mean.expand(80, 64), asked)
    assert (found["cosine"], found["feature_cosine"]) == pytest.approx((1, 1))


def test_weights_that_are_not_finite_are_refused(metrics):
    classifier = Classifier()
    with torch.no_grad():
        classifier.head.bias[2] = float("inf")
    with pytest.raises(UserError, match=r"accuracy: weights head\.bias: not finite"):
        PictureMetrics(metrics.real, metrics.labels, metrics.mean, metrics.styles, classifier, 3)
