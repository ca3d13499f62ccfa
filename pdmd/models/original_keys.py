"""Adapters under the names of the original models, as ComfyUI, LightX2V and others load them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

PREFIX = "diffusion_model."
WAN = {  # diffusers' name -> the original one (Wan-Video/Wan2.2, wan/modules/model.py)
    "attn1.to_q": "self_attn.q",
    "attn1.to_k": "self_attn.k",
    "attn1.to_v": "self_attn.v",
    "attn1.to_out.0": "self_attn.o",
    "attn2.to_q": "cross_attn.q",
    "attn2.to_k": "cross_attn.k",
    "attn2.to_v": "cross_attn.v",
    "attn2.to_out.0": "cross_attn.o",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}
SIDES = {".lora_A.weight": ".lora_down.weight", ".lora_B.weight": ".lora_up.weight"}


def to_original(state: Mapping[str, Tensor], kind: str, alpha: float) -> dict[str, Tensor]:
    """An adapter's tensors under original names, with an `alpha` for every layer, in float32.

    Args:
        state: `<layer>.lora_A.weight` and `.lora_B.weight` under diffusers' names; kind: `wan`,
            whose layers have other names, or `qwen`, whose have not.
    Raises:
        ValueError: a layer that the original has not.
    """
    named: dict[str, Tensor] = {}
    for key, tensor in state.items():
        end = next(end for end in SIDES if key.endswith(end))
        layer = PREFIX + _original(key.removesuffix(end), kind)
        named[layer + SIDES[end]] = tensor.float().contiguous()
        named[f"{layer}.alpha"] = torch.tensor(float(alpha))
    return named


def _original(layer: str, kind: str) -> str:
    if kind == "qwen":
        return layer
    for ours, theirs in WAN.items():
        if layer.endswith(f".{ours}"):
            return layer.removesuffix(ours) + theirs
    raise ValueError(f"{layer}: expected a layer of a Wan block: {', '.join(WAN)}")
