"""Figures of clips drawn from text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pdmd.config.paths import Paths
from pdmd.config.sections import Run
from pdmd.data.conditions import prompt_of
from pdmd.data.prompts import Prompt, read_prompts
from pdmd.files.storage import load_tensors
from pdmd.metrics.motion import camera_motion, object_motion
from pdmd.metrics.prompted import prompt_rows
from pdmd.report.figures import frontier as frontiers
from pdmd.report.figures.dots import dots
from pdmd.report.figures.results import decoded_of
from pdmd.report.figures.selected import selected
from pdmd.report.figures.style import FAINT, TEXT, new_figure
from pdmd.report.figures.training import training as training
from pdmd.report.looks import look, title
from pdmd.scenarios.emoji.figures import (
    TITLE,
    VARIANTS,
    chosen,
    draw_block,
    in_bands,
    label_rows,
    no_experts,
    two_phased,
)
from pdmd.scenarios.moving.clips import speeds_of
from pdmd.stages.decode import decoded

NAMED = 0.95  # inches that the names of methods take beside a block
OBJECTS, CAMERAS = {"free": 2, "stated": 2}, {"camera": 4}  # prompts of each kind
METHODS, ABREAST = 3, 6  # in strips; panels of motion in a row


def objects(runs: Sequence[Run]) -> Figure:
    """Clips of objects that move as they like, or as told."""
    return strips(runs, OBJECTS)


def cameras(runs: Sequence[Run]) -> Figure:
    """Clips of scenes under a moving camera."""
    return strips(runs, CAMERAS)


def strips(runs: Sequence[Run], wanted: dict[str, int]) -> Figure:
    """A block of rows a prompt, in it a row a method and a column a frame, all from one noise.

    Behind the frames stands the path that the motion between them has taken since the first.
    """
    prompts = read_prompts(Paths(runs[0]).data("prompts.json"))
    clips, conditions = {}, {}
    for run in selected(runs, METHODS):
        drawn = decoded_of(run, run.seeds[0])
        conditions[run.method] = prompt_of(drawn["condition"])
        clips[run.method] = drawn["x"]
    first = next(iter(clips))
    numbers = chosen(conditions[first], prompts, wanted)
    columns = 2
    rows = math.ceil(len(numbers) / columns)
    height = (TEXT / columns - NAMED) / (clips[first].shape[2] + 1) * len(clips)
    figure = new_figure(TEXT, rows * (height + 0.27))
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes[len(numbers) :]:
        ax.set_visible(False)
    for ax, number in zip(axes, numbers, strict=False):
        own = {m: clips[m][conditions[m] == number][0] for m in clips}
        draw_strips(ax, own, prompts[number])
    return figure


def draw_strips(ax: Axes, clips: Mapping[str, Tensor], prompt: Prompt) -> None:
    """A row a method: the frames of its clip (3, T, H, W), and the path of its motion."""
    films = [film(clip) for clip in clips.values()]
    height, width = films[0].shape[:2]
    side = clips[next(iter(clips))].shape[-1]
    blank = np.ones((height, side, 3))
    image = np.concatenate([np.hstack([one, blank]) for one in films])
    draw_block(ax, image, f"“{prompt.text}”", 7.5)
    camera = prompt.kind == "camera"
    for row, (method, clip) in enumerate(clips.items()):
        path = path_of(clip, camera)
        path -= (path.min(0) + path.max(0)) / 2  # in the middle of its cell
        across, down = width + side / 2 + path[:, 0], row * height + side / 2 + path[:, 1]
        ax.plot(across, down, ".-", color=look(method).colour, markersize=2.5, linewidth=0.7)
        ax.plot(across[0], down[0], "o", color="white", markeredgecolor="black", markersize=2.5)
    ax.set_xlim(-0.5, width + side - 0.5)
    ax.set_ylim(height * len(films) - 0.5, -0.5)
    label_rows(ax, [look(method).label for method in clips], 6.5)


def path_of(clip: Tensor, camera: bool) -> np.ndarray:
    """(3, T, H, W) -> (T, 2) px right and down of where an object, or the camera, has moved to."""
    moves = camera_motion if camera else object_motion
    pairs = torch.stack([clip[:, i : i + 2] for i in range(clip.shape[1] - 1)])
    steps = moves(pairs)[:, :2]
    path: np.ndarray = torch.cat([torch.zeros(1, 2), steps.cumsum(0)]).numpy()
    return path


def film(clip: Tensor) -> np.ndarray:
    """(3, T, H, W) in [-1, 1] -> its frames side by side, (H + 1, T (W + 1), 3) in [0, 1]."""
    frames = torch.nn.functional.pad((clip.clamp(-1, 1) + 1) / 2, (0, 1, 0, 1), value=1.0)
    array: np.ndarray = frames.permute(2, 1, 3, 0).flatten(1, 2).numpy()
    return array


def motion(runs: Sequence[Run]) -> Figure:
    """Speeds of clips whose motion the prompt leaves free, over the teacher's.

    A band is the range over seeds; vertical lines are speeds of held-out clips, as thick as often.
    """
    paths = Paths(runs[0])
    prompts = read_prompts(paths.data("prompts.json"))
    real = load_tensors(paths.data("pictures.safetensors"))
    px = real["heldout"].shape[-1]
    known = real["heldout_speed"][real["heldout_object"] >= 0]
    bins = np.linspace(0, 1.5 * max(speeds_of(px)), 25)
    shares = {run.method: _speeds(run, prompts, bins) for run in runs}
    teacher = shares.get("teacher")
    panels = [run for run in runs if run.method != "teacher"] or list(runs)
    bands, columns = in_bands(len(panels), ABREAST)
    figure = new_figure(TEXT, 0.35 + 1.25 * bands)
    axes = figure.subplots(bands, columns, sharex=True, sharey=True, squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, run in zip(axes.flat, panels, strict=False):
        for number, speed in enumerate(speeds_of(px)):
            share = float((known == number).double().mean())
            ax.axvline(speed, color=FAINT, linewidth=0.5 + 2 * share, zorder=0)
        if teacher is not None:
            ax.stairs(teacher.mean(0), bins, color=look("teacher").colour, linewidth=0.7)
        style = {"color": look(run.method).colour, "linewidth": 0}
        own = shares[run.method]
        ax.stairs(own.max(0), bins, baseline=own.min(0), fill=True, alpha=0.3, **style)
        ax.stairs(own.mean(0), bins, color=look(run.method).colour, linewidth=1.1)
        ax.set_title(title(run.method, TITLE))
    for ax in axes[:, 0]:
        ax.set_ylabel("share")
    for ax in axes.flat[max(0, len(panels) - columns) : len(panels)]:  # the lowest of each column
        ax.tick_params(labelbottom=True)
        ax.set_xlabel("speed, px a frame")
    return figure


def _speeds(run: Run, prompts: Sequence[Prompt], bins: np.ndarray) -> np.ndarray:
    """(seeds, bins) shares of free clips by the speed of their object."""
    rows = []
    for seed in run.seeds:
        drawn = decoded_of(run, seed)
        free = prompt_rows(prompt_of(drawn["condition"]), prompts, "free")
        speeds = object_motion(drawn["x"][free]).norm(dim=1).numpy()
        counts, _ = np.histogram(speeds, bins)
        rows.append(counts / max(1, len(speeds)))
    return np.stack(rows)


def experts(runs: Sequence[Run]) -> Figure:
    """A two-phase student's clips, and with one of its experts exchanged; one noise a block."""
    run = two_phased(runs)
    if run is None:
        return no_experts()
    variants = load_tensors(Paths(run).seed(run.seeds[0], "experts.safetensors"))
    condition = prompt_of(variants.pop("condition"))
    prompts = read_prompts(Paths(run).data("prompts.json"))
    numbers = chosen(condition, prompts, {"free": 2, "stated": 1, "camera": 1})
    figure = new_figure(TEXT, 4.9)
    axes = list(figure.subplots(2, 2, squeeze=False).flat)
    for ax, number in zip(axes, numbers, strict=False):
        block = [film(decoded(Paths(run), variants[v])[condition == number][0]) for v in VARIANTS]
        draw_block(ax, np.concatenate(block), f"“{prompts[number].text}”", 7.5)
        label_rows(ax, VARIANTS, 6.5)
    return figure


def frontier(runs: Sequence[Run]) -> Figure:
    """Fidelity against two measures of motion over training."""
    return frontiers.frontier(runs, ["coverage", "entropy_free"])


def diversity(runs: Sequence[Run]) -> Figure:
    """Diversity and motion of every method, and distance to the teacher's samples."""
    return dots(runs, ["cosine", "speed", "entropy_free", "control_camera", "kvd_teacher"])
