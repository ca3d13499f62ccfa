"""The `data` section of all kinds: a kind's own keys stand in its room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pdmd.config.sections.limits import PATH, SEED, SIZE
from pdmd.config.typed import key


@dataclass(frozen=True, kw_only=True)
class Data:
    """The data of a scenario; each kind has further keys."""

    kind: str = key("of the room in `pdmd/scenarios/` that brings the data")


@dataclass(frozen=True, kw_only=True)
class Codec:
    """What takes pictures to latents and back."""

    kind: Literal["patches", "AutoencoderKLWan", "AutoencoderKLQwenImage"] = key(
        "principal components of patches, or the VAE of a real model"
    )
    patch: tuple[int, int, int] | None = key(
        "`patches`: frames, height and width of a patch", least=1, most=4096, absent=None
    )
    channels: int | None = key("`patches`: components kept", least=1, most=10_000, absent=None)
    whitening: float | None = key(
        "`patches`: the power of each component's standard deviation that is divided out",
        least=0,
        most=1,
        absent=None,
    )
    weights: str | None = key("VAEs: a local folder or hub name", absent=None, minLength=1)


@dataclass(frozen=True, kw_only=True)
class PromptedData(Data):
    """What data of pictures or clips with prompts have in common."""

    px: int = key("side of the pictures or clips", least=8, most=4096, multipleOf=4)
    heldout: int = key(
        "held out: jittered pictures of each sprite, clips of each kind, or so many of a `folder`",
        least=8,
        most=1_000_000,
    )
    codec: Codec = key("latents, see `data.codec`")
    seed: int = key("seed of what is drawn at random", least=0, most=SEED)

    @property
    def with_image(self) -> bool:
        """Whether a sample has its first frame as a condition beside its prompt."""
        return False


Size = tuple[int, int, int]  # frames, height and width in px


@dataclass(frozen=True, kw_only=True)
class ReleasedData(Data):
    """What a released model is distilled with: prompts alone, of image-to-video with pictures."""

    train: str = key(
        "prompts to train on: a .jsonl, .csv or .txt file, or a folder of pictures with"
        " metadata.jsonl or a .txt beside each",
        minLength=1,
        maxLength=PATH,
    )
    column: str = key("of the prompts in `train`", absent="prompt", minLength=1, maxLength=PATH)
    evaluation: str = key(
        "prompts that samples of record are drawn for, such a file", minLength=1, maxLength=PATH
    )
    negative: str = key("the prompt that guidance leads away from; may be empty", maxLength=2000)
    image: bool = key(
        "`true` where the model is given a first frame: `train` and `evaluation` name pictures",
        absent=False,
    )
    sizes: tuple[str, ...] = key(
        "that students are trained at, `81x480x832` frames, height and width in px; each batch has"
        " one of them",
        entries=(1, 100),
        items={"type": "string", "pattern": SIZE},
    )
    shares: tuple[float, ...] = key(
        "of the batches, for each size; they sum to 1", above=0, most=1, entries=(1, 100)
    )
    shard_prompts: int = key(
        "prompts in one file of embeddings", least=1, most=1_000_000, absent=1024
    )

    @property
    def with_image(self) -> bool:
        """Whether a sample has its first frame as a condition beside its prompt."""
        return self.image


def parse_size(text: str) -> Size:
    """`81x480x832` -> frames, height and width."""
    frames, height, width = map(int, text.split("x"))
    return frames, height, width


def latent_size(size: Size) -> tuple[int, int, int]:
    """Frames, height and width of the latents of released models: 4 frames, 8 x 8 px each."""
    frames, height, width = size
    return (frames - 1) // 4 + 1, height // 8, width // 8


def tokens_of(size: str) -> int:
    """Tokens of a sample: 2 x 2 latents each."""
    frames, height, width = latent_size(parse_size(size))
    return frames * (height // 2) * (width // 2)
