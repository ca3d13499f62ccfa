"""The stages that prepare a released model's prompts: their embeddings, and first frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pdmd.config.experiment import Config
from pdmd.config.paths import Paths
from pdmd.config.run import read_run
from pdmd.config.sections import ReleasedData, Run, latent_size, parse_size
from pdmd.data.prompts import Prompt, write_prompts
from pdmd.data.scenes import draw_scene
from pdmd.data.shards import Tensors, keep_shards, make_shards
from pdmd.data.texts import Text, read_texts, tell, texts_hash
from pdmd.data.vae import family_codec, first_frame
from pdmd.errors import UserError
from pdmd.files import provenance
from pdmd.files.storage import fingerprint, read_json, shown, write_json
from pdmd.models.families import FAMILIES, Family
from pdmd.models.source import check_manifest
from pdmd.stages.outputs import IMAGES, STORE, base_file, text_reads
from pdmd.stages.stage import prepare
from pdmd.training.world import ALONE, World

if TYPE_CHECKING:
    from PIL.Image import Image

    from pdmd.models.text import FamilyText

UNTAGGED = "untagged"  # kind of a prompt without a stratum
FRAME_ROWS = 16  # first frames in a shard


def embed_prompts(config: Config, world: World = ALONE) -> None:
    """Write the rows of every prompt by the family's own encoder: evaluation's, training's, null.

    A killed job goes on behind its last shard. Only the text encoder is loaded.
    """
    prepare(config)
    run, family, folder = _given(config)
    data, paths = _data(run), Paths(run)
    texts, counts = read_all(data)
    said = [*(one.text for one in texts), data.negative]
    state = _state(paths, "embed", config, texts_hash(texts))
    encoder = _Encoder(folder, family, world)

    def make(first: int, end: int) -> Tensors:
        rows = encoder.rows(said[first:end])
        return {"rows": torch.cat(rows), "lengths": torch.tensor([len(one) for one in rows])}

    make_shards(state, len(said), data.shard_prompts, make, world.rank, world.size)
    world.barrier()
    if not world.leads:
        return
    evaluated = texts[: counts["evaluation"]]
    write_prompts(
        paths.data("prompts.json"),
        [Prompt(one.text, one.stratum or UNTAGGED, "heldout") for one in evaluated],
    )
    manifest = read_json(base_file(run), dict)
    index = {**counts, "null": len(said) - 1, "prompts_sha256": texts_hash(texts)}
    index |= {"family": run.model.family, "model": manifest["folder"]}
    index |= {"revision": manifest["revision"], "negative": data.negative}
    keep_shards(state, paths.data("store"), len(said), index)
    provenance.record(paths.data("embedding.json"), config, [], text_reads(run), STORE)


def read_all(data: ReleasedData) -> tuple[list[Text], dict[str, int]]:
    """Prompts of evaluation, then those of training, and how many there are of each.

    Bad rows are told and left out.

    Raises:
        UserError: a file is none, or has no good row.
    """
    texts: list[Text] = []
    counts: dict[str, int] = {}
    for name, column in (("evaluation", "prompt"), ("train", data.column)):
        path = Path(getattr(data, name))
        good, bad = read_texts(path, column, data.image)
        tell(path, bad)
        texts += good
        counts |= {name: len(good), f"{name}_left_out": len(bad)}
    return texts, counts


class _Encoder:
    """The family's text encoder, loaded when it is first needed: not where all shards are there."""

    def __init__(self, folder: Path, family: Family, world: World):
        self.where = folder, family, world.device
        self.loaded: FamilyText | None = None

    def rows(self, texts: Sequence[str]) -> list[Tensor]:
        """Valid token rows (length, D) in bf16 of each text."""
        from pdmd.models.text import FamilyText

        if self.loaded is None:
            self.loaded = FamilyText.load(*self.where)
        before = len(self.loaded.cut)
        rows = self.loaded.rows(texts)
        if more := len(self.loaded.cut) - before:
            first = shown(self.loaded.cut[before])
            print(f"cut: {more} prompts that are longer than the encoder reads: {first}")
        return rows


def encode_images(config: Config, world: World = ALONE) -> None:
    """Write what image-to-video is given beside x_t, of every prompt's picture at every size."""
    prepare(config)
    run, family, folder = _given(config)
    data, paths = _data(run), Paths(run)
    texts, _ = read_all(data)
    codec = family_codec(folder, family, world.device)
    for size in data.sizes:
        frames = parse_size(size)
        state = _state(paths, f"images-{size}", config, texts_hash(texts))

        def make(first: int, end: int, frames: tuple[int, int, int] = frames) -> Tensors:
            pictures = [picture_of(one, frames) for one in texts[first:end]]
            images = [first_frame(codec, picture, frames) for picture in pictures]
            return {"images": torch.stack(images).to(torch.bfloat16)}

        make_shards(state, len(texts), FRAME_ROWS, make, world.rank, world.size)
        world.barrier()
        if world.leads:
            index = {"size": size, "latents": list(latent_size(frames))}
            keep_shards(state, paths.data("images") / size, len(texts), index)
    if world.leads:
        summary = {"sizes": list(data.sizes), "pictures": len(texts)}
        write_json(paths.data(IMAGES), {**summary, "prompts_sha256": texts_hash(texts)})


def picture_of(text: Text, size: tuple[int, int, int]) -> Image:
    """The first frame of a prompt: a file, or a scene that is drawn. Raises UserError."""
    from PIL import Image

    if text.image is not None:
        return Image.open(text.image).convert("RGB")
    if text.scene is None:
        raise UserError(f"{text.where}: no image: expected one, or a scene, for image-to-video")
    return draw_scene(text.scene, *size[1:])


def _given(config: Config) -> tuple[Run, Family, Path]:
    run = read_run(config)
    return run, FAMILIES[str(run.model.family)], check_manifest(base_file(run))


def _data(run: Run) -> ReleasedData:
    assert isinstance(run.data, ReleasedData)
    return run.data


def _state(paths: Paths, name: str, config: Config, prompts: str) -> Path:
    """A folder for finished shards of this very configuration and these prompts."""
    digest = fingerprint({"config": config, "prompts": prompts})[:12]
    return paths.state(f"{name}-{digest}", [0])
