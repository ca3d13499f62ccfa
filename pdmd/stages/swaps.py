"""What each of two experts does: samples with one of them exchanged (Figs. 8, 12)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pdmd.config.paths import Paths
from pdmd.data.sources import even_prompts
from pdmd.flow import predict_x0
from pdmd.metrics import checks
from pdmd.models.base import VelocityField
from pdmd.models.build import load_snapshots
from pdmd.objectives import full_like_time
from pdmd.rollout import sample
from pdmd.stages.decode import decoded
from pdmd.stages.stage import Stage
from pdmd.streams import Stream

SAMPLES = 120  # of each variant
COARSE = 4  # pixels of a picture that one of its coarse version's covers


@torch.no_grad()
def swapped_samples(stage: Stage, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """Samples of one seed's two experts, and with one of them exchanged, from equal noise.

    Returns:
        variant -> latents (N, C, T, H, W), and their conditions. `first alone` is the clean
        estimate that the first expert ends with; `early` experts are of the first snapshot.
    """
    first, last = stage.phases
    final = [stage.experts([seed], (phase,))[0] for phase in stage.phases]
    early = [_early(stage, seed, phase.number) for phase in stage.phases]
    teacher = stage.teacher(1)
    index = even_prompts(stage.conditions.evaluation, SAMPLES, 1)
    assert index is not None
    condition = stage.conditions.values(index)
    noise = Stream([seed], 0, "swaps").normal(SAMPLES, stage.space.shape)

    def draw(one: VelocityField, other: VelocityField) -> Tensor:
        steps = [one] * (first.last - first.first) + [other] * (last.last - last.first)
        return sample(stage.flow, steps, last.times, noise, condition)

    before = first.times[first.last - 1]
    x = sample(
        stage.flow, [final[0]] * (first.last - 1), first.times[: first.last], noise, condition
    )
    t = full_like_time(before, x)
    variants = {
        "both": draw(*final),
        "first alone": predict_x0(stage.flow, x, final[0](x, t, condition), t),
        "early second": draw(final[0], early[1]),
        "early first": draw(early[0], final[1]),
        "teacher first": draw(teacher, final[1]),
        "teacher second": draw(final[0], teacher),
    }
    return variants, index


def _early(stage: Stage, seed: int, number: int) -> VelocityField:
    """An expert as its phase's first snapshot has it."""
    path = stage.paths.phase(seed, number, "snapshots.safetensors")
    stored = load_snapshots(path)
    return stage.trained([stored[min(stored)]], str(path), f"early{number}")


def changes(paths: Paths, variants: dict[str, Tensor]) -> list[dict[str, Any]]:
    """How far each variant's pictures are from those of both experts, in layout and in detail.

    Returns:
        a row a variant: layout, detail: root mean square of the change's part that averages over
        4 x 4 pixels keep, and of the rest.
    """
    reference, rows = decoded(paths, variants["both"]), []
    for name, latents in variants.items():
        checks.samples(
            "layout", latents, what=name
        )  # a decoder's clamp would hide what is infinite
        change = (decoded(paths, latents) - reference).flatten(0, 2)[:, None]
        coarse = functional.avg_pool2d(change, COARSE)
        fine = change - functional.interpolate(coarse, scale_factor=COARSE)
        sizes = [float(part.square().mean().sqrt()) for part in (coarse, fine)]
        rows.append({"variant": name, "layout": sizes[0], "detail": sizes[1]})
    return rows
