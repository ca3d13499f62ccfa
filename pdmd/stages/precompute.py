"""The stages that prepare pictures and clips with prompts: render, encode, embed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from pdmd.config.experiment import Config
from pdmd.config.paths import Paths
from pdmd.config.run import read_run
from pdmd.config.sections import PromptedData
from pdmd.data.codec import Codec, make_codec, save_codec
from pdmd.data.prompts import SPLITS, Prompt, heldout, read_prompts, write_prompts
from pdmd.errors import UserError
from pdmd.files import provenance
from pdmd.files.contents import take
from pdmd.files.storage import load_tensors, save_tensors, write_json
from pdmd.scenarios.kind import prompted
from pdmd.stages.outputs import CONDITIONS, EMBEDDED, PICTURES, PROMPTED_LATENTS, PROVENANCE

OFTEN = {"free": 4}  # eight known motions need more samples than one


def render(config: Config) -> None:
    """Write the pictures or clips of both splits with their labels, and every prompt."""
    run = read_run(config)
    data, paths = cast(PromptedData, run.data), Paths(run)
    torch.set_num_threads(run.threads)
    kind = prompted(data.kind)
    tensors = kind.render(data)
    save_tensors(paths.data("pictures.safetensors"), tensors)
    write_prompts(paths.data("prompts.json"), kind.prompts(data))
    provenance.record(paths.data("pictures.json"), config, [data.seed], [], PICTURES)


def load_pictures(path: Path, kind: str, prompts: int | None = None) -> dict[str, Tensor]:
    """The pictures or clips of both splits that `render` wrote, with their labels and captions.

    Args:
        kind: of data with prompts; prompts: how many there are.
    Raises:
        UserError: names the file and the tensor that is missing or wrong.
    """
    tensors, brings = load_tensors(path), prompted(kind)
    sides = (None,) * (2 if brings.frames == 1 else 3)
    for split in SPLITS:
        rows = len(take(path, tensors, split, (None, 3, *sides), torch.uint8))
        take(path, tensors, f"{split}_prompts", (rows, None), torch.int64, 0, prompts)
        for name, size in brings.labels().items():
            take(path, tensors, f"{split}_{name}", (rows,), torch.int64, -1, size)
    return tensors


def to_unit(pictures: Tensor) -> Tensor:
    """uint8 (N, 3, [T,] H, W) -> float (N, 3, T, H, W) in [-1, 1]."""
    x = pictures.float() / 127.5 - 1
    return x if x.ndim == 5 else x.unsqueeze(2)


def encode(config: Config) -> None:
    """Write latents of both splits, their codec, and how exactly it gives pictures back."""
    run = read_run(config)
    data, paths = cast(PromptedData, run.data), Paths(run)
    torch.set_num_threads(run.threads)
    source = paths.data("pictures.safetensors")
    prompts = read_prompts(paths.data("prompts.json"))
    pictures = load_pictures(source, data.kind, len(prompts))
    train = to_unit(pictures["train"])
    codec, kept = make_codec(data.codec, train)
    for split in SPLITS:
        latents = codec.encode(to_unit(pictures[split]))
        tensors = {"latents": latents, "prompts": pictures[f"{split}_prompts"]}
        save_tensors(paths.data(f"{split}.safetensors"), tensors)
    beside = {"evaluation": torch.tensor(evaluation(prompts))}
    if data.with_image:
        beside = image_conditions(codec, pictures, prompts)
    shape = {"latent_shape": json.dumps(list(latents.shape[1:]))}
    save_tensors(paths.data(CONDITIONS), beside, shape)
    save_codec(paths.data("codec.safetensors"), codec, data.codec)
    held = to_unit(pictures["heldout"])
    error = (codec.decode(codec.encode(held)) - held).square().mean()
    metrics = {
        "latent_shape": list(latents.shape[1:]),
        "variance_kept": kept,
        "heldout_psnr_db": float(10 * torch.log10(4 / error)),
        "train": len(train),
        "heldout": len(held),
    }
    write_json(paths.data("codec.json"), metrics)
    provenance.record(paths.data(PROVENANCE), config, [data.seed], [source], PROMPTED_LATENTS)


def first_frames(clips: Tensor) -> Tensor:
    """Clips (N, 3, T, H, W) of which only the first frame is left; the rest is grey (0)."""
    kept = torch.zeros_like(clips)
    kept[:, :, :1] = clips[:, :, :1]
    return kept


def image_conditions(
    codec: Codec, pictures: dict[str, Tensor], prompts: list[Prompt]
) -> dict[str, Tensor]:
    """What image-to-video is conditioned on: one image a training row, then those of evaluation.

    Each prompt of evaluation gets a held-out clip whose truth it states, so that text and image
    agree; `evaluation` holds (prompt, image) pairs.
    """
    from pdmd.data.codec import first_frame_condition

    numbers = evaluation(prompts)
    rows = [matching_row(pictures, prompts[n], i) for i, n in enumerate(numbers)]
    clips = torch.cat([pictures["train"], pictures["heldout"][rows]])
    images = first_frame_condition(codec.encode(first_frames(to_unit(clips))))
    first = len(pictures["train"])
    pairs = [[number, first + i] for i, number in enumerate(numbers)]
    return {"images": images, "evaluation": torch.tensor(pairs)}


def evaluation(prompts: list[Prompt]) -> list[int]:
    """The prompts that samples of record are drawn for, equally often; free ones more often."""
    return [n for n in heldout(prompts) for _ in range(OFTEN.get(prompts[n].kind, 1))]


def matching_row(pictures: dict[str, Tensor], prompt: Prompt, number: int) -> int:
    """A held-out clip for which a prompt is true, another one for another number.

    Raises:
        UserError: there is none.
    """
    fits = torch.ones(len(pictures["heldout"]), dtype=torch.bool)
    for name, value in prompt.truth.items():
        if value is not None:
            fits &= pictures[f"heldout_{name}"] == value
    rows = fits.nonzero().flatten()
    if not len(rows):
        raise UserError(
            f"data.heldout: {len(fits) // 2}: expected enough clips for one of {prompt.text!r}"
        )
    return int(rows[number % len(rows)])


def embed(config: Config) -> None:
    """Write the text encoder's token rows of every prompt, as valid rows."""
    from pdmd.data.conditions import save_prompts
    from pdmd.networks.minilm import load_minilm

    run = read_run(config)
    paths = Paths(run)
    torch.set_num_threads(run.threads)
    source = paths.data("prompts.json")
    prompts = read_prompts(source)
    encoder = load_minilm()
    rows = encoder.tokens([prompt.text for prompt in prompts])
    nulls = [i for i, prompt in enumerate(prompts) if prompt.kind == "null"]
    if not nulls:
        raise UserError(f"{source}: no prompt of kind 'null': expected one")
    null = nulls[0]
    metadata: dict[str, Any] = {"encoder": "all-MiniLM-L6-v2"}
    save_prompts(paths.data("prompts.safetensors"), rows, null, metadata)
    provenance.record(paths.data("embedding.json"), config, [], [source], EMBEDDED)
