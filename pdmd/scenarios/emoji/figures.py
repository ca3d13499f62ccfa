"""Figures of pictures drawn from text."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pdmd.config.paths import Paths
from pdmd.config.sections import Run
from pdmd.data.prompts import Prompt, read_prompts
from pdmd.files.storage import load_tensors
from pdmd.report.figures import frontier as frontiers
from pdmd.report.figures.dots import dots
from pdmd.report.figures.results import decoded_of, trained
from pdmd.report.figures.selected import selected
from pdmd.report.figures.style import TEXT, new_figure
from pdmd.report.figures.training import training as training
from pdmd.report.looks import look
from pdmd.stages.decode import decoded

EACH = 4  # samples of a prompt beside one another: the seeds of the paper's Fig. 6
VARIANTS = ("both", "first alone", "early second", "early first", "teacher first", "teacher second")
STRIDE = 3  # beyond even steps through the prompts
METHODS, ABREAST, TITLE = 6, 3, 16  # that are shown, in a band; letters in a line of titles
LABELLED = 1.0  # inches that the names of rows take
SHOWN = {"coarse": 3, "fine": 3}  # prompts of each kind


def samples(runs: Sequence[Run]) -> Figure:
    """A row a prompt, a block of columns a method; one place holds one noise in every block."""
    prompts = read_prompts(Paths(runs[0]).data("prompts.json"))
    runs, blocks, rows = selected(runs, METHODS), [], None
    for run in runs:
        drawn = decoded_of(run, run.seeds[0])
        if rows is None:
            rows = chosen(drawn["condition"], prompts, SHOWN)
        blocks.append(tile(drawn["x"][:, :, 0], drawn["condition"], rows, EACH))
    assert rows is not None
    bands, columns = in_bands(len(runs))
    height = len(rows) * (TEXT - LABELLED) / columns / EACH + 0.25
    figure = new_figure(TEXT, bands * height)
    axes = figure.subplots(bands, columns, squeeze=False)
    for ax, run, block in zip(axes.flat, runs, blocks, strict=False):
        draw_block(ax, block, look(run.method).label)
    for ax in axes.flat[len(runs) :]:
        ax.set_visible(False)
    for ax in axes[:, 0]:
        label_rows(ax, [prompts[number].text for number in rows])
    return figure


def in_bands(blocks: int, abreast: int = ABREAST) -> tuple[int, int]:
    """The fewest bands of at most so many blocks, and the columns that fill them evenly."""
    bands = math.ceil(blocks / abreast)
    return bands, math.ceil(blocks / bands)


def chosen(condition: Tensor, prompts: Sequence[Prompt], shown: dict[str, int]) -> list[int]:
    """The prompts to show: some of each kind, spread over those that were sampled.

    Prompts of a kind are in order of two labels or more: even steps alone would often keep one.
    """
    numbers: list[int] = condition.unique().tolist()
    rows = []
    for kind, wanted in shown.items():
        of_kind = [number for number in numbers if prompts[number].kind == kind]
        step = max(1, len(of_kind) // wanted)
        rows += [of_kind[i * step + STRIDE * i % step] for i in range(min(wanted, len(of_kind)))]
    return rows


def tile(pictures: Tensor, condition: Tensor, prompts: Sequence[int], each: int) -> np.ndarray:
    """(rows, columns, 3) in [0, 1]: the first pictures (N, 3, H, W) of each prompt, a row each."""
    size = pictures.shape[-1] + 1
    image = torch.ones(3, len(prompts) * size - 1, each * size - 1)
    for row, number in enumerate(prompts):
        for column, picture in enumerate(pictures[condition == number][:each]):
            top, left = row * size, column * size
            image[:, top : top + size - 1, left : left + size - 1] = (picture + 1) / 2
    array: np.ndarray = image.clamp(0, 1).permute(1, 2, 0).numpy()
    return array


def draw_block(ax: Axes, image: np.ndarray, title: str, size: float | None = None) -> None:
    """An image without axes, its title in letters of `size` points."""
    ax.imshow(image, interpolation="nearest")
    ax.set_title(title, fontsize=size)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)


def label_rows(ax: Axes, texts: Sequence[str], size: float = 6) -> None:
    """Name the rows of a block, left of it, in letters of `size` points."""
    bottom, top = ax.get_ylim()
    height = (bottom - top) / len(texts)
    ax.set_yticks([top + (i + 0.5) * height for i in range(len(texts))], texts)
    ax.tick_params(axis="y", length=0, labelsize=size)


def two_phased(runs: Sequence[Run]) -> Run | None:
    """The first method with two experts to exchange."""
    candidates = (c for c in trained(runs) if len(c.student.ends) == 2)
    return next(candidates, None)


def no_experts() -> Figure:
    """What stands in the place of exchanged experts where no method has two."""
    figure = new_figure(TEXT, 0.5)
    figure.text(0.5, 0.5, "no method has two phases", ha="center", va="center")
    return figure


def experts(runs: Sequence[Run]) -> Figure:
    """A two-phase student, and with one of its experts exchanged; one noise a row."""
    run = two_phased(runs)
    if run is None:
        return no_experts()
    path = Paths(run).seed(run.seeds[0], "experts.safetensors")
    variants = load_tensors(path)
    condition = variants.pop("condition")
    prompts = read_prompts(Paths(run).data("prompts.json"))
    rows = chosen(condition, prompts, SHOWN)
    figure = new_figure(TEXT, len(rows) * (TEXT - LABELLED) / len(VARIANTS) / 2 + 0.25)
    axes = figure.subplots(1, len(VARIANTS), squeeze=False)[0]
    for ax, name in zip(axes, VARIANTS, strict=True):
        draw_block(ax, tile(decoded(Paths(run), variants[name])[:, :, 0], condition, rows, 2), name)
    label_rows(axes[0], [prompts[number].text for number in rows])
    return figure


def frontier(runs: Sequence[Run]) -> Figure:
    """Fidelity against two measures of diversity over training."""
    return frontiers.frontier(runs, ["coverage", "entropy_coarse"])


def diversity(runs: Sequence[Run]) -> Figure:
    """Diversity of every method, distance to the teacher's samples, and accuracy."""
    return dots(runs, ["cosine", "lpips", "coverage", "kid_teacher", "accuracy"])
