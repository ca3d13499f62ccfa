"""Learned perceptual distance (LPIPS v0.1, AlexNet) by torchmetrics, on weights that are here."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from pdmd.errors import UserError
from pdmd.files.assets import asset
from pdmd.files.storage import load_tensors, save_pickled

SMALLEST = 64  # AlexNet's last layers need this many pixels
LAYERS = (0, 3, 6, 8, 10)  # AlexNet's convolutions in torchvision's `features`


class Lpips(nn.Module):
    """LPIPS of pictures (N, 3, H, W) in [-1, 1]; small ones are enlarged to 64 pixels.

    Attributes:
        network: torchmetrics' own module.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    @torch.no_grad()
    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Two batches of pictures -> the distance of each to its partner, (N,)."""
        return self.network(enlarge(a), enlarge(b)).flatten()

    @torch.no_grad()
    def embed(self, pictures: Tensor, chunk: int = 64) -> Tensor:
        """Pictures -> rows (N, D) whose squared Euclidean distance is LPIPS.

        LPIPS is a sum of w (f - g)^2 over channels and places, w >= 0: the root of w goes into f.
        """
        return torch.cat([self._rows(enlarge(part)) for part in pictures.split(chunk)])

    def pairwise(self, pictures: Tensor, chunk: int = 64) -> Tensor:
        """Mean distance over all pairs of N >= 2 pictures, (); AlexNet sees each picture once.

        The mean squared distance of all pairs is twice the rows' unbiased variance, so no loop
        over pairs is left.
        """
        if len(pictures) < 2:
            raise ValueError(f"{len(pictures)} pictures: expected at least 2 for a pair")
        rows = self.embed(pictures, chunk)
        return 2 * (rows - rows.mean(0)).square().sum() / (len(rows) - 1)

    def _rows(self, pictures: Tensor) -> Tensor:
        layers = self.network.net(self.network.scaling_layer(pictures))  # type: ignore[operator]
        rows = []
        for layer, head in zip(layers, self.heads(), strict=True):
            # torchmetrics' normalisation, epsilon included
            unit = layer / (1e-8 + layer.square().sum(1, keepdim=True)).sqrt()
            rows.append((unit * (head / layer[0, 0].numel()).sqrt()).flatten(1))
        return torch.cat(rows, 1)

    def heads(self) -> list[Tensor]:
        """The weights of each layer's channels, (1, C, 1, 1)."""
        return [head.model[-1].weight for head in self.network.lins]  # type: ignore


def enlarge(pictures: Tensor) -> Tensor:
    """Enlarge pictures bilinearly until both sides have 64 pixels."""
    h, w = (max(side, SMALLEST) for side in pictures.shape[-2:])
    if (h, w) == tuple(pictures.shape[-2:]):
        return pictures
    return functional.interpolate(pictures, (h, w), mode="bilinear", align_corners=False)


def load_lpips() -> Lpips:
    """LPIPS with its trained weights, frozen.

    Raises UserError if they were not fetched, or if torchmetrics' heads are not those of the
    archive.
    """
    weights = load_tensors(asset("alexnet", "alexnet.safetensors"))
    lpips = Lpips(_from_torchmetrics(weights))
    check_heads(lpips, weights)
    return lpips.eval().requires_grad_(False)


def check_heads(lpips: Lpips, arrays: dict[str, Tensor]) -> None:
    """Two independent copies of the linear heads must be equal, and none negative."""
    for number, head in enumerate(lpips.heads()):
        expected = arrays[f"NetLinLayer_{number}/Conv_0/kernel"].permute(3, 2, 0, 1)
        if not torch.equal(head, expected) or bool((head < 0).any()):
            raise UserError(
                f"torchmetrics: head {number} of LPIPS: expected the weights of LPIPS v0.1, none "
                "negative, as in the archive"
            )


def _from_torchmetrics(arrays: dict[str, Tensor]) -> nn.Module:
    """Let torchmetrics build LPIPS, finding AlexNet's weights where torchvision looks for them."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    before = torch.hub.get_dir()
    # torchvision draws initial weights, which must not move anyone's random numbers
    with tempfile.TemporaryDirectory() as hub, torch.random.fork_rng(devices=[]):
        _write_checkpoint(Path(hub), arrays)
        torch.hub.set_dir(hub)
        try:
            return LearnedPerceptualImagePatchSimilarity(net_type="alex").net
        finally:
            torch.hub.set_dir(before)


def _write_checkpoint(hub: Path, arrays: dict[str, Tensor]) -> None:
    """Write AlexNet as torchvision's checkpoint; LPIPS has no use for the classifier: zeros."""
    from torchvision.models import AlexNet_Weights

    state = {}
    for number, layer in enumerate(LAYERS):
        convolution = f"AlexNet_0/Conv_{number}"
        state[f"features.{layer}.weight"] = arrays[f"{convolution}/kernel"].permute(3, 2, 0, 1)
        state[f"features.{layer}.bias"] = arrays[f"{convolution}/bias"]
    for layer, (wide, deep) in {1: (4096, 9216), 4: (4096, 4096), 6: (1000, 4096)}.items():
        # expanded from one number, which is all that goes to disk
        state[f"classifier.{layer}.weight"] = torch.zeros(()).expand(wide, deep)
        state[f"classifier.{layer}.bias"] = torch.zeros(()).expand(wide)
    save_pickled(hub / "checkpoints" / Path(AlexNet_Weights.DEFAULT.url).name, state)
