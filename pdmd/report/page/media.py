"""Samples as pictures and clips that a page holds: methods beside one another at equal noise."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from pdmd.config.sections import Run
from pdmd.report.looks import look
from pdmd.report.page.content import Clip, address

PROMPTS, METHODS = 6, 5  # of each scenario
SIDE, FRAME_MS = 132, 125  # px of a shown picture's longer side, at least; of a moving one


def clips_of(runs: Sequence[Run]) -> list[Clip]:
    """Some prompts, evenly spread, each with the first sample of some methods, first seed."""
    from pdmd.config.paths import Paths
    from pdmd.data.conditions import prompt_of
    from pdmd.data.prompts import read_prompts
    from pdmd.report.figures.results import decoded_of
    from pdmd.report.figures.selected import selected

    shown = selected(runs, METHODS)
    prompts = read_prompts(Paths(runs[0]).data("prompts.json"))
    drawn = {run.method: decoded_of(run, run.seeds[0]) for run in shown}
    conditions = {name: prompt_of(one["condition"]) for name, one in drawn.items()}
    numbers = next(iter(conditions.values())).unique().tolist()
    count = min(PROMPTS, len(numbers))
    clips = []
    for number in [numbers[i * len(numbers) // count] for i in range(count)]:
        samples = []
        for name, one in drawn.items():
            rows = (conditions[name] == number).nonzero().flatten()
            if len(rows):
                samples.append((look(name).label, moving(one["x"][rows[0]])))
        clips.append(Clip(prompts[number].text, samples))
    return clips


def moving(x: Any) -> str:
    """(3, T, H, W) in [-1, 1], or uint8, as an address: a WebP, which moves if T > 1."""
    from PIL import Image

    from pdmd.stages.decode import as_bytes

    frames = as_bytes(x[None])[0] if x.is_floating_point() else x
    times = max(1, round(SIDE / max(frames.shape[-2:])))
    images = []
    for frame in frames.movedim(1, 0):
        image = Image.fromarray(frame.movedim(0, -1).numpy())
        size = (image.width * times, image.height * times)
        images.append(image.resize(size, Image.Resampling.NEAREST))
    out = io.BytesIO()
    more: dict[str, Any] = {}
    if len(images) > 1:
        more = {"save_all": True, "append_images": images[1:], "duration": FRAME_MS, "loop": 0}
    images[0].save(out, "WEBP", lossless=True, **more)
    return address(out.getvalue(), "image/webp")
