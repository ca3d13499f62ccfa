"""DINOv3's features of pictures, which the paper's pairwise cosine is of (Table 3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pdmd.errors import UserError
from pdmd.files.contents import check_pretrained
from pdmd.files.storage import shown

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as DINOv3's processor has
KINDS = ("dinov3_vit", "dinov2")
CHUNK = 32  # pictures at a time


class Dino:
    """A vision transformer of transformers; calling it gives its class token after the last norm.

    The paper names neither size nor pooling; the class token is what the model calls its output.

    Args:
        network: a DINOv3ViTModel or Dinov2Model; size: pictures are resized to it, pixels.
    """

    def __init__(self, network: Any, size: int):
        self.network, self.size = network, size

    def to(self, device: torch.device | str) -> Dino:
        """The network, moved to a device."""
        self.network = self.network.to(device)
        return self

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) in [-1, 1] -> features (N, D)."""
        parts = pictures.split(CHUNK)
        return torch.cat([self.network(self.prepare(part)).pooler_output for part in parts])

    def prepare(self, pictures: Tensor) -> Tensor:
        """Resize and normalise as transformers' DINOv3ViTImageProcessor does."""
        unit = (pictures.clamp(-1, 1) + 1) / 2
        side = (self.size, self.size)
        resized = functional.interpolate(
            unit, side, mode="bilinear", antialias=True, align_corners=False
        )
        mean, std = (unit.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        return (resized - mean) / std


def load_dino(weights: str) -> Dino:
    """DINOv3 by its name on the hub, or from a local folder in the hub's layout.

    Raises:
        UserError: it is not there, or another kind of network.
    """
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(weights)
        if config.model_type not in KINDS:
            raise ValueError(f"a network of type {config.model_type}")
        network, info = AutoModel.from_pretrained(weights, output_loading_info=True)
        check_pretrained(network, info)
    except Exception as error:  # of a damaged folder transformers says anything
        raise UserError(
            f"evaluate.networks.features: {weights!r}: {shown(error)}: expected lite0, or a folder"
            " or hub name of a DINOv3 vision transformer whose terms were accepted"
        ) from error
    return Dino(network.eval().requires_grad_(False), config.image_size)
