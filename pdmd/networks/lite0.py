"""EfficientNet-Lite0 on ImageNet-1k: pooled features and logits of pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pdmd.files.assets import asset
from pdmd.files.storage import load_tensors
from pdmd.networks.same import SameConv2d

# Tan & Le 2019, table 1: repeats, kernel, stride, expansion, width.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
CHUNK = 4  # pictures at a time: on one core 64 at once take twice as long


def normalise(width: int) -> nn.BatchNorm2d:
    """Batch normalisation with TensorFlow's epsilon."""
    return nn.BatchNorm2d(width, eps=1e-3)


class Block(nn.Module):
    """An inverted residual without squeeze and excitation."""

    def __init__(self, width_in: int, width: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner = width_in * expansion
        self.expands, self.residual = expansion > 1, stride == 1 and width_in == width
        if self.expands:
            self.expand_conv = nn.Conv2d(width_in, inner, 1, bias=False)
            self.bn0 = normalise(inner)
        self.depthwise_conv = SameConv2d(inner, inner, kernel, stride, groups=inner, bias=False)
        self.bn1 = normalise(inner)
        self.project_conv = nn.Conv2d(inner, width, 1, bias=False)
        self.bn2 = normalise(width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width_in, H, W) -> (N, width, H', W')."""
        y = functional.relu6(self.bn0(self.expand_conv(x))) if self.expands else x
        y = functional.relu6(self.bn1(self.depthwise_conv(y)))
        y = self.bn2(self.project_conv(y))
        return x + y if self.residual else y


class Lite0(nn.Module):
    """EfficientNet-Lite0; calling it gives the features before the classifier.

    Attributes:
        size: pictures are resized to it, pixels; num_features: as torchmetrics asks for it.
    """

    num_features = 1280

    def __init__(self, size: int = 128):
        super().__init__()
        self.size = size
        self.conv_stem, self.bn0 = SameConv2d(3, 32, 3, 2, bias=False), normalise(32)
        self.blocks, width_in = nn.Sequential(), 32
        for repeats, kernel, stride, expansion, width in STAGES:
            for number in range(repeats):
                step = stride if number == 0 else 1
                self.blocks.append(Block(width_in, width, kernel, step, expansion))
                width_in = width
        self.conv_head = nn.Conv2d(width_in, self.num_features, 1, bias=False)
        self.bn1 = normalise(self.num_features)
        self.fc = nn.Linear(self.num_features, 1000)

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) in [-1, 1] -> pooled features (N, 1280)."""
        return torch.cat([self._pooled(part) for part in pictures.split(CHUNK)])

    def _pooled(self, pictures: Tensor) -> Tensor:
        x = functional.relu6(self.bn0(self.conv_stem(self.prepare(pictures))))
        x = functional.relu6(self.bn1(self.conv_head(self.blocks(x))))
        return x.mean((2, 3))

    @torch.no_grad()
    def logits(self, pictures: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) in [-1, 1] -> logits of ImageNet-1k (N, 1000)."""
        return self.fc(self(pictures))

    def prepare(self, pictures: Tensor) -> Tensor:
        """Resize, and scale as the weights were trained: (byte - 127) / 128."""
        resized = functional.interpolate(
            pictures, (self.size, self.size), mode="bicubic", antialias=True, align_corners=False
        )
        return (127.5 * (resized.clamp(-1, 1) + 1) - 127) / 128


def load_lite0(size: int = 128) -> Lite0:
    """The trained network, frozen. Raises UserError if its weights were not fetched.

    Channels come last in memory, which saves a quarter of the time on one core.
    """
    network = Lite0(size)
    weights = load_tensors(asset("lite0", "lite0.safetensors"))
    # The checkpoint's names have leading underscores: _blocks.0._bn1.weight.
    network.load_state_dict(
        {name.removeprefix("_").replace("._", "."): value for name, value in weights.items()}
    )
    return network.to(memory_format=torch.channels_last).eval().requires_grad_(False)
