"""Wan's own transformer as a velocity on unpacked latents."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pdmd.config.sections import Model
from pdmd.models.base import Condition, Space, TextNetwork, given


class WanVelocity(TextNetwork):
    """A WanTransformer3DModel; it reads the zeros that text is padded with, so to one length.

    For image-to-video the images are concatenated to x_t.
    """

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = None) -> Tensor:
        """Velocity at x_t (N, C, T, H, W), t (N,), text of N prompts, with images or not."""
        prompts = given(condition)
        x = x_t if prompts.images is None else torch.cat([x_t, prompts.images.to(x_t.dtype)], 1)
        dtype = self.computes or self.net.patch_embedding.weight.dtype
        velocity: Tensor = self.net(
            hidden_states=x.to(dtype),
            timestep=1000 * t,
            encoder_hidden_states=prompts.text.to(dtype),
            return_dict=False,
        )[0]
        return velocity.to(x_t.dtype)


def build_wan(spec: Model, space: Space, seed: int) -> WanVelocity:
    """A new network; its weights are a function of `seed`.

    Args:
        spec: width, heads, depth and feedforward; space: of latents (C, T, H, W), text and images.
    """
    from diffusers import WanTransformer3DModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net: Any = WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=spec.heads,
            attention_head_dim=spec.width // spec.heads,
            in_channels=space.shape[0] + space.image_channels,
            out_channels=space.shape[0],
            text_dim=space.text_width,
            freq_dim=64,
            ffn_dim=spec.feedforward or 4 * spec.width,
            num_layers=spec.depth,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=64,
        )
    return WanVelocity(net)
