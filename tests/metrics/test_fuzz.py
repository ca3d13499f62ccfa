"""Every metric under every fault of its samples: the right value, or an error that names both.

Right values are those of plain float64 formulas below, which share no code with the metrics.
"""

import dataclasses
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from pdmd.errors import UserError
from pdmd.metrics import alignment, motion
from pdmd.metrics.diversity import lpips_pairwise, mode_shares, vendi_score, within_prompt
from pdmd.metrics.fidelity import (
    FeatureStatistics,
    frechet_distance,
    kernel_distance,
    precision_recall,
)
from pdmd.metrics.modes import energy_distance, mixture_metrics
from pdmd.metrics.pictures import coverage_and_density, pairwise_cosine, style_modes
from pdmd.models.mixture import grid_mixture
from pdmd.scenarios.moving import clips as moving
from pdmd.streams import Stream

EACH, PROMPTS, WIDTH, K, AT = 16, 2, 10, 3, 5  # AT: the row that is spoilt
PX = 16
CONDITION = torch.arange(PROMPTS).repeat_interleave(EACH)
MIXTURE = grid_mixture(3, 0.08, 0, 0.3)
TEXTS = ["a fox", "a rocket"] * EACH


def gaussian(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


REAL = gaussian(0, 30, WIDTH)


# ---- plain formulas in float64


def apart(x: Tensor, y: Tensor) -> Tensor:
    return (x.double()[:, None] - y.double()[None]).norm(dim=-1)


def cosines(x: Tensor) -> Tensor:
    """Equal rows have 1; a row of zeros and another 0."""
    norm = x.double().norm(dim=1)
    zero = norm == 0
    unit = x.double() / norm.where(~zero, torch.ones(())).unsqueeze(1)
    found = unit @ unit.T
    found[zero] = found[:, zero] = 0
    return found.masked_fill(zero[:, None] & zero[None], 1)


def mean_of_pairs(found: Tensor) -> float:
    n = len(found)
    return float(found.masked_fill(torch.eye(n).bool(), 0).sum() / (n * (n - 1)))


def by_prompt(x: Tensor, score: Callable[[Tensor], float]) -> float:
    return sum(score(x[CONDITION.eq(number)]) for number in range(PROMPTS)) / PROMPTS


def vendi(x: Tensor) -> float:
    values = torch.linalg.eigvalsh(cosines(x) / len(x)).clamp_min(0)
    return math.exp(float(torch.special.entr(values).sum()))


def plain_coverage(x: Tensor, real: Tensor) -> tuple[float, float]:
    radius, distance = apart(real, real).sort(1).values[:, K], apart(real, x)
    blocks = [distance[:, i : i + len(real)] for i in range(0, len(x), len(real))]
    blocks = [b for b in blocks if b.shape[1] == len(real)] or [distance]
    covered = [float((b.min(1).values < radius).double().mean()) for b in blocks]
    return sum(covered) / len(covered), float((distance < radius[:, None]).sum() / len(x) / K)


def plain_precision(x: Tensor, real: Tensor) -> tuple[float, float]:
    def inside(some: Tensor, support: Tensor) -> float:
        radius = apart(support, support).sort(1).values[:, K]
        return float((apart(some, support) <= radius).any(1).double().mean())

    return inside(x, real), inside(real, x)


def plain_frechet(x: Tensor, real: Tensor) -> float:
    (m, a), (n, b) = ((z.double().mean(0), z.double().T.cov()) for z in (x, real))
    root = torch.linalg.eigvals(a @ b).real.clamp_min(0).sqrt().sum()
    return float((m - n).square().sum() + a.trace() + b.trace() - 2 * root)


def plain_kernel(x: Tensor, real: Tensor) -> float:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randperm(len(z), generator=generator)[:10] for z in (x, real)]
    one, other = (z[r].double() for z, r in zip((x, real), rows, strict=True))
    width = one.shape[1]
    a, b, c = (((p @ q.T) / width + 1) ** 3 for p, q in ((one, one), (other, other), (one, other)))
    return mean_of_pairs(a) + mean_of_pairs(b) - 2 * float(c.mean())


