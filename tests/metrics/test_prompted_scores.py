"""Comparisons with a teacher whose features were made before."""

from dataclasses import replace

import pytest
import torch

from pdmd.judge import Judge
from pdmd.metrics.prompted import EmojiMetrics, MovingMetrics, Reference
from pdmd.prompts import Prompt

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


def draw(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def pictures(network):
    """Metrics of pictures, and drawn pictures with their prompts."""
    real = Reference(draw(0, 2 * EACH, 3, 16, 16))
    labels = {"object": torch.arange(2 * EACH) % 2, "style": torch.arange(2 * EACH) // 2 % 2}
    networks = {"features": network, "lpips": lambda *_: 0.0, "clip": lambda *_: 0.0}
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
    networks = {"features": Network(), "lpips": lambda *_: 0.0, "clip": lambda *_: 0.0}
    networks |= {"i3d": lambda x: torch.cat([network(x), network(x).repeat(1, 70)], 1)}
    networks["flow"] = lambda x: torch.zeros(len(x), FRAMES - 1, 2, PX, PX)
    judge = Judge({"object": 1, "scene": 1}).eval()
    condition = torch.arange(3).repeat_interleave(EACH)
    metrics = MovingMetrics(
        FREE, judge, real, labels, 3, networks, conditions=condition, fvd_clips=16
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
