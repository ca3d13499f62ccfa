"""Known damage to real samples, which metrics are tried on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

BLUR, NOISE = 1.0, 0.2  # px of a Gaussian; standard deviation in [-1, 1]
FEW = 2  # samples of a prompt that a collapse leaves


@dataclass(frozen=True)
class Samples:
    """Samples by their features alone.

    Attributes:
        prompt, mode: (N,) what was asked for and which known mode each is of.
        features: name -> (N, ...).
    """

    prompt: Tensor
    mode: Tensor
    features: Mapping[str, Tensor]

    def take(self, rows: Tensor) -> Samples:
        """Some of the samples, also repeatedly."""
        features = {name: values[rows] for name, values in self.features.items()}
        return Samples(self.prompt[rows], self.mode[rows], features)


def blur(x: Tensor, _: torch.Generator) -> Tensor:
    """A Gaussian blur of BLUR px."""
    reach = int(3 * BLUR + 0.5)
    kernel = torch.exp(-torch.arange(-reach, reach + 1).square() / (2 * BLUR**2))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    planes = functional.pad(x.flatten(0, -3)[:, None], [reach] * 4, mode="replicate")
    planes = functional.conv2d(functional.conv2d(planes, kernel), kernel.mT)
    return planes.view_as(x)


def noise(x: Tensor, generator: torch.Generator) -> Tensor:
    """White noise."""
    return (x + NOISE * torch.randn(x.shape, generator=generator)).clamp(-1, 1)


def still(clips: Tensor, _: torch.Generator) -> Tensor:
    """The first frame throughout."""
    return clips[:, :, :1].expand_as(clips)


def half_speed(clips: Tensor, _: torch.Generator) -> Tensor:
    """The first half, each frame twice."""
    return clips[:, :, torch.arange(clips.shape[2]) // 2]


def shuffled(clips: Tensor, generator: torch.Generator) -> Tensor:
    """Frames of each clip in an order of its own."""
    order = torch.rand(len(clips), clips.shape[2], generator=generator).argsort(1)
    return clips.gather(2, order[:, None, :, None, None].expand_as(clips))


def backwards(clips: Tensor, _: torch.Generator) -> Tensor:
    """The last frame first."""
    return clips.flip(2)


def one_mode(samples: Samples) -> Tensor:
    """For each prompt samples of one mode alone, its first sample's."""
    rows = torch.arange(len(samples.prompt))
    for prompt in samples.prompt.unique():
        mine = (samples.prompt == prompt).nonzero().flatten()
        kept = mine[samples.mode[mine] == samples.mode[mine[0]]]
        rows[mine] = kept[torch.arange(len(mine)) % len(kept)]
    return rows


def collapse(samples: Samples) -> Tensor:
    """For each prompt its first FEW samples again and again."""
    rows = torch.arange(len(samples.prompt))
    for prompt in samples.prompt.unique():
        mine = (samples.prompt == prompt).nonzero().flatten()
        rows[mine] = mine[torch.arange(len(mine)) % FEW]
    return rows
