"""The classifiers that score small pictures and clips."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from pdmd.files.contents import check_state
from pdmd.files.storage import load_metadata, load_tensors, reading
from pdmd.scenarios.kind import kinds


class Judge(nn.Module):
    """A convolutional network with a head for each label; its last hidden layer gives features.

    Args:
        sizes: label -> number of classes.
    """

    def __init__(self, sizes: Mapping[str, int]):
        super().__init__()
        widths = (3, 32, 64, 96)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(outputs, outputs, 3, padding=1),
                nn.ReLU(),
            ]
        layers += [nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(96 * 9, 128), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.heads = nn.ModuleDict({name: nn.Linear(128, size) for name, size in sizes.items()})

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) in [-1, 1] -> logits (N, classes) of every label."""
        features = self.features(pictures)
        return {name: head(features) for name, head in self.heads.items()}

    def features(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] -> (N, 128)."""
        pooled: Tensor = self.body(pictures)
        return pooled

    @torch.no_grad()
    def guess(self, pictures: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W), or clips (N, 3, T, H, W) -> the likeliest class of every label, (N,).

        A clip's class is that of its frames' mean log probability.
        """
        if pictures.ndim == 4:
            return {name: logits.argmax(1) for name, logits in self(pictures).items()}
        frames = pictures.movedim(2, 1).flatten(0, 1)
        logits = self(frames)
        shape = (len(pictures), pictures.shape[2], -1)
        return {
            name: value.log_softmax(1).view(shape).mean(1).argmax(1)
            for name, value in logits.items()
        }


def sizes_of(judge: Judge) -> dict[str, str]:
    """Label -> number of classes, as `load_judge` reads it from a file's metadata."""
    return {name: str(head.out_features) for name, head in judge.heads.items()}


def load_judge(path: Any) -> Judge:
    """Read a judge written by `train_judge`. Raises UserError that names the file."""
    metadata, state = load_metadata(path), load_tensors(path)
    with reading(path, "a judge written by `pdmd judge`"):
        sizes = {name: int(size) for name, size in metadata.items()}
        if tuple(sizes) not in [kind.prompted.judged for kind in kinds().values() if kind.prompted]:
            raise ValueError(f"heads {', '.join(sizes) or 'none'}")
        for name, size in sizes.items():  # before anything of that size is made
            if len(state[f"heads.{name}.weight"]) != size:
                raise ValueError(f"{name}: {size} classes")
    judge = Judge(sizes)
    check_state(path, state, judge.state_dict())
    judge.load_state_dict(state)
    return judge.eval().requires_grad_(False)
