"""Pictures and clips to latents and back: fixed linear patches, or a VAE of the real models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pdmd.config import sections
from pdmd.errors import UserError
from pdmd.files.contents import check_pretrained, take
from pdmd.files.storage import load_metadata, load_tensors, reading, save_tensors, shown

CHUNK = 256  # pictures or clips at a time
VAES = ("AutoencoderKLWan", "AutoencoderKLQwenImage")
FITTED_ON = 4000  # pictures or clips that a patch codec is fitted to


class Codec(Protocol):
    """Encodes (N, 3, T, H, W) in [-1, 1] to (N, C, T', H', W') and back; pictures have T = 1."""

    def to(self, device: torch.device | str) -> Codec: ...

    def encode(self, x: Tensor) -> Tensor: ...

    def decode(self, z: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class PatchCodec:
    """Principal components of space-time patches, each scaled by a power of its deviation.

    Attributes:
        mean (D,), basis (D, C), scale (C,): D = 3 pt p p; patch: (pt, p, p).
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor
    patch: tuple[int, int, int]

    def to(self, device: torch.device | str) -> PatchCodec:
        """The same codec on a device."""
        mean, basis, scale = (one.to(device) for one in (self.mean, self.basis, self.scale))
        return PatchCodec(mean, basis, scale, self.patch)

    def encode(self, x: Tensor) -> Tensor:
        """(N, 3, T, H, W) in [-1, 1] -> (N, C, T / pt, H / p, W / p)."""
        return _in_chunks(self._encode, x)

    def _encode(self, x: Tensor) -> Tensor:
        patches = to_patches(x, self.patch) - self.mean
        return (patches @ (self.basis / self.scale)).movedim(-1, 1)

    def decode(self, z: Tensor) -> Tensor:
        """(N, C, T', H', W') -> (N, 3, T, H, W), clamped to [-1, 1]."""
        return _in_chunks(self._decode, z)

    def _decode(self, z: Tensor) -> Tensor:
        patches = z.movedim(1, -1) @ (self.basis * self.scale).T + self.mean
        return from_patches(patches, self.patch).clamp(-1, 1)


def to_patches(x: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """(N, 3, T, H, W) -> (N, T / pt, H / p, W / p, 3 pt p p)."""
    n, channels, frames, height, width = x.shape
    pt, p, q = patch
    x = x.view(n, channels, frames // pt, pt, height // p, p, width // q, q)
    return x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)


def from_patches(patches: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """The inverse of to_patches, for three colour channels."""
    n, frames, height, width, _ = patches.shape
    pt, p, q = patch
    x = patches.view(n, frames, height, width, 3, pt, p, q).permute(0, 4, 1, 5, 2, 6, 3, 7)
    return x.reshape(n, 3, frames * pt, height * p, width * q)


def fit_patches(
    x: Tensor, patch: Sequence[int], channels: int, whitening: float
) -> tuple[PatchCodec, float]:
    """Fit a patch codec; latents have unit mean variance.

    Args:
        x: (N, 3, T, H, W) in [-1, 1]; channels: components kept.
        whitening: power of a component's standard deviation that is divided out.
    Returns:
        the codec, and the share of the variance that it keeps.
    Raises:
        UserError: the size is not a multiple of the patch, or more channels than a patch has.
    """
    size = tuple(int(side) for side in patch)
    if any(side % part for side, part in zip(x.shape[2:], size, strict=True)):
        raise UserError(
            f"data.codec.patch: {list(size)}: expected divisors of {tuple(x.shape[2:])}"
        )
    if channels > 3 * size[0] * size[1] * size[2]:
        raise UserError(
            f"data.codec.channels: {channels}: expected at most {3 * size[0] * size[1] * size[2]}"
        )
    fitted_on = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:FITTED_ON]
    triple = (size[0], size[1], size[2])
    patches = to_patches(x[fitted_on], triple).flatten(0, 3)
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).T.double().cov())
    values, vectors = values.flip(0).clamp_min(1e-8).float(), vectors.flip(1).float()
    kept, basis = values[:channels], vectors[:, :channels].contiguous()
    scale = kept.sqrt() ** whitening
    scale = scale * (kept / scale.square()).mean().sqrt()
    return PatchCodec(mean, basis, scale, triple), float(kept.sum() / values.sum())


class VaeCodec:
    """A diffusers VAE of the real models, its latents normalised as the pipelines do.

    Args:
        vae: AutoencoderKLWan or AutoencoderKLQwenImage.
    """

    def __init__(self, vae: nn.Module):
        self.vae: Any = vae.eval().requires_grad_(False)
        config: Any = vae.config
        shape = (1, -1, 1, 1, 1)
        self.mean = torch.tensor(config.latents_mean).view(shape)
        self.std = torch.tensor(config.latents_std).view(shape)

    def to(self, device: torch.device | str) -> VaeCodec:
        """The codec, moved to a device."""
        self.vae, self.mean, self.std = (
            part.to(device) for part in (self.vae, self.mean, self.std)
        )
        return self

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """(N, 3, T, H, W) in [-1, 1] -> normalised latents, the mode of the posterior."""

        def one(part: Tensor) -> Tensor:
            return (self.vae.encode(part).latent_dist.mode() - self.mean) / self.std

        return _in_chunks(one, x, 8)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Normalised latents -> (N, 3, T, H, W), clamped to [-1, 1]."""

        def one(part: Tensor) -> Tensor:
            return self.vae.decode(part * self.std + self.mean).sample.clamp(-1, 1)

        return _in_chunks(one, z, 8)


def _in_chunks(run: Any, x: Tensor, size: int = CHUNK) -> Tensor:
    return torch.cat([run(part) for part in _chunks(x, size)])


def _chunks(x: Tensor, size: int) -> Iterator[Tensor]:
    yield from x.split(size)


def load_vae(kind: str, weights: str) -> VaeCodec:
    """A VAE by class name from a local folder in the hub's layout, or by its name on the hub."""
    import diffusers

    folder = Path(weights)
    options = {"subfolder": "vae"} if not folder.exists() or (folder / "vae").exists() else {}
    try:
        loaded = getattr(diffusers, kind).from_pretrained(
            weights, output_loading_info=True, **options
        )
        check_pretrained(*loaded)
        return VaeCodec(loaded[0])
    except Exception as error:  # of a damaged folder diffusers says anything
        raise UserError(
            f"data.codec.weights: {weights!r}: {shown(error)}: expected a folder or hub name with"
            f" a {kind}"
        ) from error


def make_codec(spec: sections.Codec, x: Tensor) -> tuple[Codec, float | None]:
    """The codec of a `codec` section, fitted to x where it has to be.

    Returns:
        the codec, and the share of the variance kept (None for a VAE).
    """
    if spec.weights is not None:
        return load_vae(spec.kind, spec.weights), None
    assert spec.patch is not None
    assert spec.channels is not None
    assert spec.whitening is not None
    return fit_patches(x, spec.patch, spec.channels, spec.whitening)


def save_codec(path: Path, codec: Codec, spec: sections.Codec) -> None:
    """Write what decodes a scenario's latents again; of a VAE only its name."""
    if isinstance(codec, PatchCodec):
        tensors = {"mean": codec.mean, "basis": codec.basis, "scale": codec.scale}
        patch = ",".join(map(str, codec.patch))
        save_tensors(path, tensors, {"kind": "patches", "patch": patch})
    else:
        tensors = {"empty": torch.zeros(0)}
        save_tensors(path, tensors, {"kind": spec.kind, "weights": str(spec.weights)})


def load_codec(path: Path) -> Codec:
    """Read a codec written by `save_codec`. Raises UserError that names the file."""
    metadata, tensors = load_metadata(path), load_tensors(path)
    with reading(path, "a codec written by `pdmd render`"):
        kind, vae = metadata["kind"], metadata["kind"] in VAES
        weights = metadata["weights"] if vae else ""
        pt, p, q = (int(side) for side in metadata["patch"].split(",")) if not vae else (1, 1, 1)
        if not vae and (kind != "patches" or min(pt, p, q) < 1):
            raise ValueError(f"{kind} {metadata['patch']}")
    if vae:
        return load_vae(kind, weights)
    mean = take(path, tensors, "mean", (3 * pt * p * q,))
    basis = take(path, tensors, "basis", (len(mean), None))
    scale = take(path, tensors, "scale", basis.shape[1:], least=torch.finfo(torch.float32).tiny)
    return PatchCodec(mean, basis, scale, (pt, p, q))


def first_frame_condition(latents: Tensor, mask_channels: int = 4) -> Tensor:
    """What Wan2.2's image-to-video model is given beside x_t: a mask, then the first frame.

    Args:
        latents: (N, C, T, H, W) of clips whose first frame alone is known.
    Returns:
        (N, mask_channels + C, T, H, W); the mask is 1 at the first latent frame.
    """
    n, _, frames, height, width = latents.shape
    mask = latents.new_zeros(n, mask_channels, frames, height, width)
    mask[:, :, 0] = 1
    return torch.cat([mask, latents], 1)