def plain_energy(x: Tensor, y: Tensor) -> float:
    return 2 * float(apart(x, y).mean()) - mean_of_pairs(apart(x, x)) - mean_of_pairs(apart(y, y))


def plain_mixture(x: Tensor) -> list[float]:
    nearest, mode = apart(x, MIXTURE.means).min(1)
    inside = nearest < 4 * MIXTURE.std
    if not inside.any():
        return [0, 1, 0]
    counts = torch.bincount(mode[inside], minlength=9).double()
    shares = counts / counts.sum()
    entropy = torch.special.entr(shares).sum()
    tv = (shares - MIXTURE.weights.double()).abs().sum() / 2
    return [float(inside.double().mean()), float(tv), float(entropy.exp())]


def plain_w1(a: Tensor, b: Tensor) -> float:
    grid = torch.cat([a, b]).double().sort().values
    cdf = [(z.double()[None] <= grid[:-1, None]).double().mean(1) for z in (a, b)]
    return float(((cdf[0] - cdf[1]).abs() * grid.diff()).sum())


def plain_flow(flow: Tensor) -> list[float]:
    speed = flow.double().square().sum(2).sqrt()
    return speed.flatten(1).mean(1).tolist()


# ---- every metric, of one set of samples


def mixture(x: Tensor) -> list[float]:
    found = mixture_metrics(x, MIXTURE, MIXTURE.draw(Stream([9], 0, "reference"), 50))
    return [found["inliers"], found["tv"], found["effective_modes"]]


