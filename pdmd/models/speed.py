"""What may make a transformer faster and changes its numbers by rounding alone."""

from __future__ import annotations

from pdmd.config.complaints import refusal
from pdmd.models.adapters import transformers_of
from pdmd.models.base import VelocityNetwork

VARIANTS = 64  # of a block: adapters, with gradients and without, sizes; Dynamo gives up at 8


def hasten(network: VelocityNetwork, attention: str, compiled: bool, where: str) -> None:
    """Have a released network compute as `model.attention` and `model.compile` say.

    Args:
        where: who was told so, for an error.
    Raises:
        UserError: this machine lacks what the attention needs.
    """
    if attention != "native":
        use_attention(network, attention, where, "model.attention")
    if compiled:
        compile_blocks(network)


def use_attention(network: VelocityNetwork, backend: str, where: str, key: str) -> None:
    """Have the attention of a network computed by another of diffusers' backends.

    Of this network alone: what diffusers sets for every other one beside it is set back.

    Args:
        where, key: who was told so, and by what, for an error.
    Raises:
        UserError: there is none of that name, or this machine lacks what it needs.
    """
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry as Registry

    before, _ = Registry.get_active_backend()
    for net in transformers_of(network):
        try:
            net.set_attention_backend(backend)
            Registry.set_active_backend(before)
        except (ValueError, RuntimeError, ImportError, NotImplementedError) as error:
            expected = f"one of diffusers' backends that works here ({error})"
            raise refusal(where, key, backend, expected) from None


def compile_blocks(network: VelocityNetwork, backend: str = "inductor") -> None:
    """Compile a network's blocks, each kind of them once; adapters may come later."""
    import torch._dynamo.config

    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.config.recompile_limit = max(limit, VARIANTS)
    for net in transformers_of(network):
        net.compile_repeated_blocks(backend=backend)
