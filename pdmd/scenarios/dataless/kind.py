"""Released models, distilled with prompts alone: Qwen-Image and Wan."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdmd.config.complaints import refusal
from pdmd.config.sections import ReleasedData, Run, parse_size
from pdmd.scenarios.kind import Frozen, Kind

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 16  # px that a side is a multiple of: two latents of 8 px
DIVERSITY, MOTION = ["cosine_uncentred", "lpips", "vendi"], ["flow", "dynamic"]
STEADINESS = [
    *("temporal_flicker", "motion_smoothness"),
    *("subject_consistency", "background_consistency"),
]
LEAST_SAMPLES = 4  # two halves of two, for kernel distances
METRICS = {  # the paper's Tables 3, 2, 4 and 5
    "diversity": (DIVERSITY, "diversity within a prompt"),
    "motion": (MOTION, "motion of clips"),
    "steadiness": (STEADINESS, "steadiness over time, by VBench's formulas"),
    "fidelity": (
        ["fid_teacher", "kid_teacher", "fvd_teacher", "kvd_teacher", "clip"],
        "distance to the teacher's samples, alignment",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Prompts(ReleasedData):
    """Prompts alone."""


def check(data: Prompts, where: str) -> None:
    """Sizes that the models' latents have, and a share of each. Raises UserError."""
    for text in data.sizes:
        frames, height, width = parse_size(text)
        if (frames - 1) % 4 or min(height, width) < SIDE or height % SIDE or width % SIDE:
            expected = f"4 k + 1 frames, and sides that are multiples of {SIDE} px"
            raise refusal(where, "data.sizes", text, expected)
    if len(set(data.sizes)) < len(data.sizes):
        raise refusal(where, "data.sizes", list(data.sizes), "different sizes")
    if len(data.shares) != len(data.sizes) or abs(sum(data.shares) - 1) > 1e-6:
        expected = f"one for each of {len(data.sizes)} sizes, 1 in all"
        raise refusal(where, "data.shares", list(data.shares), expected)


def check_run(run: Run, where: str) -> None:
    """The model's family, its folder if it is one, and what must fit them. Raises UserError."""
    from pdmd.models.families import FAMILIES
    from pdmd.models.source import check_folder

    model, data = run.model, run.data
    assert isinstance(data, ReleasedData)
    if model.family not in FAMILIES:
        raise refusal(where, "model.family", model.family, f"one of {', '.join(FAMILIES)}")
    family = FAMILIES[model.family]
    if (model.boundary is None) != (family.experts == 1):
        expected = f"none for {model.family}, of one expert"
        if family.experts == 2:
            expected = f"the noise level between two experts; {family.boundary} as released"
        raise refusal(where, "model.boundary", model.boundary, expected)
    if model.offload != "none" and family.experts == 1:
        raise refusal(
            where, "model.offload", model.offload, f"none for {model.family}, of one expert"
        )
    if data.image != bool(family.image_channels):
        expected = f"{bool(family.image_channels)} for {model.family}"
        raise refusal(where, "data.image", data.image, expected)
    if family.frames == 1 and any(parse_size(text)[0] > 1 for text in data.sizes):
        raise refusal(where, "data.sizes", data.sizes[0], f"1 frame for {model.family}")
    if run.flow != "rectified":
        raise refusal(where, "flow", run.flow, f"'rectified' for {model.family}")
    if run.evaluate.size not in data.sizes:
        expected = f"one of data.sizes: {', '.join(data.sizes)}"
        raise refusal(where, "evaluate.size", run.evaluate.size, expected)
    if run.evaluate.samples < LEAST_SAMPLES:
        expected = f"at least {LEAST_SAMPLES}, which distances are of"
        raise refusal(where, "evaluate.samples", run.evaluate.samples, expected)
    _check_teacher(run, family, where)
    if run.kind == "distill":
        _check_context(run, family, where)
    source = os.path.expanduser(str(model.source))
    if os.path.isdir(source):
        check_folder(Path(source), family)
    elif not made_here(run) and (source.count("/") != 1 or source[0] in "/.~"):
        raise refusal(where, "model.source", model.source, "a folder, or a name of the hub")


def needs(run: Run) -> dict[str, str]:
    """The files of prompts."""
    data = run.data
    assert isinstance(data, ReleasedData)
    return {"data.train": data.train, "data.evaluation": data.evaluation}


def made_here(run: Run) -> bool:
    """Whether the model is a tiny random one, which a rule writes below the results."""
    return Path(str(run.model.source)).parent == Path(run.results) / "models"


def _check_teacher(run: Run, family: Any, where: str) -> None:
    teacher = run.teacher
    if teacher.shift is None and not family.rescaled:
        expected = "a number: only qwen-image's pipeline has a shift of its own for each size"
        raise refusal(where, "teacher.shift", None, expected)
    if teacher.guidance_low is not None and family.experts == 1:
        expected = "none for a model of one expert"
        raise refusal(where, "teacher.guidance_low", teacher.guidance_low, expected)


def _check_context(run: Run, family: Any, where: str) -> None:
    """Heads of attention that processes share must divide among them."""
    from pdmd.models.source import architecture_of

    key, context = "distill.parallel.context", run.distill.parallel.context
    if context == 1:
        return
    heads = int(architecture_of(run.model, run.results)["num_attention_heads"])
    if heads % context:
        expected = f"a divisor of the {heads} heads of {run.model.family}'s attention"
        raise refusal(where, key, context, expected)


def features(*arguments: Any, **options: Any) -> dict[str, Tensor]:
    """What frozen networks see in samples."""
    from pdmd.scenarios.dataless.metrics import features

    return features(*arguments, **options)


def scores(
    features: Mapping[str, Tensor], teacher: Mapping[str, Tensor] | None, *rest: Any
) -> dict[str, float | None]:
    """Scores from such features."""
    from pdmd.scenarios.dataless.metrics import scores

    return scores(features, teacher, *rest)


KIND = Kind(
    name="prompts",
    model="pretrained",
    data=Prompts,
    check=check,
    check_run=check_run,
    needs=needs,
    evaluate=frozenset({"samples", "size"}),
    may_evaluate=frozenset({"beside", "networks", "previews"}),
    tables=["diversity", "motion", "steadiness", "fidelity", "differences", "runs"],
    figures={"samples": ("decoded", "prompts"), "training": ("training",)},
    further={f"samples_of_{name}": ("decoded", "prompts") for name in ("motion", "camera", "text")},
    metrics=lambda: METRICS,
    frozen=Frozen(features=features, scores=scores),
)
