import re

import pytest
import torch
from torch.nn import functional

from pdmd.config.typed import build
from pdmd.data.prompts import NULL, heldout
from pdmd.report.figures.style import new_figure
from pdmd.scenarios.moving.clips import (
    ABSENT,
    CAMERAS,
    CANVAS,
    DIRECTIONS,
    FRAMES,
    GROUND,
    JITTER,
    LABELS,
    OBJECTS,
    PAN,
    SCENES,
    ZOOM,
    camera_clips,
    make_clips,
    motion,
    object_clips,
    prompts,
    speeds_of,
    windows,
)
from pdmd.scenarios.moving.figures import draw_strips, path_of
from pdmd.scenarios.moving.kind import Moving, stratum
from pdmd.streams import Stream

SPEC = {"px": 24, "objects": 96, "cameras": 64, "heldout": 32, "seed": 0}
SPLITS = ("train", "heldout")
MOVES = list(CAMERAS.values())


@pytest.fixture(scope="module")
def made():
    return make_clips(build(Moving, SPEC))


def labels_of(made, split):
    return {name: made[f"{split}_{name}"] for name in LABELS}


def measured_motion(clips):
    """(N, 2) px a frame of the foreground's centroid while it is wholly in the picture."""
    ground = torch.tensor(GROUND).mul(255).view(1, 3, 1, 1, 1)
    light = (clips.double() - ground).abs().clamp_min(1).sub(1).sum(1)[:, 2:6]
    at = torch.arange(clips.shape[-1]) + 0.5
    mass = light.sum((2, 3))
    path = (
        torch.stack([(light.sum(2) * at).sum(2), (light.sum(3) * at).sum(2)], 2) / mass[..., None]
    )
    return (path[:, -1] - path[:, 0]) / 3


def test_the_clips_have_the_shape_and_number_asked_for(made):
    assert made["train"].shape == (160, 3, FRAMES, 24, 24)
    assert made["heldout"].shape == (64, 3, FRAMES, 24, 24)
    assert made["train"].dtype == torch.uint8


@pytest.mark.parametrize("split", SPLITS)
def test_labels_of_objects_and_of_cameras_exclude_each_other(made, split):
    labels = labels_of(made, split)
    camera = labels["camera"] >= 0
    for name, values in labels.items():
        applies = camera if name in ("camera", "scene") else ~camera
        assert ((values != ABSENT) == applies).all()
    assert int(camera.sum()) == {"train": 64, "heldout": 32}[split]


@pytest.mark.parametrize("px", [16, 24, 32])
def test_an_object_moves_as_its_labels_say(px):
    clips, labels = object_clips(64, px, Stream([0], 0, "test"))
    torch.testing.assert_close(
        measured_motion(clips), motion(labels, px).double(), rtol=0, atol=0.05
    )
    other = motion(labels | {"direction": (labels["direction"] + 1) % 4}, px)
    assert (measured_motion(clips) - other).norm(dim=1).min() > 0.5 * px / 16  # control


def test_speeds_go_with_the_size_of_the_picture():
    assert speeds_of(16) == [0.5, 1.5]
    assert speeds_of(24) == [0.75, 2.25]
    labels = {"direction": torch.tensor([0, 3]), "speed": torch.tensor([1, 0])}
    assert motion(labels, 32).tolist() == [[3, 0], [0, -1]]
    assert next(iter(DIRECTIONS)) == "right"
    assert list(DIRECTIONS)[3] == "up"


def test_all_objects_directions_and_speeds_occur_about_equally_often():
    _, labels = object_clips(800, 16, Stream([0], 0, "test"))
    for name, classes in (("object", 8), ("direction", 4), ("speed", 2)):
        shares = labels[name].bincount(minlength=classes) / 800
        assert (shares - 1 / classes).abs().max() < 0.05


def shifted(frames, right, down):
    """Pairs of neighbouring frames cut so that they agree if the picture moved by whole pixels."""
    before, after = frames[:, :-1].int(), frames[:, 1:].int()
    for axis, step in ((-1, right), (-2, down)):
        size = before.shape[axis] - abs(step)
        before = before.narrow(axis, max(-step, 0), size)
        after = after.narrow(axis, max(step, 0), size)
    return before, after


