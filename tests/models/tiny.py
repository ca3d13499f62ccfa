"""Tiny random models of the real classes, and pipelines around them."""

import torch

from pdmd.models.conditions import Conditions
from pdmd.models.qwen import build_qwen
from pdmd.models.wan import build_wan

WIDTH = 32  # of text rows
QWEN = {"width": 32, "heads": 2, "depth": 2}
WAN = {"width": 24, "heads": 2, "depth": 2, "feedforward": 32}
CHANNELS = 16  # of latents, as the real ones


def conditions(images=None, lengths=(7, 5, 9, 1)):
    """Four prompts, the last one null."""
    generator = torch.Generator().manual_seed(3)
    text = torch.randn(len(lengths), max(lengths), WIDTH, generator=generator)
    for row, length in enumerate(lengths):
        text[row, length:] = 0
    return Conditions(text, torch.tensor(lengths), len(lengths) - 1, images)


def randomise(network, seed=0):
    """Give every parameter a value, so that nothing is zero by construction."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(0.2 * torch.randn(p.shape, generator=generator))
    return network.eval().requires_grad_(False)


def qwen(seed=0, **options):
    return randomise(build_qwen(QWEN, CHANNELS, conditions(**options), 0), seed)


def wan(seed=0, **options):
    return randomise(build_wan(WAN, CHANNELS, conditions(**options), 0), seed)


def vae(kind, base_dim):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(
            base_dim=base_dim,
            z_dim=16,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
        )


def wan_vae():
    from diffusers import AutoencoderKLWan

    return vae(AutoencoderKLWan, 3)


def qwen_vae():
    from diffusers import AutoencoderKLQwenImage

    return vae(AutoencoderKLQwenImage, 8)


def euler(shift=1.0):
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=shift)


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))
