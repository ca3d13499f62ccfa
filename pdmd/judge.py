"""The classifiers that score small pictures and clips; trained on real pictures only."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pdmd import provenance
from pdmd.config import Config
from pdmd.contents import check_state
from pdmd.draws import Stream
from pdmd.outputs import JUDGE
from pdmd.paths import Paths
from pdmd.prompted import load_pictures, to_unit
from pdmd.storage import load_metadata, load_tensors, reading, save_tensors, write_json

BATCH = 96
HEADS = {"emoji": ("object", "style"), "moving": ("object", "scene")}


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
        found: Tensor = self.body(pictures)
        return found

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


def spoil(pictures: Tensor, stream: Stream) -> Tensor:
    """Add noise of a random strength, so that the judge bears what generators leave."""
    n = len(pictures)
    strength = 0.2 * stream.uniform(n)[:, None, None, None]
    return pictures + strength * stream.normal(n, pictures.shape[1:])


def train_judge(config: Config) -> None:
    """Train on real training pictures; state the accuracy on held-out ones."""
    paths = Paths(config)
    torch.set_num_threads(config["threads"])
    source = paths.data("pictures.safetensors")
    kind = config["data"]["kind"]
    tensors, names = load_pictures(source, kind), HEADS[kind]
    labels = {name: tensors[f"train_{name}"] for name in names}
    sizes = {name: int(values.max()) + 1 for name, values in labels.items()}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        judge = Judge(sizes)
    optimizer = torch.optim.AdamW(judge.parameters(), 2e-3, weight_decay=1e-2)
    updates = config["classifier"]["updates"]
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for step in range(updates):
        stream = Stream([0], step, "judge")
        rows = stream.integers(BATCH, len(tensors["train"]))
        pictures = spoil(one_frame(tensors["train"][rows], stream), stream)
        loss = heads_loss(judge(pictures), {name: values[rows] for name, values in labels.items()})
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        decay.step()
    path = paths.data("judge.safetensors")
    metadata = {name: str(size) for name, size in sizes.items()}
    save_tensors(path, judge.state_dict(), metadata)
    write_json(path.with_suffix(".json"), heldout_accuracy(judge, tensors, names))
    provenance.record(paths.data("judging.json"), config, [0], [source], JUDGE)


def one_frame(pictures: Tensor, stream: Stream) -> Tensor:
    """uint8 pictures or clips -> (N, 3, H, W) in [-1, 1], of a clip one frame."""
    x = to_unit(pictures)
    frame = stream.integers(len(x), x.shape[2])
    return x[torch.arange(len(x)), :, frame]


def heads_loss(logits: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> Tensor:
    """Cross entropy summed over heads; rows to which a label does not apply (-1) are left out."""
    losses = [
        functional.cross_entropy(logits[name], labels[name], ignore_index=-1)
        for name in labels
        if bool((labels[name] >= 0).any())
    ]
    return torch.stack(losses).sum()


def heldout_accuracy(
    judge: Judge, tensors: Mapping[str, Tensor], names: tuple[str, ...]
) -> dict[str, float]:
    """Share of held-out pictures, or clips, whose label is guessed right, by label."""
    pictures = to_unit(tensors["heldout"])
    guesses: dict[str, list[Tensor]] = {name: [] for name in names}
    for part in pictures.split(256):
        for name, guess in judge.guess(part.squeeze(2) if part.shape[2] == 1 else part).items():
            guesses[name].append(guess)
    found = {}
    for name in names:
        true = tensors[f"heldout_{name}"]
        hits = torch.cat(guesses[name]) == true
        found[f"heldout_{name}_accuracy"] = float(hits[true >= 0].double().mean())
    return found


def load_judge(path: Any) -> Judge:
    """Read a judge written by `train_judge`. Raises UserError that names the file."""
    metadata, state = load_metadata(path), load_tensors(path)
    with reading(path, "a judge written by `pdmd judge`"):
        sizes = {name: int(size) for name, size in metadata.items()}
        if tuple(sizes) not in HEADS.values():
            raise ValueError(f"heads {', '.join(sizes) or 'none'}")
        for name, size in sizes.items():  # before anything of that size is made
            if len(state[f"heads.{name}.weight"]) != size:
                raise ValueError(f"{name}: {size} classes")
    judge = Judge(sizes)
    check_state(path, state, judge.state_dict())
    judge.load_state_dict(state)
    return judge.eval().requires_grad_(False)