def pans(px):
    """Clips under each panning camera, with the camera's step in whole pixels."""
    clips, labels = camera_clips(64, px, Stream([0], 0, "test"))
    for clip, camera in zip(clips, labels["camera"].tolist(), strict=True):
        if not MOVES[camera][2]:
            yield clip, [round(PAN * px * part) for part in MOVES[camera][:2]]


@pytest.mark.parametrize("px", [16, 32])
def test_what_a_camera_pans_over_moves_the_other_way(px):
    found = list(pans(px))
    assert len(found) > 20
    apart = []
    for clip, (right, down) in found:
        before, after = shifted(clip, -right, -down)
        assert (before - after).abs().max() <= 1
        before, after = shifted(clip, right, down)
        apart.append((before - after).abs().double().mean())
    assert torch.stack(apart).min() > 3  # control: the camera's own way


def zoomed(frame, factor):
    """(3, H, W) enlarged about its middle."""
    affine = torch.tensor([[[1 / factor, 0, 0], [0, 1 / factor, 0]]])
    grid = functional.affine_grid(affine, [1, *frame.shape], align_corners=False)
    return functional.grid_sample(frame[None], grid, align_corners=False)[0]


def test_a_zoom_makes_things_larger_or_smaller_about_the_middle():
    clips, labels = camera_clips(64, 32, Stream([0], 0, "test"))
    seen = 0
    for clip, camera in zip(clips.float(), labels["camera"].tolist(), strict=True):
        if sign := MOVES[camera][2]:
            right, wrong = (
                (zoomed(clip[:, 2], factor) - clip[:, 5])[:, 8:24, 8:24].square().mean()
                for factor in (ZOOM ** (3 * sign), ZOOM ** (-3 * sign))
            )
            assert right < 0.5 * wrong
            seen += 1
    assert seen > 10


def test_a_camera_never_sees_beyond_its_canvas():
    starts = (
        JITTER * CANVAS / 2 * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    )
    for move in MOVES:
        left, top, extent = windows(torch.tensor([move]).expand(4, 3), starts)
        for low in (left, top):
            assert low.min() >= 0
            assert (low + extent).max() <= CANVAS
    left, _, extent = windows(torch.tensor([MOVES[0]]), torch.tensor([[CANVAS / 2, 0.0]]))
    assert (left + extent).max() > CANVAS  # control: a start from the edge


@pytest.mark.parametrize("split", SPLITS)
def test_captions_are_right_and_as_often_free_as_stated(made, split):
    known, labels = prompts(), labels_of(made, split)
    for row, captions in enumerate(made[f"{split}_prompts"].tolist()):
        true = {name: int(labels[name][row]) for name in LABELS}
        said = [known[i] for i in captions]
        for prompt in said:
            assert all(v is None or v == true[name] for name, v in prompt.truth.items())
            assert prompt.split == "train"
        kinds = [prompt.kind for prompt in said]
        if true["camera"] == ABSENT:
            assert kinds.count("free") == kinds.count("stated") == len(kinds) / 2
        else:
            assert set(kinds) == {"camera"}
        key = "object" if true["camera"] == ABSENT else "camera"
        assert not any(p.truth[key] == true[key] + 1 for p in said)  # control


def test_every_truth_has_wordings_seen_and_unseen_and_none_in_both():
    seen, unseen = (
        {repr(p.truth) for p in prompts() if p.split == split and p.kind != "null"}
        for split in SPLITS
    )
    assert seen == unseen
    assert len(seen) == len(heldout(prompts()))
    assert len(seen) == 8 * (1 + 4 * 2) + len(CAMERAS) * len(SCENES)
    texts = [prompt.text for prompt in prompts()]
    assert len(set(texts)) == len(texts)
    assert prompts()[-1] == NULL


def test_a_free_prompt_says_nothing_of_motion():
    motions = re.compile("|".join([*DIRECTIONS, "slowly", "fast"]))
    for prompt in prompts():
        said = prompt.truth.get("direction") is not None
        if prompt.kind in ("free", "stated"):
            assert bool(motions.search(prompt.text)) == said
            assert said == (prompt.kind == "stated")


