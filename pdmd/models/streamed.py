"""A released transformer without its weights, and its weights read part by part from its files.

A process of a sharded job reads of each tensor the rows that it holds, and nothing else: no process
ever has a whole model in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pdmd.errors import UserError
from pdmd.files.storage import reading, shown
from pdmd.models.adapters import MARK
from pdmd.models.rows import first_row, local
from pdmd.models.source import weight_files


def empty_transformer(folder: Path, kind: str, dtype: torch.dtype) -> Any:
    """A diffusers model whose tensors have shapes and dtypes, and no values (device "meta").

    Its dtypes are those that `from_pretrained` gives it, parts in float32 included. What it looks
    up positions in, which no file holds, is made at once.

    Args:
        folder: with config.json; kind: the model's class.
    Raises:
        UserError: the configuration is not of that class.
    """
    import diffusers

    one = getattr(diffusers, kind)
    try:
        with torch.device("meta"):
            net = one.from_config(one.load_config(folder))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{folder}: {shown(error)}: expected a {kind}") from None
    precise = set(net._keep_in_fp32_modules or ())
    for name, p in net.named_parameters():
        p.data = p.data.to(torch.float32 if precise & set(name.split(".")) else dtype)
    _make_positions(net)
    return net.eval().requires_grad_(False)


def _make_positions(net: Any) -> None:
    """Make the tables of rotary positions, which are functions of the configuration."""
    config = net.config
    if "Qwen" in type(net).__name__:
        net.pos_embed = type(net.pos_embed)(10000, list(config.axes_dims_rope), scale_rope=True)
    else:
        size = (config.attention_head_dim, config.patch_size, config.rope_max_seq_len)
        net.rope = type(net.rope)(*size)


def make_room(net: nn.Module, device: torch.device) -> None:
    """Give tensors without values memory on a device; their values are still to come."""
    for module in net.modules():
        for name, p in module.named_parameters(recurse=False):
            if local(p).device.type == "meta":
                room = torch.empty_like(p.detach(), device=device)
                setattr(module, name, nn.Parameter(room, requires_grad=p.requires_grad))


@torch.no_grad()
def fill(net: nn.Module, folder: Path) -> None:
    """Read the weights of a transformer from its folder, of sharded tensors the rows held here.

    Adapters, of which the files know nothing, stay as they are.

    Raises:
        UserError: a tensor is missing, of another shape, or no numbers; names the folder, or the
            file.
    """
    with ExitStack() as stack:
        slices = dict(_slices(folder, stack))
        for name, p in net.named_parameters():
            if MARK in name:
                continue
            key = name.replace(".base_layer.", ".")
            if key not in slices:
                raise UserError(f"{folder}: {key}: missing: expected it in the files of weights")
            path, rows = slices[key]
            with reading(path, f"{key} of shape {tuple(p.shape)}"):
                if tuple(rows.get_shape()) != tuple(p.shape):
                    raise ValueError(f"{key} of shape {tuple(rows.get_shape())}")
                start, mine = first_row(p), local(p)
                if len(mine):
                    mine.copy_(rows[start : start + len(mine)])
            if len(mine) and not is_finite(mine):
                raise UserError(f"{path}: {key}: not finite: expected numbers")


def is_finite(tensor: Tensor) -> bool:
    """Whether all values are numbers: a flipped bit may give others. No copy is made of them."""
    least, most = torch.aminmax(tensor)  # NaN where one is
    return math.isfinite(least.item() + most.item())


def _slices(folder: Path, stack: ExitStack) -> Iterator[tuple[str, tuple[Path, Any]]]:
    """Name of each tensor of a folder -> its file, and what reads rows of it."""
    from safetensors import safe_open

    for path in weight_files(folder):
        with reading(path, "a whole safetensors file"):
            file = stack.enter_context(safe_open(path, "pt"))
            for key in file.keys():  # noqa: SIM118 - it is no mapping
                yield key, (path, file.get_slice(key))
