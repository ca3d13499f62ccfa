"""Networks whose tensors are spread over the processes of a job, by FSDP2 from outside.

The order is torchtitan's: a network without values (`models.streamed`), adapters, checkpointing of
activations, `shard`, and its values at last, of which each process reads its own rows. Nothing that
a sharded network gives out is written to in place: FSDP2 hangs its backward pass on it.

What a process calls, in which order, must not depend on its rows: it gathers weights together with
the others. `config.hardware_checks.check_sharded` says which settings keep to that.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from pdmd.models.adapters import experts_of, transformers_of
from pdmd.models.base import TextNetwork, VelocityNetwork
from pdmd.models.streamed import fill, make_room
from pdmd.training.world import World

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


@contextmanager
def mesh_of(world: World) -> Iterator[DeviceMesh]:
    """All processes of a job in one row; one process alone gets a group of its own meanwhile."""
    from torch.distributed.device_mesh import init_device_mesh

    alone = not dist.is_initialized()
    if alone:
        backend = "cpu:gloo,cuda:nccl" if world.device.type == "cuda" else "gloo"
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        with warnings.catch_warnings():  # of writing in place, which nobody does
            warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
            yield init_device_mesh(world.device.type, (world.size,), mesh_dim_names=("shard",))
    finally:
        if alone:
            dist.destroy_process_group()


def shard(network: VelocityNetwork, mesh: DeviceMesh, computes: torch.dtype | None = None) -> None:
    """Spread the tensors of a network's transformers over a mesh: each block's, and the rest's.

    The tensors may have no values yet, and may be fake ones.

    Args:
        mesh: of one dimension; computes: the precision of calls, where tensors are kept in
            float32 to be trained; gradients are averaged in float32 then.
    """
    for expert in network.modules():
        if isinstance(expert, TextNetwork):
            expert.computes = computes
    for net in transformers_of(network):
        _shard_transformer(net, mesh, computes)


def blocks_of(net: Any) -> list[Any]:
    """The repeated blocks of a diffusers transformer."""
    return list(net.transformer_blocks if hasattr(net, "transformer_blocks") else net.blocks)


def _shard_transformer(net: Any, mesh: DeviceMesh, computes: torch.dtype | None) -> None:
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    # Inputs are not cast: a time of 937.5 is 936 in bfloat16.
    kept = MixedPrecisionPolicy(cast_forward_inputs=False)
    policy = kept
    if computes is not None:
        policy = MixedPrecisionPolicy(computes, torch.float32, cast_forward_inputs=False)
    # The outermost, too, gives its tensors back after a call that nobody back-propagates.
    options: dict[str, Any] = {"mesh": mesh, "reshard_after_forward": True}
    for block in blocks_of(net):
        fully_shard(block, mp_policy=policy, **options)
    embedder = getattr(net, "condition_embedder", None)
    if computes is not None and embedder is not None:  # Wan embeds times in float32
        fully_shard(embedder.time_embedder, mp_policy=kept, **options)
    fully_shard(net, mp_policy=policy, **options)


def materialise(
    network: VelocityNetwork, folders: Mapping[str, Path], device: torch.device
) -> None:
    """Give a sharded network its values, each process reading its own rows.

    Args:
        folders: of the transformers, by the names that parts of the network have ("high", "low"),
            "" for one transformer.
    """
    for _, name, net in experts_of(network):
        make_room(net, device)
        fill(net, folders[name])
