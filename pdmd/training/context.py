"""Processes that share the tokens of each sample: Ulysses (arXiv 2309.14509), as diffusers has it.

A process computes its part of a sample's tokens; attention is given all of them for a part of the
heads. What comes out is put together again, so all processes of a group have the same velocities,
and the same loss, of whose gradient each has the part that went through its tokens: their sum is
the whole, `distill.PhaseTrainer` sees to it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from pdmd.errors import UserError
from pdmd.models.adapters import transformers_of
from pdmd.models.base import TextNetwork, VelocityNetwork
from pdmd.training.world import World

KEY = "distill.parallel.context"


def share_tokens(networks: Iterable[VelocityNetwork], world: World) -> None:
    """Have groups of `world.context` processes share the tokens that networks are given.

    What diffusers' own `enable_parallelism` does, which asks for a GPU.

    Raises:
        UserError: the heads of a network do not divide among them, or its attention would look at
            a process's own tokens alone.
    """
    from diffusers.hooks.context_parallel import apply_context_parallel
    from diffusers.models._modeling_parallel import ContextParallelConfig, ParallelConfig
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry as Registry
    from torch.distributed.device_mesh import init_device_mesh

    warnings.filterwarnings("ignore", ".*all_gather_tensor. is deprecated", FutureWarning)
    shape, names = (world.shares, 1, world.context), ("shares", "ring", "ulysses")
    mesh = init_device_mesh(world.device.type, shape, mesh_dim_names=names)
    of = ContextParallelConfig(ulysses_degree=world.context, mesh=mesh)
    config = ParallelConfig(context_parallel_config=of)
    config.setup(world.rank, world.size, world.device, mesh=mesh)
    for network in networks:
        for module in network.modules():
            if isinstance(module, TextNetwork):
                module.sharing = world.context
        for net in transformers_of(network):
            heads = int(net.config.num_attention_heads)
            if heads % world.context:
                expected = f"a divisor of the {heads} heads of its attention"
                raise UserError(f"{KEY}: {world.context}: expected {expected}")
            for module in net.modules():
                processor = getattr(module, "processor", None)
                if processor is not None and hasattr(processor, "_parallel_config"):
                    active = processor._attention_backend or Registry.get_active_backend()[0]
                    if not Registry._is_context_parallel_available(active):
                        expected = f"1 with the attention {active.value}, or another attention"
                        raise UserError(f"{KEY}: {world.context}: expected {expected}")
                    processor._parallel_config = config
            # But for time steps of tokens, which these models do not have.
            plan = {name: what for name, what in net._cp_plan.items() if name}
            apply_context_parallel(net, of, plan)
