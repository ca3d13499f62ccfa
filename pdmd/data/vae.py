"""The VAEs of the released families, and the first frame that image-to-video is given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pdmd.config.sections import Size
from pdmd.data.codec import VaeCodec, first_frame_condition, load_vae
from pdmd.models.families import Family

if TYPE_CHECKING:
    from PIL.Image import Image


def family_codec(folder: Path, family: Family, device: str | torch.device = "cpu") -> VaeCodec:
    """The VAE of a model's folder, in float32; nothing else of it is read. Raises UserError."""
    return load_vae(family.vae, str(folder / "vae")).to(device)


@torch.no_grad()
def first_frame(codec: VaeCodec, image: Image, size: Size) -> Tensor:
    """What Wan2.2's image-to-video model is given beside x_t, as its pipeline makes it.

    Args:
        image: of any size, resized to fill the frame; size: frames, height and width in px.
    Returns:
        (20, T', H', W'): 4 channels of a mask, and the latents of the picture before grey frames.
    """
    from diffusers.video_processor import VideoProcessor

    frames, height, width = size
    processor: Any = VideoProcessor(vae_scale_factor=8)
    picture = processor.preprocess(image, height=height, width=width).to(codec.mean.device)
    clip = torch.zeros(1, 3, frames, height, width, device=picture.device)
    clip[:, :, 0] = picture
    latents = codec.vae.encode(clip).latent_dist.mode()
    scaled = (latents - codec.mean) * (1.0 / codec.std)
    return first_frame_condition(scaled)[0].cpu()
