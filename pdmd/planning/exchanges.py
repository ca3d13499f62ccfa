"""What processes send each other in an update: which tensors, and how many bytes.

Every exchange is an operation that the counter of a plan sees, in a group that is not there, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

KINDS = (WEIGHTS, GRADIENTS, TOKENS) = ("weights", "gradients", "tokens")
# Of an operation's name: what it carries, which argument has all of that, how often that is sent.
OPERATIONS = {
    "c10d::_allgather_base_": (WEIGHTS, 0, 1),
    "c10d::_reduce_scatter_base_": (GRADIENTS, 1, 1),
    "c10d::allreduce_": (GRADIENTS, 0, 2),  # to where sums are made, and back
    "c10d::allgather_": (TOKENS, 0, 1),  # masks of text
    "_c10d_functional::all_to_all_single": (TOKENS, 0, 1),
    "_c10d_functional::all_gather_into_tensor": (TOKENS, None, 1),  # what it returns
}
# Operations of these that send nothing.
SILENT = ("wait_tensor", "_wrap_tensor_autograd", "barrier")


def exchanged(func: Any, args: tuple[Any, ...], made: Any) -> tuple[str, int] | None:
    """What an operation has a group exchange, (kind, bytes of all its processes together), or None.

    Raises:
        NotImplementedError: the exchange is one of which nothing is known here.
    """
    name = getattr(func, "_schema", None) and func._schema.name
    if name is None or "c10d" not in name or name.endswith(SILENT):
        return None
    if name not in OPERATIONS:
        raise NotImplementedError(f"{name}: expected one of {', '.join(OPERATIONS)}")
    kind, position, times = OPERATIONS[name]
    tensors = [
        one
        for one in tree_leaves(made if position is None else args[position])
        if isinstance(one, Tensor)
    ]
    return kind, times * sum(one.numel() * one.element_size() for one in tensors)


def received(exchanges: Mapping[str, float], gpus: int, context: int) -> dict[str, float]:
    """Kind -> bytes that each GPU receives: of what a group of n puts together, all but an n-th.

    Args:
        exchanges: kind -> bytes of all processes of a group; gpus: that share networks or
            gradients; context: that share tokens.
    """
    sizes = {WEIGHTS: gpus, GRADIENTS: gpus, TOKENS: context}
    return {kind: total * (sizes[kind] - 1) / sizes[kind] for kind, total in exchanges.items()}
