"""What a stage may take out of a file that another stage wrote: shapes, dtypes, ranges, no NaN.

Nothing is cast on the way: a tensor of another dtype is a damaged or a foreign file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pdmd.errors import UserError
from pdmd.files.storage import load_tensors, shown

FLOAT = torch.float32
Shape = Sequence[int | None]  # None where any size will do


def take(
    path: Path | str,
    tensors: Mapping[str, Tensor],
    name: str,
    shape: Shape,
    dtype: torch.dtype = FLOAT,
    least: float | None = None,
    below: float | None = None,
) -> Tensor:
    """A tensor of a file, looked at before anyone uses it.

    Args:
        path: that messages name; shape: its sizes, None where any above zero will do.
        least, below: its values lie in [least, below); floating point is finite in any case.
    Raises:
        UserError: names the file and the tensor, what it is and what was expected.
    """
    tensor = header(path, tensors, name, shape, dtype)
    low, high = _extremes(tensor)
    if not low - low == high - high == 0:  # NaN or infinite
        raise UserError(f"{path}: {name}: not finite: expected finite values")
    if (least is not None and low < least) or (below is not None and high >= below):
        wanted = f"{'' if least is None else f'{least} <= '}value"
        wanted += "" if below is None else f" < {below}"
        raise UserError(f"{path}: {name}: {low:g} to {high:g}: expected {wanted}")
    return tensor


def header(
    path: Path | str,
    tensors: Mapping[str, Tensor],
    name: str,
    shape: Shape,
    dtype: torch.dtype = FLOAT,
) -> Tensor:
    """A tensor of a file by its shape and dtype alone; its values stay on disk where it is mapped.

    Raises:
        UserError: names the file and the tensor, what it is and what was expected.
    """
    tensor = tensors.get(name)
    if tensor is None:
        have = shown(", ".join(sorted(tensors)) or "nothing")
        raise UserError(f"{path}: {have}: expected a tensor {name!r}")
    fits = tensor.ndim == len(shape) and tensor.numel() > 0
    fits = fits and all(b in (a, None) for a, b in zip(tensor.shape, shape, strict=True))
    if not fits or tensor.dtype != dtype:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise UserError(
            f"{path}: {name}: {_named(tensor.dtype)} {tuple(tensor.shape)}:"
            f" expected {_named(dtype)} ({wanted})"
        )
    return tensor


def _extremes(tensor: Tensor) -> tuple[float, float]:
    """Least and greatest value in one pass without a copy; NaN if one is."""
    low, high = torch.aminmax(tensor)
    return low.item(), high.item()


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def load_finite(path: Path) -> dict[str, Tensor]:
    """Numbers whose names, shapes and precision their network decides. Raises UserError."""
    tensors = load_tensors(path)
    for name, tensor in tensors.items():
        kind = tensor.dtype if tensor.is_floating_point() else FLOAT
        take(path, tensors, name, tensor.shape, kind)
    return tensors


def check_state(
    path: Path | str, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> None:
    """Refuse weights that are not those of a network: names, shapes, dtypes, finite values.

    Args:
        path: that messages name; wanted: the network's own state dict.
    """
    if odd := sorted(state.keys() ^ wanted.keys()):
        which = f"{'' if odd[0] in state else 'no '}{odd[0]}"
        more = f" and {len(odd) - 1} more" if odd[1:] else ""
        raise UserError(f"{path}: {which}{more}: expected weights of the configured model")
    for name, tensor in wanted.items():
        if tensor.numel() or state[name].numel():
            take(path, state, name, tensor.shape, tensor.dtype)


def check_pretrained(network: nn.Module, info: Mapping[str, Collection[object]]) -> None:
    """Refuse a network of diffusers or transformers that was not in its files whole.

    Both make up what is missing, and warn. Raises ValueError.

    Args:
        info: what `from_pretrained(..., output_loading_info=True)` says.
    """
    for kind in ("missing_keys", "mismatched_keys"):
        if names := sorted(map(str, info.get(kind, ()))):
            raise ValueError(f"{kind.replace('_', ' ')}: {names[0]}")
    for name, p in network.named_parameters():
        if not bool(torch.isfinite(p).all()):
            raise ValueError(f"{name}: not finite")


def load_network(path: Path, network: nn.Module) -> None:
    """Put a file's weights into a network that they must be those of. Raises UserError."""
    state = load_tensors(path)
    check_state(path, state, network.state_dict())
    network.load_state_dict(state)
