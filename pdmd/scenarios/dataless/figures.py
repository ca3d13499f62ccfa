"""Figures of samples of released models."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from pdmd.config.paths import Paths
from pdmd.config.sections import Run
from pdmd.data.conditions import prompt_of
from pdmd.data.prompts import Prompt, read_prompts
from pdmd.report.figures.results import decoded_of
from pdmd.report.figures.style import TEXT, new_figure
from pdmd.report.figures.training import training as training
from pdmd.report.looks import title
from pdmd.stages.decode import as_bytes

PROMPTS, ABREAST = 5, 4  # prompts that are shown; pictures of each, or frames of its first clip
SIDE = 160  # px of a picture's longer side here
GAP = 2  # px between two pictures
NAMED = 0.9  # inches that prompts take beside the rows
LINE, LETTERS = 0.13, 5.5  # inches and points of a line of a prompt


def samples(runs: Sequence[Run]) -> Figure:
    """A row a prompt, a column a method: pictures of one prompt, or frames of a clip.

    One place holds one noise in every column.
    """
    return _samples_of(runs, None)


def samples_of_motion(runs: Sequence[Run]) -> Figure:
    """The same of prompts whose stratum is motion (the paper's Fig. 4)."""
    return _samples_of(runs, "motion")


def samples_of_camera(runs: Sequence[Run]) -> Figure:
    """The same of prompts that move the camera (the paper's Fig. 5)."""
    return _samples_of(runs, "camera")


def samples_of_text(runs: Sequence[Run]) -> Figure:
    """The same of prompts with words to be read (the paper's Fig. 7)."""
    return _samples_of(runs, "text")


def _samples_of(runs: Sequence[Run], stratum: str | None) -> Figure:
    prompts = read_prompts(Paths(runs[0]).data("prompts.json"))
    strips, rows = [], None
    for run in runs:
        drawn = decoded_of(run, run.seeds[0])
        condition = prompt_of(drawn["condition"])
        rows = _spread(_of_stratum(condition, prompts, stratum)) if rows is None else rows
        strips.append([strip(drawn["x"], condition, number) for number in rows])
    assert rows is not None
    height, width = strips[0][0].shape[:2]
    column = (TEXT - NAMED) / len(runs)
    each = max(column * height / width, 4 * LINE) + 0.05
    figure = new_figure(TEXT, len(rows) * each + 0.3)
    axes = figure.subplots(len(rows), len(runs), squeeze=False)
    for run, of_method, of_axes in zip(runs, strips, axes.T, strict=True):
        for ax, image in zip(of_axes, of_method, strict=True):
            _show(ax, image)
        of_axes[0].set_title(title(run.method, 22))
    for ax, number in zip(axes[:, 0], rows, strict=True):
        text = textwrap.shorten(prompts[number].text, 90, placeholder=" ...")
        ax.set_ylabel(
            textwrap.fill(text, 24), rotation=0, ha="right", va="center", fontsize=LETTERS
        )
    return figure


def _of_stratum(condition: Tensor, prompts: Sequence[Prompt], stratum: str | None) -> Tensor:
    """The prompts of a stratum among those that were sampled; all of them where none is of it."""
    of = [n for n in condition.tolist() if prompts[n].kind == stratum]
    return torch.tensor(of) if stratum is not None and of else condition


def _spread(condition: Tensor) -> list[int]:
    """Some of the prompts that were sampled, evenly spread."""
    numbers: list[int] = condition.unique().tolist()
    count = min(PROMPTS, len(numbers))
    return [numbers[i * len(numbers) // count] for i in range(count)]


def strip(x: Tensor, condition: Tensor, number: int) -> np.ndarray:
    """(h, w, 3) uint8: the first pictures of a prompt, or frames of its first clip, abreast.

    Args:
        x: (N, 3, T, H, W) uint8, or in [-1, 1]; condition: (N,) prompts.
    """
    own = x[(condition == number).nonzero().flatten()[:ABREAST]]
    own = as_bytes(own) if own.is_floating_point() else own
    frames = own.shape[2]
    if frames > 1:
        shown = [round(i * (frames - 1) / (ABREAST - 1)) for i in range(ABREAST)]
        pictures = own[0][:, shown].movedim(1, 0)
    else:
        pictures = own[:, :, 0]
    small = _smaller(pictures.float())
    white = torch.full((*small.shape[1:3], GAP), 255.0)
    parts = [part for picture in small for part in (picture, white)][:-1]
    image: np.ndarray = torch.cat(parts, 2).round().byte().permute(1, 2, 0).numpy()
    return image


def _smaller(pictures: Tensor) -> Tensor:
    share = SIDE / max(pictures.shape[-2:])
    if share >= 1:
        return pictures
    size = [max(1, round(share * side)) for side in pictures.shape[-2:]]
    return functional.interpolate(pictures, size, mode="bilinear", antialias=True).clamp(0, 255)


def _show(ax: Axes, image: np.ndarray) -> None:
    ax.imshow(image, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