def mean_square(pictures: Tensor) -> Tensor:
    return 2 * pictures.double().flatten(1).var(0).mean()


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric as a function of its samples alone.

    Attributes:
        says: what its errors call it; plain: the right value; narrow: whether samples of another
            width are refused, as a set that they are compared with is.
    """

    says: str
    healthy: Tensor
    found: Callable[[Tensor], Any]
    plain: Callable[[Tensor], Any]
    narrow: bool = True


FAKE = gaussian(1, PROMPTS * EACH, WIDTH)
CENTRE = REAL.mean(0)
PICTURES = gaussian(2, PROMPTS * EACH, 3, 8, 8).clamp(-1, 1)
FLOW = gaussian(3, 12, 4, 2, 9, 9)
METRICS = {
    "pairwise_cosine": Metric(
        "cosine", FAKE, pairwise_cosine, lambda x: mean_of_pairs(cosines(x)), False
    ),
    "within_prompt": Metric(
        "cosine",
        FAKE,
        lambda x: within_prompt(x, CONDITION[: len(x)], CENTRE),
        lambda x: by_prompt(x.double() - CENTRE, lambda some: mean_of_pairs(cosines(some))),
    ),
    "vendi": Metric(
        "vendi",
        FAKE,
        lambda x: vendi_score(x, CONDITION[: len(x)], CENTRE),
        lambda x: by_prompt(x.double() - CENTRE, vendi),
    ),
    "lpips": Metric(
        "lpips",
        PICTURES,
        lambda x: lpips_pairwise(mean_square, x, CONDITION[: len(x)]),
        lambda x: by_prompt(x.double(), lambda some: float(mean_square(some))),
        False,
    ),
    "coverage": Metric(
        "coverage",
        FAKE,
        lambda x: coverage_and_density(x, REAL, K),
        lambda x: plain_coverage(x, REAL),
    ),
    "coverage of": Metric(
        "coverage",
        REAL,
        lambda x: coverage_and_density(FAKE, x, K),
        lambda x: plain_coverage(FAKE, x),
    ),
    "precision": Metric(
        "precision",
        FAKE,
        lambda x: precision_recall(REAL, x, K),
        lambda x: plain_precision(x, REAL),
    ),
    "frechet": Metric(
        "fid", FAKE, lambda x: frechet_distance(x, REAL, "fid"), lambda x: plain_frechet(x, REAL)
    ),
    "streamed": Metric(
        "features or frechet distance",
        FAKE,
        lambda x: frechet_distance(FeatureStatistics().update(x[:7]).update(x[7:]), REAL),
        lambda x: plain_frechet(x, REAL),
    ),
    "kernel": Metric(
        "kid",
        FAKE,
        lambda x: kernel_distance(x, REAL, 1, 10, 0, "kid"),
        lambda x: plain_kernel(x, REAL),
    ),
    "energy": Metric(
        "energy", FAKE, lambda x: energy_distance(x, REAL), lambda x: plain_energy(x, REAL)
    ),
    "mixture": Metric("modes", MIXTURE.draw(Stream([1], 0, "fuzz"), 40), mixture, plain_mixture),
    "styles": Metric(
        "modes",
        FAKE,
        lambda x: style_modes(x, REAL, REAL[:4])[1],
        lambda x: float(
            sum(
                abs((apart(x, REAL[:4]).argmin(1) == i).double().mean() - share)
                for i, share in enumerate(
                    torch.bincount(apart(REAL, REAL[:4]).argmin(1), minlength=4) / len(REAL)
                )
            )
            / 2
        ),
    ),
    "wasserstein": Metric(
        "speed_w1",
        FAKE[:, 0],
        lambda x: motion.wasserstein(x, REAL[:, 0], "speed_w1"),
        lambda x: plain_w1(x, REAL[:, 0]),
        False,
    ),
    "mean_flow": Metric("flow", FLOW, lambda x: motion.mean_flow(x).tolist(), plain_flow, False),
    "dynamic_degree": Metric(
        "dynamic",
        FLOW,
        lambda x: motion.dynamic_degree(x).tolist(),
        lambda x: [
            sum(
                float(pair.double().norm(dim=0).flatten().topk(4).values.mean()) > 54 / 256
                for pair in one
            )
            >= 1
            for one in x
        ],
        False,
    ),
}


def with_row(value: float) -> Callable[[Tensor], Tensor]:
    """Samples of which one number of row AT is another."""

    def spoil(x: Tensor) -> Tensor:
        spoilt = x.clone()
        spoilt.view(len(x), -1)[AT, 0] = value
        return spoilt

    return spoil


REFUSED = {
    "nan": with_row(math.nan),
    "inf": with_row(math.inf),
    "-inf": with_row(-math.inf),
    "huge": with_row(1e30),
    "none": lambda x: x[:0],
}
SPOILT = {
    **REFUSED,
    "as they are": lambda x: x,
    "one": lambda x: x[:1],
    "two": lambda x: x[:2],
    "all equal": lambda x: x[:1].expand_as(x).clone(),
    "all zero": torch.zeros_like,
    "on the centre": lambda x: CENTRE.expand_as(x) if x.shape[1:] == (WIDTH,) else x,
    "twice": lambda x: x[torch.arange(len(x)) // 2],
    "far from zero": lambda x: x + 3000,
    "two far clusters": lambda x: (
        x + 3000 * (torch.arange(len(x)) % 2 * 2 - 1).view(-1, *[1] * (x.ndim - 1))
    ),
    "one far": with_row(1e6),
    "tiny": lambda x: x * 1e-25,
    "narrow": lambda x: x[..., :-1],
    "float64": lambda x: x.double(),
    "float16": lambda x: x.half(),
    "whole numbers": lambda x: (3 * x).long(),
}


ROWS = ("nan", "inf", "-inf", "huge")  # faults of one row
ACCEPTED = ("as they are", "twice", "float64", "float16", "far from zero", "all equal")


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the UserError that it raises."""
    try:
        return call()
    except UserError as error:
        return error


def numbers(found: Any) -> list[float]:
    return [float(value) for value in found] if isinstance(found, (list, tuple)) else [float(found)]


def is_one_line(error: UserError, says: str) -> bool:
    named = any(str(error).startswith(f"{name}:") for name in says.split(" or "))
    return named and "\n" not in str(error) and len(str(error)) < 300


@pytest.mark.parametrize("fault", SPOILT)
@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_right_or_names_itself_and_the_sample(name: str, fault: str) -> None:
    metric = METRICS[name]
    x = SPOILT[fault](metric.healthy)
    found = outcome(lambda: metric.found(x))
    if isinstance(found, UserError):
        assert fault not in ACCEPTED or (name, fault) == ("lpips", "far from zero"), found
        assert is_one_line(found, metric.says), found
        assert fault not in ROWS or f"row {AT}: " in str(found)
    else:
        assert fault not in REFUSED
        assert fault != "narrow" or not metric.narrow
        assert numbers(found) == pytest.approx(numbers(metric.plain(x)), rel=2e-3, abs=2e-4)


