"""Figures of clips drawn from text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pdmd.config.paths import Paths
from pdmd.config.sections import Run
from pdmd.data.conditions import prompt_of
from pdmd.data.prompts import read_prompts
from pdmd.files.storage import load_tensors
from pdmd.metrics.motion import object_motion
from pdmd.metrics.prompted import prompt_rows
from pdmd.report.figures import frontier as frontiers
from pdmd.report.figures.dots import dots
from pdmd.report.figures.results import decoded_of
from pdmd.report.figures.style import FAINT, TEXT, new_figure
from pdmd.report.figures.training import training as training
from pdmd.report.looks import look
from pdmd.scenarios.emoji.figures import (
    TITLE,
    VARIANTS,
    chosen,
    draw_block,
    label_rows,
    no_experts,
    two_phased,
)
from pdmd.scenarios.moving.clips import speeds_of
from pdmd.stages.decode import decoded

NAMED = 1.22  # inches that the names of methods take beside a block
QUOTED = 7.5  # points of a prompt above its block
SHOWN = {"free": 2, "stated": 2, "camera": 2}  # prompts of each kind


def strips(runs: Sequence[Run]) -> Figure:
    """A block of rows a prompt, in it a row a method and a column a frame, all from one noise."""
    prompts = read_prompts(Paths(runs[0]).data("prompts.json"))
    clips, conditions = {}, {}
    for run in runs:
        drawn = decoded_of(run, run.seeds[0])
        conditions[run.method] = prompt_of(drawn["condition"])
        clips[run.method] = drawn["x"]
    first = runs[0].method
    numbers = chosen(conditions[first], prompts, SHOWN)
    columns = 2
    rows = (len(numbers) + columns - 1) // columns
    height = (TEXT / columns - NAMED) / clips[first].shape[2] * len(runs)
    figure = new_figure(TEXT, rows * (height + 0.3))
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax, number in zip(axes, numbers, strict=False):
        block = [film(clips[m][conditions[m] == number][0]) for m in clips]
        draw_block(ax, np.concatenate(block), f"“{prompts[number].text}”", QUOTED)
        label_rows(ax, [look(m).label for m in clips], 5.5)
    return figure


def film(clip: Tensor) -> np.ndarray:
    """(3, T, H, W) in [-1, 1] -> its frames side by side, (H + 1, T (W + 1), 3) in [0, 1]."""
    frames = torch.nn.functional.pad((clip.clamp(-1, 1) + 1) / 2, (0, 1, 0, 1), value=1.0)
    array: np.ndarray = frames.permute(2, 1, 3, 0).flatten(1, 2).numpy()
    return array


def motion(runs: Sequence[Run]) -> Figure:
    """Speeds of clips whose motion the prompt leaves free, beside held-out clips'."""
    paths = Paths(runs[0])
    prompts = read_prompts(paths.data("prompts.json"))
    real = load_tensors(paths.data("pictures.safetensors"))
    px = real["heldout"].shape[-1]
    known = real["heldout_speed"][real["heldout_object"] >= 0]
    figure = new_figure(TEXT, 2.6)
    columns = (len(runs) + 1) // 2
    axes = list(figure.subplots(2, columns, sharex=True, sharey=True, squeeze=False).flat)
    for ax in axes[len(runs) :]:
        ax.set_axis_off()
    bins = np.linspace(0, 1.6 * max(speeds_of(px)), 28)
    for ax, run in zip(axes, runs, strict=False):
        parts = []
        for seed in run.seeds:
            drawn = decoded_of(run, seed)
            free = prompt_rows(prompt_of(drawn["condition"]), prompts, "free")
            parts.append(object_motion(drawn["x"][free]).norm(dim=1).numpy())
        colour = look(run.method).colour
        ax.hist(np.concatenate(parts), bins, density=True, color=colour, alpha=0.8)
        for number, speed in enumerate(speeds_of(px)):
            share = float((known == number).double().mean())
            ax.axvline(speed, color=FAINT, linewidth=0.5 + 2 * share, zorder=0)
        ax.set_title(textwrap.fill(look(run.method).label, TITLE))
        ax.set_yticks([])
    for ax in axes[max(0, len(runs) - columns) : len(runs)]:  # the lowest of each column
        ax.tick_params(labelbottom=True)
        ax.set_xlabel("speed, px a frame")
    return figure


def experts(runs: Sequence[Run]) -> Figure:
    """A two-phase student's clips, and with one of its experts exchanged; one noise a block."""
    run = two_phased(runs)
    if run is None:
        return no_experts()
    variants = load_tensors(Paths(run).seed(run.seeds[0], "experts.safetensors"))
    condition = prompt_of(variants.pop("condition"))
    prompts = read_prompts(Paths(run).data("prompts.json"))
    numbers = chosen(condition, prompts, {"free": 2, "stated": 1, "camera": 1})
    figure = new_figure(TEXT, 4.2)
    axes = list(figure.subplots(2, 2, squeeze=False).flat)
    for ax, number in zip(axes, numbers, strict=False):
        block = [film(decoded(Paths(run), variants[v])[condition == number][0]) for v in VARIANTS]
        draw_block(ax, np.concatenate(block), f"“{prompts[number].text}”")
        label_rows(ax, VARIANTS, 5.5)
    return figure


def frontier(runs: Sequence[Run]) -> Figure:
    """Fidelity against two measures of motion over training."""
    return frontiers.frontier(runs, ["coverage", "entropy_free"])


def diversity(runs: Sequence[Run]) -> Figure:
    """Diversity, motion and fidelity of every method."""
    return dots(runs, ["cosine", "speed_w1", "control", "control_camera", "kvd"])
