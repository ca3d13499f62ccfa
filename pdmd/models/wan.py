"""Wan's own transformer as a velocity on unpacked latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pdmd.models.base import Condition, prompt_of
from pdmd.models.conditions import Conditions, TextNetwork


class WanVelocity(TextNetwork):
    """A WanTransformer3DModel with the prompts it reads, zero-padded to one length.

    For image-to-video the conditions' images are concatenated to x_t.
    """

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = None) -> Tensor:
        """Velocity at x_t (N, C, T, H, W), t (N,), prompt (N,) or prompt and image (N, 2)."""
        conditions, condition = self.told(x_t, condition)
        text = conditions.text[prompt_of(condition)]  # Wan reads the zeros of padding, too
        x = x_t
        if condition.ndim == 2 and conditions.images is not None:
            x = torch.cat([x_t, conditions.images[condition[:, 1]]], 1)
        found: Tensor = self.net(
            hidden_states=x, timestep=1000 * t, encoder_hidden_states=text, return_dict=False
        )[0]
        return found


def build_wan(
    spec: Mapping[str, Any], channels: int, conditions: Conditions, seed: int
) -> WanVelocity:
    """A new network; its weights are a function of `seed`.

    Args:
        spec: width, heads, depth and feedforward; channels: of the latents.
    """
    from diffusers import WanTransformer3DModel

    extra = 0 if conditions.images is None else conditions.images.shape[1]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net: Any = WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=spec["heads"],
            attention_head_dim=spec["width"] // spec["heads"],
            in_channels=channels + extra,
            out_channels=channels,
            text_dim=conditions.text.shape[-1],
            freq_dim=64,
            ffn_dim=spec.get("feedforward", 4 * spec["width"]),
            num_layers=spec["depth"],
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=64,
        )
    return WanVelocity(net, conditions)
