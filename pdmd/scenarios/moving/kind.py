"""Clips of emoji that move, and of scenes under a moving camera, from text."""

from __future__ import annotations

from collections.abc import Mapping
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

OBJECTS = 8  # that move
VALIDATED = 3  # objects on whose clips metrics are validated: I3D is slow
METRICS = {  # the paper's Table 2 (optical flow, dynamic degree, FID, FVD), and more
    "motion": (
        [
            *("flow", "dynamic", "speed", "speed_w1_teacher", "speed_w1", "modes_free"),
            *("entropy_free", "control", "control_camera"),
        ],
        "motion and its control",
    ),
    "diversity": (["cosine", "lpips", "vendi", "coverage"], "diversity within a prompt"),
    "steadiness": (  # the paper's Tables 4 and 5
        [
            *("temporal_flicker", "motion_smoothness"),
            *("subject_consistency", "background_consistency"),
        ],
        "steadiness over time, by VBench's formulas",
    ),
    "fidelity": (
        ["fvd_teacher", "kvd_teacher", "fvd", "kvd", "density", "accuracy", "clip"],
        "distance to held-out pictures and to the teacher's, alignment",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Moving(PromptedData):
    """Clips from text."""

    objects: int = key("clips of moving objects to train on", least=64, most=10_000_000)
    cameras: int = key("clips under a moving camera to train on", least=64, most=10_000_000)
    image: bool = key("`true` gives the first frame (image-to-video)", absent=False)

    @property
    def with_image(self) -> bool:
        """Whether a clip has its first frame as a condition beside its prompt."""
        return self.image


def render(data: Moving) -> dict[str, Tensor]:
    """Clips of both splits."""
    from pdmd.scenarios.moving.clips import make_clips

    return make_clips(data)


def prompts(data: Any = None) -> list[Prompt]:
    """Every wording."""
    from pdmd.scenarios.moving.clips import prompts

    return prompts()


def labels() -> dict[str, int]:
    """What is true of a clip, and how many values it takes."""
    from pdmd.scenarios.moving import clips

    sizes = map(len, (clips.OBJECTS, clips.DIRECTIONS, clips.SPEEDS, clips.CAMERAS, clips.SCENES))
    return dict(zip(clips.LABELS, sizes, strict=True))


def stratum(prompt: Prompt) -> str | None:
    """What a prompt is tabled by."""
    from pdmd.scenarios.moving.metrics import stratum

    return stratum(prompt)


def metrics(prompts: Any, judge: Any, held: Any, labels: Any, evaluate: Evaluate) -> Any:
    """Scores of clips."""
    from pdmd.scenarios.moving.metrics import MovingMetrics

    neighbours, clips = evaluate.neighbours or 1, evaluate.video_samples or 0
    return MovingMetrics(prompts, judge, held, labels, neighbours, fvd_clips=clips)


def networks(wanted: Networks, device: Any) -> dict[str, Any]:
    """Optical flow and I3D."""
    import torch

    from pdmd.metrics.frozen import flow, i3d

    return {
        "flow": flow(wanted.flow, device),
        "i3d": lambda clips: torch.cat(i3d().to(device)(clips), 1),
    }


def validated(pictures: Mapping[str, Tensor], x: Tensor, root: Path) -> pd.DataFrame:
    """What each metric does on held-out clips with known damage."""
    from pdmd.metrics.alignment import clip_features
    from pdmd.metrics.consistency import steadiness
    from pdmd.metrics.expectations import clip_plan
    from pdmd.metrics.frozen import i3d, lite0
    from pdmd.metrics.motion import opencv_flow
    from pdmd.metrics.validation import validate
    from pdmd.scenarios.moving.clips import DIRECTIONS, speeds_of

    subject = pictures["heldout_object"]
    rows = ((subject >= 0) & (subject < VALIDATED)).nonzero().flatten()
    known = list(DIRECTIONS.values()), speeds_of(x.shape[-1])
    mode = pictures["heldout_direction"] * len(known[1]) + pictures["heldout_speed"]
    weights = str(root / "clip" / "small_clip.pt")

    def steady(clips: Tensor) -> Tensor:
        return steadiness(clips, opencv_flow, lite0(), lambda x: clip_features(weights, x))

    plan = clip_plan(i3d(), *known, steady)
    return validate(x[rows], subject[rows], mode[rows], plan)


KIND = Kind(
    name="moving",
    model="wan",
    data=Moving,
    evaluate=frozenset({"samples", "frontier_samples", "neighbours", "video_samples"}),
    may_evaluate=frozenset({"beside", "networks"}),
    tables=[
        *(
            "motion",
            "diversity",
            "steadiness",
            "fidelity",
            "recovered",
            "differences",
            "equal_fidelity",
            "exits",
        ),
        *("strata", "experts", "runs"),
    ],
    headline="motion",
    figures={
        "objects": ("decoded", "prompts"),
        "cameras": ("decoded", "prompts"),
        "motion": ("every decoded", "prompts", "pictures"),
        "frontier": ("frontier", "metrics"),
        "diversity": ("metrics",),
        "experts": ("swapped", "codec", "prompts"),
        "training": ("training",),
    },
    metrics=lambda: METRICS,
    prompts=120,
    fidelity="density",
    known=lambda data: {"modes_free": 8},
    recovered=["flow", "speed", "speed_w1", "entropy_free", "cosine", "lpips", "coverage"],
    equal=[
        *("coverage", "entropy_free", "speed", "speed_w1", "control", "control_camera"),
        "accuracy",
    ],
    strata=[
        *("accuracy", "clip", "control", "control_camera", "entropy_free", "flow", "dynamic"),
        *("coverage", "cosine", "lpips", "vendi"),
    ],
    real_samples=lambda data: int(data.heldout // OBJECTS),
    prompted=Prompted(
        frames=8,
        judged=("object", "scene"),
        render=render,
        prompts=prompts,
        labels=labels,
        metrics=metrics,
        networks=networks,
        validated=validated,
        free_coverage=True,
        stratum=stratum,
    ),
)
