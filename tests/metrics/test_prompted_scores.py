"""Comparisons with a teacher whose features were made before."""

from dataclasses import replace

import pytest
import torch

from pdmd.config.sections import Data
from pdmd.data.prompts import Prompt
from pdmd.errors import UserError
from pdmd.metrics.prompted import Reference, by_stratum, spread_rows
from pdmd.metrics.ranges import metric_range
from pdmd.networks.judge import Judge
from pdmd.scenarios.emoji.metrics import EmojiMetrics
from pdmd.scenarios.moving.metrics import MovingMetrics, known_camera

EACH, OBJECTS, STYLES, FRAMES, PX = 12, 2, 2, 8, 20
PROMPTS = [
    Prompt("a fox", "fine", truth={"objects": [0]}),
    Prompt("fruit", "fine", truth={"objects": [1]}),
]
FREE = [
    Prompt("a fox", "free", truth={"object": 0}),
    Prompt("a fox up", "stated", truth={"object": 0, "direction": 0, "speed": 0}),
    Prompt("panning", "camera", truth={"scene": 0, "camera": 0}),
]


class Network:
    """The first numbers of each sample, as features; counts the samples it has seen."""

    def __init__(self, width=6):
        self.width, self.seen = width, 0

    def __call__(self, x):
        self.seen += len(x)
        return x.flatten(1)[:, : self.width].double()


def aligned(x, condition):
    """Stands in for CLIP's cosines."""
    return x.flatten(1).mean(1) + 0.1 * condition + 0.3


