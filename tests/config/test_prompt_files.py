"""The prompts of evaluation are frozen, and tagged by their rule."""

import json
import re
from collections import Counter
from hashlib import sha256
from itertools import combinations

import pytest
from configs import ROOT

from pdmd.data.scenes import draw_scene
from pdmd.data.texts import read_texts

FOLDER = ROOT / "config" / "prompts"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text())
STRATA = {"objects", "motion", "camera", "style", "text"}


def rows(name):
    return [json.loads(line) for line in (FOLDER / name).read_text("utf-8").splitlines()]


def unlike(name, content):
    return sha256(content).hexdigest() != MANIFEST[name]["sha256"]


@pytest.mark.parametrize("name", MANIFEST)
def test_a_file_is_as_it_was_frozen(name):
    content = (FOLDER / name).read_bytes()
    assert not unlike(name, content)
    assert unlike(name, content.replace(b"a", b"o", 1))  # control


@pytest.mark.parametrize("name", MANIFEST)
def test_every_row_is_read_and_differs_from_the_others(name):
    good, bad = read_texts(FOLDER / name, with_images=name == "image.jsonl")
    assert (len(good), bad) == (MANIFEST[name]["rows"], [])
    assert len({one.id for one in good}) == len({one.text for one in good}) == len(good)
    assert Counter(one.stratum for one in good) == MANIFEST[name]["strata"]
    assert {one.stratum for one in good} == STRATA


def test_the_manifest_names_every_file():
    assert set(MANIFEST) == {path.name for path in FOLDER.glob("*.jsonl")}


def test_strata_are_of_one_size():
    for name in ("motion.jsonl", "image.jsonl"):
        assert MANIFEST[name]["strata"] == dict.fromkeys(STRATA, 44)


def likeness(one, other):
    """Share of the words of both that both have."""
    a, b = (set(re.findall(r"\w+", text.lower())) for text in (one, other))
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("name", MANIFEST)
def test_no_prompt_is_nearly_another(name):
    prompts = [row["prompt"] for row in rows(name)]
    assert max(likeness(*pair) for pair in combinations(prompts, 2)) < 0.6
    assert likeness("A red fox runs over a hill.", "A red fox runs up a hill.") > 0.6  # control


def test_there_are_as_many_as_in_the_paper():
    assert [len(rows(f"{name}.jsonl")) for name in ("diversity", "motion", "image")] == [
        21,
        220,
        220,
    ]
    assert max(len(row["prompt"].split()) for row in rows("diversity.jsonl")) <= 8


def misplaced(row):
    """Whether a tag breaks what can be told of its rule without judgement."""
    text = row["prompt"].lower()
    quoted, camera = '"' in text, "camera" in text
    if quoted or row["stratum"] == "text":
        return quoted != (row["stratum"] == "text")
    return camera != (row["stratum"] == "camera")


@pytest.mark.parametrize("name", MANIFEST)
def test_text_and_camera_are_tagged_by_their_rule(name):
    assert not [row for row in rows(name) if misplaced(row)]
    assert misplaced({"prompt": 'a sign with "NO"', "stratum": "style"})  # control
    assert misplaced({"prompt": "the camera pans", "stratum": "motion"})


def test_each_first_frame_has_a_prompt_of_every_stratum():
    by_frame = {}
    for row in rows("image.jsonl"):
        by_frame.setdefault(json.dumps(row["scene"]), []).append(row["stratum"])
    assert len(by_frame) == 44
    assert all(sorted(strata) == sorted(STRATA) for strata in by_frame.values())


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_every_scene_is_drawn(size):
    scenes = {json.dumps(row["scene"]): row["scene"] for row in rows("image.jsonl")}
    drawn = {draw_scene(scene, *size).tobytes() for scene in scenes.values()}
    assert len(drawn) == len(scenes)