def test_a_stated_prompt_names_its_own_object_direction_and_speed():
    for prompt in prompts():
        if prompt.kind == "stated":
            direction = list(DIRECTIONS)[prompt.truth["direction"]]
            assert direction in prompt.text
            assert ("fast" in prompt.text) == (prompt.truth["speed"] == 1)
            others = set(DIRECTIONS) - {direction}
            assert not any(re.search(rf"\b{other}\b", prompt.text) for other in others)


def test_articles_fit_the_word_that_follows():
    text = " ; ".join(prompt.text for prompt in prompts())
    wrong = re.compile(r"\ba [aeiou]|\ban [^aeiou]")
    assert not wrong.search(text)
    assert wrong.search(text + " ; a octopus")  # control


def test_clips_depend_on_the_seed_alone(made):
    again = make_clips(build(Moving, SPEC))
    assert all(torch.equal(again[name], made[name]) for name in made)
    assert not torch.equal(make_clips(build(Moving, SPEC | {"seed": 1}))["train"], made["train"])


def test_held_out_clips_are_other_draws(made):
    known = {clip.numpy().tobytes() for clip in made["train"]}
    assert not any(clip.numpy().tobytes() in known for clip in made["heldout"])
    assert made["train"][5].numpy().tobytes() in known  # control


def test_there_are_as_many_objects_as_the_mode_count_says():
    assert len(set(OBJECTS)) == 8


def test_strata_are_of_what_moves_and_how():
    strata = {}
    for prompt in prompts():
        strata.setdefault(stratum(prompt), []).append(prompt)
    strata.pop(None)
    assert len(strata) == 5
    for name, word in {
        "object-slow": "slowly",
        "object-fast": "fast",
        "camera-pan": "panning",
        "camera-zoom": "zooming",
    }.items():
        assert all(word in prompt.text for prompt in strata.pop(name)), name
    assert {prompt.kind for prompt in strata.pop("object-free")} == {"free"}
    assert not strata


def test_a_path_follows_the_object_and_a_pan_and_stays_where_nothing_moves():
    clips, labels = object_clips(6, 24, Stream([0], 0, "paths"))
    moves = list(DIRECTIONS.values())
    for i, clip in enumerate(clips.float() / 127.5 - 1):
        across, down = moves[labels["direction"][i]]
        wanted = torch.tensor([across, down]) * speeds_of(24)[labels["speed"][i]] * (FRAMES - 1)
        found = torch.from_numpy(path_of(clip, camera=False))
        assert found.shape == (FRAMES, 2)
        assert found[0].eq(0).all()
        assert (found[-1] - wanted).norm() < 0.15 * wanted.norm() + 0.5
        assert (found[-1] + wanted).norm() > wanted.norm()  # the control: the other way
        still = clip[:, :1].expand(-1, FRAMES, -1, -1)
        assert abs(path_of(still, camera=False)).max() < 0.01
    seen, labels = camera_clips(8, 24, Stream([0], 0, "paths"))
    for clip, camera in zip(seen.float() / 127.5 - 1, labels["camera"], strict=True):
        end = torch.from_numpy(path_of(clip, camera=True))[-1]
        across, down, zoom = list(CAMERAS.values())[camera]
        if zoom == 0:
            assert (end * torch.tensor([across, down], dtype=end.dtype)).sum() > 3 * PAN * 24


def test_strips_show_a_row_a_method_and_its_path():
    clips, _ = object_clips(2, 24, Stream([0], 0, "strips"))
    shown = {"teacher": clips[0].float() / 127.5 - 1, "dmd2": clips[1].float() / 127.5 - 1}
    ax = new_figure(3, 2).subplots()
    draw_strips(ax, shown, next(p for p in prompts() if p.kind == "free"))
    height, width = ax.images[0].get_array().shape[:2]
    assert (height, width) == (2 * 25, FRAMES * 25 + 24)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["teacher", "DMD2 (SGTS)"]
    paths = [line for line in ax.lines if len(line.get_xdata()) == FRAMES]
    assert [int(line.get_ydata()[0]) // 25 for line in paths] == [0, 1]  # each in its own row
