"""Qwen-Image's own transformer as a velocity on unpacked latents."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pdmd.config.sections import Model
from pdmd.models.base import Condition, Space, TextNetwork, given


def pack(x: Tensor) -> Tensor:
    """(N, C, 1, H, W) -> tokens (N, H / 2 * W / 2, 4 C), as QwenImagePipeline packs."""
    n, channels, _, height, width = x.shape
    x = x.view(n, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(n, height // 2 * (width // 2), channels * 4)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of pack."""
    n, _, channels = tokens.shape
    x = tokens.view(n, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(n, channels // 4, 1, height, width)


def rescale_guidance(guided: Tensor, given: Tensor) -> Tensor:
    """Give each token of a guided velocity the norm of the conditional one (QwenImagePipeline).

    Args:
        guided, given: (N, C, 1, H, W).
    """
    height, width = guided.shape[-2:]
    tokens, norm = pack(guided), pack(given).norm(dim=-1, keepdim=True)
    return unpack(tokens * (norm / tokens.norm(dim=-1, keepdim=True)), height, width)


class QwenVelocity(TextNetwork):
    """A QwenImageTransformer2DModel; it reads no padding of text, so text is cut to the batch's.

    Where processes share tokens, to a multiple of those: each computes as many.
    """

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = None) -> Tensor:
        """Velocity at x_t (N, C, 1, H, W), t (N,), text of N prompts -> like x_t."""
        prompts = given(condition)
        lengths = prompts.lengths
        dtype = self.computes or self.net.img_in.weight.dtype
        longest = -(-int(lengths.max()) // self.sharing) * self.sharing
        text = prompts.text[:, :longest].to(dtype)
        text = torch.nn.functional.pad(text, (0, 0, 0, longest - text.shape[1]))
        height, width = x_t.shape[-2:]
        mask = torch.arange(text.shape[1], device=x_t.device) < lengths[:, None]
        v = self.net(
            hidden_states=pack(x_t).to(dtype),
            timestep=t,
            encoder_hidden_states=text,
            encoder_hidden_states_mask=None if bool(mask.all()) else mask,
            img_shapes=[[(1, height // 2, width // 2)]] * len(x_t),
            return_dict=False,
        )[0]
        return unpack(v, height, width).to(x_t.dtype)


def rope_axes(width: int) -> tuple[int, int, int]:
    """Rope dimensions of (frame, height, width) for heads of some width: even, summing to it."""
    side = width // 8 * 2 + (2 if width % 8 else 0)
    side = min(side + width // 16 * 2, (width - 2) // 4 * 2)
    return width - 2 * side, side, side


def build_qwen(spec: Model, space: Space, seed: int) -> QwenVelocity:
    """A new network; its weights are a function of `seed`.

    Args:
        spec: width, heads and depth; space: of latents (C, 1, H, W) and text.
    """
    from diffusers import QwenImageTransformer2DModel

    head = spec.width // spec.heads
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net: Any = QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=4 * space.shape[0],
            out_channels=space.shape[0],
            num_layers=spec.depth,
            attention_head_dim=head,
            num_attention_heads=spec.heads,
            joint_attention_dim=space.text_width,
            guidance_embeds=False,
            axes_dims_rope=rope_axes(head),
        )
    return QwenVelocity(net)