def test_the_plain_formulas_tell_the_faults_of_old() -> None:
    """The control: float32 at mean 3000, and a cosine without a rule for zeros, are seen."""
    x = FAKE + 3000
    distance = torch.cdist(REAL + 3000, x, compute_mode="use_mm_for_euclid_dist")
    assert (distance - apart(REAL + 3000, x)).abs().max() > 1
    unit = torch.nn.functional.normalize(torch.zeros(8, 4), dim=-1)
    old = float((unit.sum(0).square().sum() - 8) / 56)
    assert old < 0
    assert mean_of_pairs(cosines(torch.zeros(8, 4))) == 1


@pytest.mark.parametrize("name", ["coverage", "precision", "within_prompt", "vendi", "energy"])
def test_a_shift_of_all_sets_changes_nothing(name: str) -> None:
    shifted = {
        "coverage": lambda s: coverage_and_density(FAKE + s, REAL + s, K),
        "precision": lambda s: precision_recall(REAL + s, FAKE + s, K),
        "within_prompt": lambda s: within_prompt(FAKE + s, CONDITION, (REAL + s).mean(0)),
        "vendi": lambda s: vendi_score(FAKE + s, CONDITION, (REAL + s).mean(0)),
        "energy": lambda s: energy_distance(FAKE + s, REAL + s),
    }[name]
    assert numbers(shifted(3000)) == pytest.approx(numbers(shifted(0)), rel=1e-3, abs=1e-3)


WRONG_NUMBERS: dict[str, tuple[Callable[[], Any], str]] = {
    "neighbours": (
        lambda: coverage_and_density(FAKE, REAL, 30),
        "coverage: neighbours: 30: expected 1 to 29",
    ),
    "no neighbour": (
        lambda: coverage_and_density(FAKE, REAL, 0),
        "coverage: neighbours: 0: expected 1 to 29",
    ),
    "k": (lambda: precision_recall(REAL, FAKE, 30), "precision: k: 30: expected 1 to 29"),
    "subsets": (
        lambda: kernel_distance(FAKE, REAL, 0, 5, 0, "kid"),
        "kid: subsets: 0: expected at least 1",
    ),
    "size": (lambda: kernel_distance(FAKE, REAL, 1, 31, 0, "kid"), "kid: size: 31: expected 2 to"),
    "labels": (
        lambda: within_prompt(FAKE, CONDITION[:-1], CENTRE),
        "cosine: labels: .*: expected 32 integers",
    ),
    "broken centre": (
        lambda: within_prompt(FAKE, CONDITION, CENTRE * math.nan),
        "cosine: centre, row 0: nan",
    ),
    "no modes": (lambda: mode_shares(CONDITION, 0), "modes: known modes: 0: expected at least 1"),
    "true shares": (
        lambda: mode_shares(CONDITION, 2, torch.tensor([1.0, math.nan])),
        "modes: true shares, row 1: nan",
    ),
    "negative shares": (
        lambda: mode_shares(CONDITION, 2, torch.tensor([1.0, -1.0])),
        "modes: true shares: .*none negative",
    ),
    "modes as numbers": (lambda: mode_shares(CONDITION.float(), 2), "modes: labels: torch.float32"),
    "broken network": (
        lambda: lpips_pairwise(lambda x: x.sum() * math.nan, PICTURES, CONDITION),
        r"lpips: distances, row 0: nan: expected a finite number \(prompt of row 0\)",
    ),
    "frame rate": (lambda: motion.dynamic_degree(FLOW, 0), "dynamic: fps: 0: expected more than 0"),
}


@pytest.mark.parametrize("name", WRONG_NUMBERS)
def test_a_number_that_does_not_fit_the_samples_is_named(name: str) -> None:
    call, says = WRONG_NUMBERS[name]
    with pytest.raises(UserError, match=says):
        call()


def test_no_samples_of_a_mode_have_no_entropy_and_one_known_mode_is_covered_whole() -> None:
    none = torch.zeros(0, dtype=torch.long)
    for n in (1, 4):
        found = mode_shares(none, n)
        assert (found.covered, found.entropy, found.tv) == (0, 0, 1)
    found = mode_shares(torch.zeros(3, dtype=torch.long), 1)
    assert (found.covered, found.entropy, found.tv) == (1, 1, 0)


