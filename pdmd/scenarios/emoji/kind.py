"""Emoji of sixteen objects in four styles, from text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdmd.config.sections import Evaluate, Networks, PromptedData
from pdmd.config.typed import key
from pdmd.scenarios.kind import Kind, Prompted

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from pdmd.data.prompts import Prompt

COPIES = 4  # styles, of each held-out copy of an object
METRICS = {  # the paper's Table 3, and what else shows diversity
    "diversity": (
        ["cosine", "lpips", "vendi", "coverage", "cosine_pixels"],
        "diversity within a prompt",
    ),
    "modes": (
        ["modes_coarse", "entropy_coarse", "tv_coarse", "modes_fine", "entropy_fine"],
        "known modes covered",
    ),
    "fidelity": (
        ["fid", "kid", "fid_teacher", "kid_teacher", "density", "accuracy", "clip"],
        "distance to held-out pictures and to the teacher's, alignment",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Emoji(PromptedData):
    """Pictures from text."""

    copies: int = key("jittered pictures of each sprite to train on", least=1, most=10_000)


def render(data: Emoji) -> dict[str, Tensor]:
    """Pictures of both splits."""
    from pdmd.scenarios.emoji.pictures import make_pictures

    return make_pictures(data)


def prompts(data: Any = None) -> list[Prompt]:
    """Every wording."""
    from pdmd.scenarios.emoji.pictures import prompts

    return prompts()


def labels() -> dict[str, int]:
    """What is true of a picture, and how many values it takes."""
    from pdmd.scenarios.emoji.pictures import OBJECTS
    from pdmd.scenarios.sprites import STYLES

    return {"object": len(OBJECTS), "style": len(STYLES)}


def stratum(prompt: Prompt) -> str | None:
    """What a prompt is tabled by."""
    from pdmd.scenarios.emoji.metrics import stratum

    return stratum(prompt)


def metrics(prompts: Any, judge: Any, held: Any, labels: Any, evaluate: Evaluate) -> Any:
    """Scores of pictures."""
    from pdmd.scenarios.emoji.metrics import EmojiMetrics

    return EmojiMetrics(prompts, judge, held, labels, evaluate.neighbours or 1)


def no_networks(wanted: Networks, device: Any) -> dict[str, Any]:
    """None beside those of all kinds."""
    return {}


def validated(pictures: Mapping[str, Tensor], x: Tensor, root: Path) -> pd.DataFrame:
    """What each metric does on held-out pictures with known damage."""
    from pdmd.metrics.expectations import picture_plan
    from pdmd.metrics.frozen import lite0, lpips
    from pdmd.metrics.validation import validate

    subject, place = pictures["heldout_object"] // 4, pictures["heldout_object"] % 4
    mode = place * 4 + pictures["heldout_style"]
    plan = picture_plan(lite0(), lpips().pairwise, clip_features(root))
    return validate(x, subject, mode, plan)


def clip_features(root: Path) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The small CLIP's features of pictures, and those of the categories' texts."""
    import torch
    from clip import tokenize

    from pdmd.data.prompts import with_article
    from pdmd.metrics.alignment import load_clip
    from pdmd.networks.small_clip import CONTEXT, UNSEEN, prepare
    from pdmd.scenarios.emoji.pictures import CATEGORIES

    model = load_clip(str(root / "clip" / "small_clip.pt"))
    size = model.visual.input_resolution
    texts = [UNSEEN.format(a=with_article(name)) for name in CATEGORIES]
    with torch.no_grad():
        return lambda x: model.encode_image(prepare(x, size)), model.encode_text(
            tokenize(texts, CONTEXT)
        )


KIND = Kind(
    name="emoji",
    model="qwen",
    data=Emoji,
    evaluate=frozenset({"samples", "frontier_samples", "neighbours"}),
    may_evaluate=frozenset({"beside", "networks"}),
    tables=[
        *("diversity", "modes", "fidelity", "recovered", "differences", "equal_fidelity", "exits"),
        *("strata", "experts", "runs"),
    ],
    headline="diversity",
    figures={
        "samples": ("decoded", "prompts"),
        "frontier": ("frontier", "metrics"),
        "diversity": ("metrics",),
        "experts": ("swapped", "codec", "prompts"),
        "training": ("training",),
    },
    metrics=lambda: METRICS,
    prompts=20,
    fidelity="density",
    known=lambda data: {"modes_fine": 4, "modes_coarse": 16},
    recovered=["cosine", "lpips", "vendi", "coverage", "entropy_coarse"],
    equal=["coverage", "entropy_coarse", "tv_coarse", "accuracy"],
    strata=[
        *("accuracy", "clip", "coverage", "density", "cosine", "lpips", "vendi"),
        *("entropy_fine", "entropy_coarse"),
    ],
    real_samples=lambda data: int(data.heldout * COPIES),
    prompted=Prompted(
        frames=1,
        judged=("object", "style"),
        render=render,
        prompts=prompts,
        labels=labels,
        metrics=metrics,
        networks=no_networks,
        validated=validated,
        stratum=stratum,
    ),
)
