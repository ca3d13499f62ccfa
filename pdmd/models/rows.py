"""Tensors of which each process of a job holds some rows (FSDP2), handled as whole ones are.

FSDP2 shares rows out as `torch.chunk` does: ceil(rows / processes) each, the last ones fewer.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: some of its rows where it is sharded, else all.

    Writing into it, under `torch.no_grad()`, changes the tensor.
    """
    own = getattr(tensor, "to_local", None)
    return tensor if own is None else own()


def is_sharded(tensor: Tensor) -> bool:
    """Whether processes hold some rows each."""
    return hasattr(tensor, "to_local")


def first_row(tensor: Tensor) -> int:
    """The number of the first row that this process holds of a tensor."""
    mesh = getattr(tensor, "device_mesh", None)
    if mesh is None:
        return 0
    rows, rank, size = tensor.shape[0], mesh.get_local_rank(), mesh.size()
    return min(rank * -(-rows // size), rows)


def whole(tensor: Tensor) -> Tensor:
    """All rows of a tensor; of a sharded one all processes wait for each other here."""
    gathered = getattr(tensor, "full_tensor", None)
    return tensor if gathered is None else gathered()


def gathered(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors on the CPU where they were sharded, for which all processes wait here."""
    return {
        name: whole(tensor.detach()).cpu() if is_sharded(tensor) else tensor
        for name, tensor in state.items()
    }
