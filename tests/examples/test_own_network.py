"""The example of a training loop of one's own learns, by our objectives on another's network."""

import importlib.util
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).resolve().parents[2] / "examples" / "own_network.py"


@pytest.fixture(scope="module")
def example():
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("own_network", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def teacher(example):
    torch.manual_seed(0)
    return example.fit(example.Network(), updates=800)


def drawn(example, experts):
    torch.manual_seed(1)
    return example.sample(experts, 2000)


@pytest.mark.slow
def test_its_students_come_nearer_to_the_data_than_the_teachers_steps(example, teacher):
    before = example.off(drawn(example, [teacher, teacher]))
    torch.manual_seed(2)
    after = example.off(drawn(example, example.distill(teacher, updates=100)))
    assert example.off(example.data(2000)) < after < 0.75 * before


def test_control_with_a_fake_score_that_does_not_follow_nothing_is_learned(example, teacher):
    """It stays the teacher, and teacher - fake is zero: it is that difference that teaches."""

    def ignored(flow, velocity, x_s, eps, s, t):
        return 0 * velocity.sum(1)

    still = example.distill(teacher, updates=5, fake_loss=ignored)
    assert torch.equal(drawn(example, still), drawn(example, [teacher, teacher]))
    learned = example.distill(teacher, updates=5)
    assert not torch.equal(drawn(example, learned), drawn(example, [teacher, teacher]))