def draw(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def pictures(network):
    """Metrics of pictures, and drawn pictures with their prompts."""
    real = Reference(draw(0, 2 * EACH, 3, 16, 16))
    labels = {"object": torch.arange(2 * EACH) % 2, "style": torch.arange(2 * EACH) // 2 % 2}
    networks = {"features": network, "lpips": lambda *_: 0.0, "clip": aligned}
    judge = Judge({"object": OBJECTS, "style": STYLES}).eval()
    metrics = EmojiMetrics(PROMPTS, judge, real, labels, 3, networks)
    return metrics, draw(1, 2 * EACH, 3, 16, 16), torch.arange(2).repeat_interleave(EACH)


def clips(network):
    """Metrics of clips, and drawn clips with their prompts."""
    n = 3 * EACH
    real = Reference(draw(0, n, 3, FRAMES, PX, PX))
    kinds = torch.arange(n) % 3
    labels = {"object": torch.where(kinds < 2, 0, -1), "scene": torch.where(kinds < 2, -1, 0)}
    labels |= {name: torch.zeros(n).long() for name in ("direction", "speed", "camera")}
    networks = {"features": Network(), "lpips": lambda *_: 0.0, "clip": aligned}
    networks |= {"i3d": lambda x: torch.cat([network(x), network(x).repeat(1, 70)], 1)}
    networks["flow"] = lambda x: torch.zeros(len(x), x.shape[2] - 1, 2, PX, PX)
    networks["clip_image"] = lambda x: x.flatten(1)[:, :6]
    judge = Judge({"object": 1, "scene": 1}).eval()
    condition = torch.arange(3).repeat_interleave(EACH)
    metrics = MovingMetrics(
        FREE, judge, real, labels, 3, networks, asked_of_teacher=condition, fvd_clips=16
    )
    return metrics, draw(1, n, 3, FRAMES, PX, PX), condition


@pytest.mark.parametrize(
    ("make", "name", "score"),
    [(pictures, "features", "fid_teacher"), (clips, "i3d", "fvd_teacher")],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_features_that_a_teachers_evaluation_made_are_not_made_again(make, name, score):
    torch.manual_seed(0)
    network = Network()
    metrics, drawn, condition = make(network)
    teacher = Reference(draw(2, *drawn.shape))
    teachers = metrics.full(teacher, condition)
    assert score not in teachers
    kept, held = teacher.features[name], metrics.real.features[name]

    afresh = replace(metrics, real=Reference(metrics.real.x), teacher=Reference(teacher.x))
    wanted = afresh.full(Reference(drawn), condition)
    before = network.seen
    own, real = Reference(drawn), Reference(metrics.real.x, dict(metrics.real.features))
    known = replace(metrics, real=real, teacher=Reference(teacher.x, {name: kept}))
    assert known.full(own, condition) == pytest.approx(wanted, nan_ok=True)
    assert network.seen - before == len(own.features[name]) * (2 if make is clips else 1)
    assert torch.equal(real.features[name], held)

    other = replace(metrics, teacher=Reference(teacher.x, {name: kept + 1}))
    assert other.full(Reference(drawn), condition)[score] > wanted[score] + 0.1  # the control


# ---- samples, labels and networks that are none


def spoilt(x, value=float("nan"), row=7):
    found = x.clone()
    found[row].view(-1)[3] = value
    return found


@pytest.mark.parametrize("make", [pictures, clips])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_one_sample_that_is_not_finite_is_named(make, value):
    metrics, drawn, condition = make(Network())
    for score in (metrics, lambda x, c: metrics.full(Reference(x), c)):
        with pytest.raises(UserError, match=r"^accuracy: samples, row 7: "):
            score(spoilt(drawn, value), condition)


@pytest.mark.parametrize("make", [pictures, clips])
def test_a_network_that_gives_no_number_is_named_with_its_set(make):
    metrics, drawn, condition = make(Network())
    broken = {**metrics.networks, "features": lambda x: x.flatten(1)[:, :6] / 0}
    with pytest.raises(UserError, match=r"^(features|ends): features, row 0: "):
        replace(metrics, networks=broken).full(Reference(drawn), condition)
    with torch.no_grad():
        metrics.judge.heads["object"].bias[0] = float("nan")
    with pytest.raises(UserError, match=r"accuracy: weights heads\.object\.bias: not finite"):
        replace(metrics)


@pytest.mark.parametrize("make", [pictures, clips])
def test_prompts_must_be_one_a_sample_and_known(make):
    metrics, drawn, condition = make(Network())
    with pytest.raises(UserError, match=r"accuracy: labels: .*expected \d+ integers"):
        metrics(drawn, condition[:-1])
    unknown = condition.clone()
    unknown[4] = 99
    with pytest.raises(UserError, match=r"accuracy: labels, row 4: 99: expected 0 to \d"):
        metrics(drawn, unknown)
    with pytest.raises(UserError, match="accuracy: samples: 0 rows: expected at least 1"):
        metrics(drawn[:0], condition[:0])


@pytest.mark.parametrize(("make", "kind"), [(pictures, "emoji"), (clips, "moving")])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_score_of_random_samples_is_in_its_range(make, kind):
    metrics, drawn, condition = make(Network())
    for name, value in metrics.full(Reference(drawn), condition).items():
        low, high = metric_range(name, Data(kind=kind))
        assert value is None or low <= value <= high, name


def test_scores_of_a_kind_of_prompt_that_no_sample_has_are_undefined():
    metrics, drawn, condition = pictures(Network())
    found = metrics(drawn, condition)
    assert {name for name, value in found.items() if value is None} == {
        f"{name}_coarse" for name in ("accuracy", "modes", "entropy", "tv")
    }
    metrics, drawn, condition = clips(Network())
    free = condition == 0
    found = metrics(drawn[free], condition[free])
    assert {name for name, value in found.items() if value is None} == {"control", "control_camera"}
    camera = metrics(drawn[condition == 2], condition[condition == 2])
    assert camera["speed"] is camera["speed_w1"] is camera["modes_free"] is None
    assert camera["control_camera"] is not None  # the control


def test_coverage_of_no_prompt_is_undefined_and_of_too_few_pictures_refused():
    metrics, drawn, condition = clips(Network())
    found = replace(metrics, neighbours=99)(drawn, condition)
    assert found["coverage"] is found["density"] is None
    metrics, drawn, condition = pictures(Network())
    with pytest.raises(UserError, match=r"coverage: neighbours: 99: expected 1 to .*\(prompt 0\)"):
        replace(metrics, neighbours=99)(drawn, condition)


def test_motions_of_cameras_are_finite_and_some_clips_are_wanted():
    with pytest.raises(UserError, match="camera motion: motions, row 1: nan"):
        known_camera(torch.tensor([[0.0, 0, 0], [float("nan"), 0, 0]]), PX)
    with pytest.raises(UserError, match="fvd: 0 of 9 clips: expected at least 1"):
        spread_rows(9, 0)


# ---- scores of a stratum's samples alone

NAMES = {
    pictures: ["accuracy", "clip", "cosine", "lpips", "vendi", "coverage"],
    clips: ["accuracy", "clip", "control", "flow", "cosine", "lpips", "coverage"],
}


def counting(metrics):
    """The same metrics, whose networks count the samples that they see."""
    seen = dict.fromkeys(metrics.networks, 0)

    def counted(name):
        def network(x, *condition):
            seen[name] += len(x)
            return metrics.networks[name](x, *condition)

        return network

    return replace(metrics, networks={name: counted(name) for name in seen}), seen


def apart(prompts):
    return [f"prompt {number}" for number in range(len(prompts))]


@pytest.mark.parametrize("make", [pictures, clips])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_stratum_has_the_scores_of_its_samples_alone(make):
    metrics, drawn, condition = make(Network())
    networks = dict(metrics.networks) | {"lpips": lambda x, c: float(x.std() + c[0])}
    metrics, seen = counting(replace(metrics, networks=networks))
    own = Reference(drawn)
    metrics.full(own, condition)
    before = dict(seen)
    found = by_stratum(metrics, own, condition, apart(metrics.prompts), NAMES[make])
    assert seen == before  # no network saw a sample again
    for number, scores in enumerate(found.values()):
        rows = condition == number
        assert scores.pop("samples") == EACH
        alone = metrics.of_samples(Reference(drawn[rows]), condition[rows])
        for name in NAMES[make]:
            wanted = alone[name] if alone[name] is None else pytest.approx(alone[name], rel=1e-4)
            assert scores[name] == wanted, name
    assert seen != before  # control: networks are seen to see
    assert found["prompt 0"] != found["prompt 1"]


@pytest.mark.parametrize("make", [pictures, clips])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_single_stratum_is_the_whole(make):
    metrics, drawn, condition = make(Network())
    metrics = replace(metrics, networks={**metrics.networks, "lpips": lambda x, c: float(x.std())})
    own, strata = Reference(drawn), ["all"] * len(metrics.prompts)
    whole = metrics.full(own, condition)
    found = by_stratum(metrics, own, condition, strata, NAMES[make])
    wanted = {name: whole[name] for name in NAMES[make]}
    assert found == {"all": {"samples": len(drawn), **wanted}}
    part = by_stratum(metrics, own, condition, ["all", *[None] * (len(strata) - 1)], NAMES[make])
    assert part["all"]["samples"] == EACH  # control: prompts without a stratum are left out
    assert part != found


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_permuted_strata_have_other_scores():
    """The control: which prompt is of which stratum decides the scores."""
    metrics, drawn, condition = clips(Network())
    own = Reference(drawn)
    metrics.full(own, condition)
    strata = apart(metrics.prompts)
    right = by_stratum(metrics, own, condition, strata, NAMES[clips])
    wrong = by_stratum(metrics, own, condition, strata[1:] + strata[:1], NAMES[clips])
    assert right.keys() == wrong.keys()
    assert all(right[name] != wrong[name] for name in right)
    assert wrong["prompt 1"] == right["prompt 0"]
