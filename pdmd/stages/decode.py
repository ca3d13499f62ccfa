"""The decode stage: pictures or clips of samples of record, once for all that look at them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pdmd.config.experiment import Config
from pdmd.config.paths import Paths
from pdmd.data.codec import load_codec
from pdmd.data.conditions import prompt_of
from pdmd.data.shards import join_shards
from pdmd.data.sources import check_index, load_samples
from pdmd.data.vae import family_codec
from pdmd.files import provenance
from pdmd.files.contents import header, take
from pdmd.files.storage import load_tensors, save_tensors
from pdmd.metrics import checks
from pdmd.metrics.prompted import over_processes
from pdmd.models.base import Space
from pdmd.models.families import Family
from pdmd.models.source import check_manifest
from pdmd.stages.mixed import by_parts
from pdmd.stages.outputs import DECODED, decode_reads
from pdmd.stages.stage import Stage, prepare
from pdmd.training.loop import clear_state
from pdmd.training.world import ALONE, World


def decode_samples(config: Config, seeds: list[int], world: World = ALONE) -> None:
    """Write decoded.safetensors beside each seed's samples."""
    prepare(config)
    stage = Stage(config, world)
    for seed in seeds:
        if stage.family is not None:
            _decode_released(stage, stage.family, seed)
            continue
        path = stage.paths.seed(seed, "samples.safetensors")
        tensors = load_samples(path, stage.space, stage.run.evaluate.samples)
        with checks.telling(str(path)):
            pictures = decoded(stage.paths, tensors["x"], world)
        if not world.leads:
            continue
        save_tensors(path.with_name(DECODED[0]), {**tensors, "x": pictures})
        inputs = decode_reads(stage.run, seed)
        provenance.record(path.with_name(DECODED[-1]), config, [seed], inputs, DECODED)


def _decode_released(stage: Stage, family: Family, seed: int) -> None:
    """Samples of a released model, decoded one by one, as bytes."""
    path = stage.paths.seed(seed, "samples.safetensors")
    tensors = load_samples(path, stage.space, stage.run.evaluate.samples)
    folder = check_manifest(stage.paths.base("manifest.json"))
    codec = family_codec(folder, family, stage.world.device)

    def make(first: int, end: int) -> dict[str, Tensor]:
        latents = checks.samples("decode", tensors["x"][first:end], what="latents")
        return {"x": as_bytes(codec.decode(latents.to(stage.world.device)))}

    parts = by_parts(stage, "decode", seed, len(tensors["x"]), make)
    if stage.world.leads:
        pictures = join_shards(parts)
        save_tensors(path.with_name(DECODED[0]), {**pictures, "condition": tensors["condition"]})
        inputs = decode_reads(stage.run, seed)
        provenance.record(path.with_name(DECODED[-1]), stage.config, [seed], inputs, DECODED)
        clear_state(parts[0].parent)


def as_bytes(pictures: Tensor) -> Tensor:
    """[-1, 1] -> uint8 on the CPU, rounded as pipelines do."""
    return ((pictures / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def load_bytes(path: Path, space: Space, rows: int | None = None) -> tuple[Tensor, Tensor]:
    """Pictures (N, 3, T, H, W) of a released model's samples in uint8, and their prompts (N,).

    Raises:
        UserError: names the file and the tensor.
    """
    tensors = load_tensors(path)
    x = header(path, tensors, "x", (rows, 3, None, None, None), torch.uint8)
    return x, prompt_of(check_index(path, tensors, "condition", space, len(x)))


@torch.no_grad()
def decoded(paths: Paths, latents: Tensor, world: World = ALONE) -> Tensor:
    """Latents (N, C, T, H, W) of a scenario -> pictures (N, 3, T, H, W) in [-1, 1].

    Args:
        world: the processes that share the rows out.
    Raises:
        UserError: a latent is not finite: a decoder's clamp would hide what is infinite.
    """
    codec = load_codec(paths.data("codec.safetensors")).to(world.device)
    finite = checks.samples("decode", latents, what="latents")
    return over_processes(codec.decode, world)(finite)


def load_decoded(path: Path, space: Space, rows: int | None = None) -> tuple[Tensor, Tensor]:
    """Pictures (N, 3, T, H, W) of samples of record, and the indices of their conditions.

    Raises:
        UserError: names the file and the tensor.
    """
    tensors = load_tensors(path)
    x = take(path, tensors, "x", (rows, 3, None, None, None))
    return x, check_index(path, tensors, "condition", space, len(x))
