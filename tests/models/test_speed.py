"""Other attention, and compiled blocks, compute the same velocities and gradients."""

from typing import get_args

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from tiny import noise, prompts, qwen, wan

from pdmd.config.sections import Attention
from pdmd.errors import UserError
from pdmd.models.adapters import SharedBase, checkpoint_activations, transformers_of
from pdmd.models.speed import compile_blocks, hasten, use_attention

SHAPES = {"wan": (2, 16, 3, 4, 6), "qwen": (2, 16, 1, 4, 6)}
MAKE = {"wan": wan, "qwen": qwen}


def computed(network):
    """Velocities of two adapters, and the gradient of one of them while the other is in use."""
    shared = SharedBase(network, 4, 4)
    checkpoint_activations(network)
    one, two = shared.add("one", 0, True), shared.add("two", 1, True)
    with torch.no_grad():
        for number, p in enumerate([*one.parameters(), *two.parameters()]):
            p.copy_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(number)))
    kind = "qwen" if type(transformers_of(network)[0]).__name__.startswith("Qwen") else "wan"
    x, t, given = noise(*SHAPES[kind]), torch.tensor([0.9, 0.3]), prompts(0, 1)
    velocity = one(x, t, given)
    with torch.no_grad():
        other = two(x, t, given)
    velocity.square().mean().backward()
    # Compiled, what no loss depends on has a gradient of zeros in the place of none.
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in one.parameters()]
    return [velocity.detach(), other, *gradients]


@pytest.mark.parametrize("kind", MAKE)
def test_another_attention_computes_the_same(kind):
    network = MAKE[kind]()
    active = _AttentionBackendRegistry.get_active_backend()
    use_attention(network, "_native_math", "a run", "model.attention")
    assert _AttentionBackendRegistry.get_active_backend() == active  # that of other networks
    made, wanted = computed(network), computed(MAKE[kind]())
    assert len(made) == len(wanted) > 10
    for one, other in zip(made, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert (made[0] - wanted[1]).abs().max() > 1e-3  # the control: adapters differ


def test_an_attention_that_is_not_there_is_one_line():
    expected = "a run: model.attention: 'xformers': expected one of diffusers' backends that works"
    with pytest.raises(UserError, match=expected):
        hasten(wan(), "xformers", False, "a run")


def test_attentions_that_may_be_configured_are_diffusers_own():
    assert set(get_args(Attention)) < {one.value for one in AttentionBackendName}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", MAKE)
def test_compiled_blocks_compute_the_same(kind, backend):
    network = MAKE[kind]()
    compile_blocks(network, backend)
    made, wanted = computed(network), computed(MAKE[kind]())
    assert len(made) == len(wanted)
    for one, other in zip(made, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