# ---- motion, of clips


CLIPS = moving.object_clips(12, PX, Stream([0], 0, "fuzz"))[0].float() / 127.5 - 1
OF_CLIPS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "opencv_flow": ("flow", motion.opencv_flow),
    "object_motion": ("object motion", motion.object_motion),
    "camera_motion": ("camera motion", motion.camera_motion),
}
REFUSED_CLIPS = {
    **REFUSED,
    "bytes": lambda x: (x + 1) * 127.5,
    "far from zero": lambda x: x + 3000,
    "one frame": lambda x: x[:, :, :1],
    "pictures": lambda x: x[:, :, 0],
    "two colours": lambda x: x[:, :2],
    "small": lambda x: x[..., :4, :4],
}


@pytest.mark.parametrize("fault", REFUSED_CLIPS)
@pytest.mark.parametrize("name", OF_CLIPS)
def test_motion_of_clips_that_are_none_is_refused(name: str, fault: str) -> None:
    says, estimate = OF_CLIPS[name]
    with pytest.raises(UserError) as caught:
        estimate(REFUSED_CLIPS[fault](CLIPS))
    assert is_one_line(caught.value, says), caught.value
    if fault in ROWS:
        assert f"row {AT}: " in str(caught.value)


@pytest.mark.parametrize("name", OF_CLIPS)
def test_a_clips_motion_does_not_depend_on_the_others_nor_on_the_type_of_numbers(name: str) -> None:
    _, estimate = OF_CLIPS[name]
    whole = estimate(CLIPS)
    for some in (CLIPS[:1], CLIPS[:1].double()):
        torch.testing.assert_close(estimate(some), whole[:1], atol=1e-3, rtol=1e-3)
    assert (estimate(CLIPS.half()) - whole).abs().median() < 0.05
    plain = torch.zeros_like(CLIPS[:2])
    assert estimate(plain).abs().max() < 1e-3
    assert whole.abs().max() > 0.1  # the control


def test_knowing_motions_needs_finite_ones() -> None:
    bad = with_row(math.nan)(gaussian(0, 8, 2))
    for call, says in (
        (lambda: motion.nearest_direction(bad, [(1.0, 0.0)]), "direction: motions, row 5: nan"),
        (lambda: motion.nearest_speed(bad[:, 0], [0.5]), "speed: speeds, row 5: nan"),
        (
            lambda: motion.fit_similarity(FLOW, torch.full((12, 4, 9, 9), math.nan)),
            "camera motion: weights, row 0: nan",
        ),
        (
            lambda: motion.fit_similarity(FLOW, torch.ones(12, 4, 9, 8)),
            r"camera motion: weights: shape \[12, 4, 9, 8\]",
        ),
    ):
        with pytest.raises(UserError, match=says):
            call()


# ---- CLIP score, by a network of a few numbers


@pytest.fixture
def clip(monkeypatch: pytest.MonkeyPatch) -> Callable[[Tensor], float]:
    network = SimpleNamespace(
        visual=SimpleNamespace(input_resolution=4),
        context_length=16,
        encode_image=lambda x: x.flatten(1)[:, :6],
        encode_text=lambda tokens: tokens[:, :6].float(),
    )
    monkeypatch.setattr(alignment, "load_clip", lambda name, device="cpu": network)
    return lambda x: alignment.clip_score("none", x, TEXTS)


@pytest.mark.parametrize("fault", REFUSED)
def test_a_clip_score_of_pictures_that_are_none_is_refused(
    clip: Callable[[Tensor], float], fault: str
) -> None:
    with pytest.raises(UserError) as caught:
        clip(REFUSED[fault](PICTURES))
    assert is_one_line(caught.value, "clip"), caught.value
    assert 0 <= clip(PICTURES) == pytest.approx(clip(PICTURES.double()), abs=1e-3)


def test_a_clip_score_needs_a_text_a_picture(clip: Callable[[Tensor], float]) -> None:
    with pytest.raises(UserError, match="clip: 32 texts: expected 31, one a picture"):
        clip(PICTURES[1:])
