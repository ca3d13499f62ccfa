import torch
from tiny import CHANNELS, noise, prompts, wan

from pdmd.models.experts import Experts


def setup():
    x, t = noise(4, CHANNELS, 2, 4, 4), torch.tensor([0.9, 0.2, 0.875, 0.874])
    return wan(0), wan(1), x, t, prompts(0, 1, 2, 0)


def test_each_row_goes_to_its_expert():
    high, low, x, t, condition = setup()
    found = Experts(high, low, 0.875)(x, t, condition)
    for row, expert in enumerate((high, low, high, low)):
        mine = expert(x[row : row + 1], t[row : row + 1], condition[row : row + 1])
        assert torch.allclose(found[row], mine[0], atol=1e-5)
    swapped = Experts(low, high, 0.875)(x, t, condition)
    assert not torch.allclose(found, swapped, atol=1e-3)  # control


def test_gradients_reach_the_expert_that_was_used_alone():
    high, low, x, t, condition = setup()
    experts = Experts(high, low, 0.875).requires_grad_(True)
    experts(x[[0, 2]], t[[0, 2]], condition[torch.tensor([0, 2])]).square().mean().backward()
    assert all(p.grad is None for p in experts.low.parameters())
    assert any(p.grad is not None and bool(p.grad.any()) for p in experts.high.parameters())
    experts(x, t, condition).square().mean().backward()
    assert any(p.grad is not None for p in experts.low.parameters())  # control
