"""Training that moves too little or too much is told by the tensor's name."""

import pytest
import torch

from pdmd.errors import UserError
from pdmd.roles import Part
from pdmd.training.moved import Watch


def part(count=2):
    parameters = [torch.nn.Parameter(torch.randn(3, 4)) for _ in range(count)]
    return Part("fake", parameters, [f"net.{i}" for i in range(count)])


def step(one, moves):
    """An update that moves some tensors; all of them have a gradient."""
    for p, moved in zip(one.parameters, moves, strict=True):
        p.grad = torch.ones_like(p)
        with torch.no_grad():
            p.add_(0.1 * moved)


def test_all_that_is_trained_has_moved_after_two_updates():
    one = part()
    watch = Watch([one], {"base": torch.ones(3)})
    step(one, [0, 1])  # of an adapter, B moves first
    watch.after(one)
    step(one, [1, 1])
    watch.after(one)
    assert not watch.waiting


def test_a_tensor_that_stays_is_named():
    one = part()
    watch = Watch([one], {})
    for _ in range(2):
        step(one, [0, 1])
        if watch.steps["fake"] == 0:
            watch.after(one)
    with pytest.raises(UserError, match=r"fake: net\.0: has not moved"):
        watch.after(one)


def test_what_no_loss_depends_on_may_stay():
    one = part()
    watch = Watch([one], {}, ["net.0"])
    for _ in range(2):
        step(one, [0, 1])
        watch.after(one)
    assert not watch.waiting


def test_a_frozen_tensor_that_moves_is_named():
    one, base = part(), torch.ones(3)
    watch = Watch([one], {"base": base})
    step(one, [1, 1])
    watch.after(one)
    base[1] += 1e-3
    step(one, [1, 1])
    with pytest.raises(UserError, match="base: has moved: expected it to stay frozen"):
        watch.after(one)


def test_an_expert_that_was_not_called_waits():
    """Of two fakes an update moves one."""
    one = part()
    watch = Watch([one], {})
    for _ in range(5):
        watch.after(one)  # no gradient
    assert watch.waiting


def test_an_update_whose_gradient_is_zero_is_none():
    """The generator's, on the side of a fake that is still the teacher."""
    one = part()
    watch = Watch([one], {})
    for size in (0.0, 1.0, 0.0):
        for p in one.parameters:
            p.grad = torch.full_like(p, size)
        watch.after(one)
    assert watch.waiting
    step(one, [0, 1])  # control: two that pull
    with pytest.raises(UserError, match=r"fake: net\.0: has not moved"):
        watch.after(one)


def test_moves_that_cancel_are_seen():
    one = Part("fake", [torch.nn.Parameter(torch.zeros(2, 2))], ["net"])
    watch = Watch([one], {})
    for _ in range(2):
        one.parameters[0].grad = torch.ones(2, 2)
        with torch.no_grad():
            one.parameters[0].add_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
        watch.after(one)
    assert not watch.waiting
