"""The decode stage: pictures or clips of samples of record, once for all that look at them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pdmd.config.experiment import Config
from pdmd.config.paths import Paths
from pdmd.data.codec import load_codec
from pdmd.data.sources import check_index, load_samples
from pdmd.files import provenance
from pdmd.files.contents import take
from pdmd.files.storage import load_tensors, save_tensors
from pdmd.metrics import checks
from pdmd.metrics.prompted import over_processes
from pdmd.models.base import Space
from pdmd.stages.outputs import DECODED, decode_reads
from pdmd.stages.stage import Stage, prepare
from pdmd.training.world import ALONE, World


def decode_samples(config: Config, seeds: list[int], world: World = ALONE) -> None:
    """Write decoded.safetensors beside each seed's samples."""
    prepare(config)
    stage = Stage(config, world)
    for seed in seeds:
        path = stage.paths.seed(seed, "samples.safetensors")
        tensors = load_samples(path, stage.space, stage.run.evaluate.samples)
        with checks.telling(str(path)):
            pictures = decoded(stage.paths, tensors["x"], world)
        if not world.leads:
            continue
        save_tensors(path.with_name(DECODED[0]), {**tensors, "x": pictures})
        inputs = decode_reads(stage.run, seed)
        provenance.record(path.with_name(DECODED[-1]), config, [seed], inputs, DECODED)


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
