"""Tiny random models of the real classes, and pipelines around them."""

import torch

from pdmd.config.sections import Model
from pdmd.data.conditions import Prompts
from pdmd.models.base import Space
from pdmd.models.qwen import build_qwen
from pdmd.models.wan import build_wan

WIDTH = 32  # of text rows
QWEN = Model(kind="qwen", width=32, heads=2, depth=2)
WAN = Model(kind="wan", width=24, heads=2, depth=2, feedforward=32)
CHANNELS = 16  # of latents, as the real ones


TEXT = 9  # token rows that Wan's text is padded to


def conditions(images=None, lengths=(7, 5, 9, 1), padded=None):
    """Four prompts, the last one null."""
    generator = torch.Generator().manual_seed(3)
    text = torch.randn(len(lengths), max(lengths), WIDTH, generator=generator)
    rows = torch.cat([text[row, :length] for row, length in enumerate(lengths)])
    starts = torch.tensor([0, *lengths]).cumsum(0)
    return Prompts(rows, starts, len(lengths) - 1, padded, images=images)


def prompts(*index, images=None, padded=TEXT):
    """What a network is given for some prompts, or pairs of prompt and image."""
    return conditions(images, padded=padded).values(torch.tensor(index))


NULL = prompts(3)


def space(images=None):
    """Of latents with text, and images or not."""
    channels = 0 if images is None else images.shape[1]
    return Space((CHANNELS,), text_width=WIDTH, image_channels=channels)


def randomise(network, seed=0):
    """Give every parameter a value, so that nothing is zero by construction."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(0.2 * torch.randn(p.shape, generator=generator))
    return network.eval().requires_grad_(False)


def qwen(seed=0, **options):
    return randomise(build_qwen(QWEN, space(**options), 0), seed)


def wan(seed=0, **options):
    return randomise(build_wan(WAN, space(**options), 0), seed)


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
