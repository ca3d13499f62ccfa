"""Inflated 3D Inception (I3D) on Kinetics-400: logits and pooled features of clips."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pdmd.files.assets import asset
from pdmd.files.storage import load_tensors
from pdmd.networks.same import SameConv3d, SameMaxPool3d

# Carreira & Zisserman 2017, fig. 3; each of the Inception modules: widths of the 1x1 branch, of
# the two 3x3 branches (reduction, output) and of the pooled branch.
MIXED = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
CHUNK = 8  # clips at a time, which bounds memory: about 65 MB each at 224 pixels


class Unit(nn.Module):
    """Convolution, batch normalisation without a scale, ReLU."""

    def __init__(self, width_in: int, width: int, kernel: int = 1, stride: int = 1):
        super().__init__()
        self.conv: nn.Conv3d = SameConv3d(width_in, width, kernel, stride, bias=False)
        self.norm: nn.Module = nn.BatchNorm3d(width, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width_in, T, H, W) -> (N, width, T', H', W')."""
        return functional.relu(self.norm(self.conv(x)), inplace=True)


def chain(**layers: nn.Module) -> nn.Sequential:
    """Layers one after the other, named as the checkpoint names them."""
    return nn.Sequential(OrderedDict(layers))


class Mixed(nn.Module):
    """An Inception module: four branches side by side."""

    def __init__(self, width_in: int, widths: tuple[int, ...]):
        super().__init__()
        one, reduced, three, reduced_again, three_again, pooled = widths
        self.width = one + three + three_again + pooled
        self.Branch_0 = chain(Conv3d_0a_1x1=Unit(width_in, one))
        self.Branch_1 = chain(
            Conv3d_0a_1x1=Unit(width_in, reduced), Conv3d_0b_3x3=Unit(reduced, three, 3)
        )
        self.Branch_2 = chain(
            Conv3d_0a_1x1=Unit(width_in, reduced_again),
            Conv3d_0b_3x3=Unit(reduced_again, three_again, 3),
        )
        self.Branch_3 = chain(
            MaxPool3d_0a_3x3=SameMaxPool3d((3, 3, 3), (1, 1, 1)),
            Conv3d_0b_1x1=Unit(width_in, pooled),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, width_in, T, H, W) -> (N, width, T, H, W)."""
        branches = (self.Branch_0, self.Branch_1, self.Branch_2, self.Branch_3)
        return torch.cat([branch(x) for branch in branches], 1)


class I3D(nn.Module):
    """I3D on RGB.

    Attributes:
        size: frames are resized to it, pixels.
    """

    def __init__(self, size: int = 224):
        super().__init__()
        self.size = size
        self.body = chain(
            Conv3d_1a_7x7=Unit(3, 64, 7, 2),
            MaxPool3d_2a_3x3=SameMaxPool3d((1, 3, 3), (1, 2, 2)),
            Conv3d_2b_1x1=Unit(64, 64),
            Conv3d_2c_3x3=Unit(64, 192, 3),
            MaxPool3d_3a_3x3=SameMaxPool3d((1, 3, 3), (1, 2, 2)),
        )
        width = 192
        for name, widths in MIXED.items():
            if name == "Mixed_4b":
                self.body.add_module("MaxPool3d_4a_3x3", SameMaxPool3d((3, 3, 3), (2, 2, 2)))
            if name == "Mixed_5b":
                self.body.add_module("MaxPool3d_5a_2x2", SameMaxPool3d((2, 2, 2), (2, 2, 2)))
            mixed = Mixed(width, widths)
            self.body.add_module(name, mixed)
            width = mixed.width
        self.classifier = nn.Conv3d(width, 400, 1)

    @torch.no_grad()
    def forward(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Clips (N, 3, T, H, W) in [-1, 1] -> logits (N, 400) and pooled features (N, 1024).

        Fewer than 9 frames leave one position in time where the classifier pools two, and fewer
        than 193 pixels fewer than its 7 by 7 places: it then pools what there is.
        """
        parts = [self._both(part) for part in clips.split(CHUNK)]
        logits, pooled = zip(*parts, strict=True)
        return torch.cat(logits), torch.cat(pooled)

    def _both(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(self.resize(clips))
        window = [min(most, have) for most, have in zip((2, 7, 7), x.shape[2:], strict=True)]
        logits = self.classifier(functional.avg_pool3d(x, window, 1))
        return logits.mean((2, 3, 4)), x.mean((2, 3, 4))

    def resize(self, clips: Tensor) -> Tensor:
        """Resize every frame bilinearly to size by size pixels."""
        n, _, t, h, w = clips.shape
        if (h, w) == (self.size, self.size):
            return clips
        frames = clips.transpose(1, 2).flatten(0, 1)
        frames = functional.interpolate(
            frames, (self.size, self.size), mode="bilinear", align_corners=False
        )
        return frames.unflatten(0, (n, t)).transpose(1, 2)


def load_unfolded(size: int = 224) -> I3D:
    """The trained network with its batch normalisation, frozen."""
    network = I3D(size)
    network.load_state_dict(rename(load_tensors(asset("i3d", "i3d.safetensors"))))
    return network.eval().requires_grad_(False)


def load_i3d(size: int = 224) -> I3D:
    """The trained network, frozen. Raises UserError if its weights were not fetched.

    Batch normalisation is folded into the convolutions, and channels come last in memory: on one
    core both together save 12% of the time at 128 pixels and 17% at 224.
    """
    network = load_unfolded(size)
    for unit in network.modules():
        if isinstance(unit, Unit):
            assert isinstance(unit.norm, nn.BatchNorm3d)
            unit.conv, unit.norm = fuse_conv_bn_eval(unit.conv, unit.norm), nn.Identity()
    return network.to(memory_format=torch.channels_last_3d).requires_grad_(False)


def rename(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """Flax arrays (batch_stats/Mixed_3b/Branch_0/Conv3d_0a_1x1/BatchNorm_0/mean) as a state."""
    state = {}
    for path, array in arrays.items():
        *place, layer, kind = path.split("/")[1:]
        if place[0] == "Logits":
            place = ["classifier"]
        else:
            place = ["body", *place, "norm" if layer.startswith("BatchNorm") else "conv"]
        name = ".".join(place)
        if kind == "kernel":
            state[f"{name}.weight"] = array.permute(4, 3, 0, 1, 2)  # D H W I O
        elif kind == "bias":
            state[f"{name}.bias"] = array
        else:
            state[f"{name}.running_{kind}"] = array.flatten()
        if kind == "mean":  # what the checkpoint leaves out: no scale
            state[f"{name}.weight"] = torch.ones(array.numel())
            state[f"{name}.num_batches_tracked"] = torch.tensor(0)
    return state
