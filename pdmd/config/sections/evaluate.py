"""What samples are looked at and scored by."""

from __future__ import annotations

from dataclasses import dataclass

from pdmd.config.sections.limits import SIZE, UPDATES
from pdmd.config.typed import key


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """What scores pictures and clips by what they show."""

    updates: int = key("of its training", least=1, most=UPDATES)
    kept: str | None = key(
        "emoji, moving: weights of this very judge, trained before (`pdmd keep-judge`), with their"
        " digest beside them; null trains it",
        absent=None,
        null=True,
        minLength=1,
    )


ALONG = {"features": "lite0", "flow": "opencv", "clip": "small"}  # networks of every machine


@dataclass(frozen=True, kw_only=True)
class Networks:
    """Frozen networks in the place of those that come along."""

    features: str = key(
        "of cosine, Vendi score, FID and KID: `lite0`, or DINOv3 by its hub name (`owner/name`) or"
        " a local folder",
        absent="lite0",
        minLength=1,
    )
    flow: str = key(
        "moving: `opencv`, or RAFT's weights: a name of torchvision's (`C_T_V2`) or a file",
        absent="opencv",
        minLength=1,
    )
    clip: str | None = key(
        "weights of CLIP: a name (`ViT-B/32`) or a file; `small`, or absent: the small one that a"
        " rule trains",
        absent=None,
        minLength=1,
    )

    @property
    def fetched(self) -> dict[str, str]:
        """What does not come along with this package, by key."""
        every = {role: getattr(self, role) or along for role, along in ALONG.items()}
        return {role: name for role, name in every.items() if name != ALONG[role]}

    def clip_weights(self, results: str) -> str:
        """The name or file of CLIP's weights.

        Args:
            results: the folder of everything, where the small one is.
        """
        return f"{results}/clip/small_clip.pt" if self.clip in (None, "small") else str(self.clip)


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Samples of record, and what they are compared with."""

    samples: int = key(
        "samples of record of a seed; emoji, moving: at least 8 for each of 20 and 120 prompts",
        least=2,
        most=100_000_000,
    )
    beside: str = key(
        "emoji, moving: the method, a teacher, whose samples a method's are compared with, drawn"
        " from noise of their own (`draw`), since distances between samples of equal noise are not"
        " those of two sets",
        minLength=1,
    )
    draw: int = key(
        "of a teacher: which of its independent draws the samples of record are; equal numbers see"
        " equal noise in every method, for pictures side by side",
        least=1,
        most=1000,
        absent=1,
    )
    frontier_samples: int | None = key(
        "samples for each snapshot; emoji, moving: as many as `samples`, since coverage depends on"
        " the number",
        least=2,
        most=100_000_000,
        absent=None,
    )
    video_samples: int | None = key(
        "moving: clips that go through I3D, at most `samples` and twice `data.heldout`",
        least=4,
        most=100_000_000,
        absent=None,
    )
    steps: int | None = key(
        "toy1d: Euler steps of a trajectory, one of which meets t = 0.5",
        least=1,
        most=1_000_000,
        absent=None,
    )
    neighbours: int | None = key(
        "k of coverage and density, less than the samples, and the held-out ones, of a prompt",
        least=1,
        most=1_000_000,
        absent=None,
    )
    networks: Networks | None = key("see `evaluate.networks`", absent=None)
    size: str | None = key(
        "pretrained: of samples, `81x480x832` frames, height and width; one of `data.sizes`",
        absent=None,
        pattern=SIZE,
    )
    previews: int | None = key(
        "pretrained: prompts that are drawn from every snapshot of training, for TensorBoard; null:"
        " none",
        least=1,
        most=64,
        absent=None,
        null=True,
    )


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What tables compare at."""

    levels: tuple[float, ...] = key(
        "fidelities at which `equal_fidelity` compares methods: inliers for `mixture2d`, density"
        " for `digits` and `emoji`, density of clips for `moving`; within what the metric can be",
        entries=(0, 100),
        uniqueItems=True,
    )
