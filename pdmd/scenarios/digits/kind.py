"""Handwritten digits by class, in the latents of a fitted codec."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pdmd.config.complaints import refusal
from pdmd.config.sections import SEED, Data
from pdmd.config.typed import key
from pdmd.scenarios.kind import Kind

if TYPE_CHECKING:
    from torch import Tensor

CONSTANT = 56  # components that single copies of the digits surely have: some pixels are constant
DIGITS, RAREST = 1797, 174  # scikit-learn's, and those of the rarest class
STYLES = ["modes_covered", "tv"]
DIVERSITY = ["coverage", "cosine", "feature_cosine", "density", "accuracy", "kid"]
SCORED_BY = ("codec", "train", "heldout", "classifier")


@dataclass(frozen=True, kw_only=True)
class Digits(Data):
    """scikit-learn's pictures, in the latents of a codec."""

    heldout: int = key("pictures never trained on", least=8, most=1_000_000)
    copies: int = key(
        "each training picture is used once as it is and `copies` - 1 times jittered",
        least=1,
        most=10_000,
    )
    components: int = key("size of a latent", least=1, most=64)
    whitening: float = key(
        "the power of each component's standard deviation that is divided out (1 whitens fully)",
        least=0,
        most=1,
    )
    seed: int = key("seed of what is drawn at random", least=0, most=SEED)


def check(data: Digits, where: str) -> None:
    """Sizes that the digits have. Raises UserError."""
    if not 100 <= data.heldout <= 900:
        raise refusal(where, "data.heldout", data.heldout, "100 to 900")
    if data.copies == 1 and data.components > CONSTANT:
        expected = f"at most {CONSTANT} for data.copies 1: some pixels are constant"
        raise refusal(where, "data.components", data.components, expected)


def scorer(stage: Any) -> Callable[[Tensor, Tensor | None], dict[str, float | None]]:
    """(latents, classes) -> metrics of the pictures that they decode to."""
    from pdmd.metrics import checks
    from pdmd.scenarios.digits.metrics import PictureMetrics
    from pdmd.scenarios.digits.pictures import load_classifier, load_codec, load_split

    codec = load_codec(stage.paths.data("codec.safetensors"))
    train = load_split(stage.paths.data("train.safetensors"))
    held = load_split(stage.paths.data("heldout.safetensors"))
    score = PictureMetrics(
        held["pictures"],
        held["labels"],
        train["pictures"].mean(0),
        train["styles"],
        load_classifier(stage.paths.data("classifier.safetensors")),
        stage.run.evaluate.neighbours,
    )

    def score_latents(x: Tensor, labels: Tensor | None) -> dict[str, float | None]:
        assert labels is not None
        return score(codec.decode(checks.samples("scores", x, what="latents")), labels)

    return score_latents


def encode(config: dict[str, Any]) -> None:
    """Pictures to whitened latents."""
    from pdmd.scenarios.digits.pictures import encode

    encode(config)


def classifier(config: dict[str, Any]) -> None:
    """Train the classifier that scores pictures."""
    from pdmd.scenarios.digits.pictures import train_classifier

    train_classifier(config)


KIND = Kind(
    name="digits",
    model="conditional-mlp",
    data=Digits,
    check=check,
    evaluate=frozenset({"samples", "frontier_samples", "neighbours"}),
    tables=["diversity", "modes", "differences", "equal_fidelity", "exits", "runs"],
    headline="diversity",
    figures={
        "samples": ("samples", "codec", "heldout"),
        "frontier": ("frontier", "metrics"),
        "diversity": ("metrics",),
        "training": ("training",),
    },
    metrics=lambda: {
        "modes": (STYLES, "writing styles covered"),
        "diversity": (DIVERSITY, "diversity"),
    },
    prompts=10,
    fidelity="density",
    known=lambda data: {"modes_covered": 50},
    equal=["coverage", "cosine", "accuracy", "kid"],
    classes=10,
    latent_size=lambda data: int(data.components),
    real_samples=lambda data: int(data.heldout * RAREST // DIGITS),
    reads=[f"{name}.safetensors" for name in SCORED_BY],
    scorer=scorer,
    encode=encode,
    classifier=classifier,
)
