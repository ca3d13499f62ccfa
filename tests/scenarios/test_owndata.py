"""A user's own pictures or clips: read, fitted, distilled and scored."""

import json

import numpy as np
import pytest
import torch
from configs import accepted, own, refused
from PIL import Image, ImageDraw

from pdmd.config.run import read_run
from pdmd.data.texts import frames_of, read_texts
from pdmd.errors import UserError
from pdmd.files.assets import ASSETS, write_index
from pdmd.files.storage import load_tensors, read_json, save_pickled
from pdmd.networks.small_clip import train_small_clip
from pdmd.report.tables import write_tables
from pdmd.scenarios.owndata.pictures import read_pictures, read_prompts, square
from pdmd.stages.decode import decode_samples
from pdmd.stages.distill import distill_phase
from pdmd.stages.features import extract_features
from pdmd.stages.fit import fit_base
from pdmd.stages.precompute import embed, encode, render
from pdmd.stages.sample import sample_method
from pdmd.stages.score import score_method

COLOURS = ("red", "green", "blue", "yellow")


def pictures(folder, count=14):
    """Pictures of discs, each with its prompt beside it."""
    folder.mkdir()
    for number in range(count):
        image = Image.new("RGB", (40, 30), "white")
        colour, x = COLOURS[number % 4], 8 + number
        ImageDraw.Draw(image).ellipse((x - 6, 9, x + 6, 21), fill=colour)
        image.save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(f"a {colour} disc\n")
    return folder


def clip(path, frames, size=(32, 24)):
    """A clip whose frames get brighter."""
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 8, size)
    for number in range(frames):
        writer.write(np.full((size[1], size[0], 3), 20 + 10 * number, np.uint8))
    writer.release()


def diff(source, **data):
    return {
        "data": {"source": str(source), "px": 16, "heldout": 8, **data},
        "model": {"width": 16, "heads": 2, "depth": 1},
        "fit": {"updates": 4, "batch": 4},
        "distill": {"updates": 4, "batch": 4, "fake_updates": 1},
        "bank": {"rows": 8},
        "teacher": {"steps": 2},
        "save": {"log_every": 1, "checkpoint_every": 2, "snapshots": 1},
        "evaluate": {"samples": 8, "beside": "teacher"},
    }


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Every job's settings of a tiny experiment on a folder, whose chain has run."""
    root = tmp_path_factory.mktemp("own")
    settings = own("own", **diff(pictures(root / "pictures")))
    made = accepted({**settings, "results": str(root / "results")})
    found = made.parts("own")
    model, _ = train_small_clip(2)
    save_pickled(root / "results/clip/small_clip.pt", model.state_dict())
    write_index(list(ASSETS), root / "results/weights.json")
    render(found["config/data.json"])
    encode(found["config/data.json"])
    embed(found["config/text.json"])
    fit_base(found["config/base.json"])
    distill_phase(found["dmd2/config/distill.json"], 1, [1])
    for method in ("teacher", "dmd2"):
        for name, run in (
            ("sample", sample_method),
            ("decode", decode_samples),
            ("features", extract_features),
            ("score", score_method),
        ):
            run(found[f"{method}/config/{name}.json"], [1])
    return found, root / "results/own"


def test_the_chain_ends_in_scores_beside_held_out_pictures(parts):
    found, results = parts
    teacher, student = (
        read_json(results / method / "seed1/metrics.json") for method in ("teacher", "dmd2")
    )
    assert {"fid", "kid", "clip"} <= teacher.keys()
    assert {"fid", "fid_teacher", "clip"} <= student.keys()
    assert student["fid_teacher"] > 0
    assert "fid_teacher" not in teacher
    write_tables([found[f"{method}/config/table.json"] for method in ("teacher", "dmd2")])
    assert "fid_mean" in (results / "tables/fidelity.csv").read_text()


def test_pictures_and_prompts_are_those_of_the_folder(parts):
    found, results = parts
    data = read_run(found["config/data.json"]).data
    tensors, prompts = read_pictures(data), read_prompts(data)
    assert (len(tensors["train"]), len(tensors["heldout"]), len(prompts)) == (6, 8, 15)
    stored = load_tensors(results / "data/pictures.safetensors")
    assert torch.equal(stored["heldout"], tensors["heldout"])
    for split in ("train", "heldout"):
        for picture, (number,) in zip(tensors[split], tensors[f"{split}_prompts"], strict=True):
            colour = prompts[int(number)].text.split()[1]
            disc = picture[:, 0].float().flatten(1)[:, picture[:, 0].sum(0).flatten().argmin()]
            wanted = torch.tensor(Image.new("RGB", (1, 1), colour).getpixel((0, 0)))
            assert (disc - wanted).abs().max() < 140
    assert prompts[-1].kind == "null"


def test_a_clip_gives_frames_evenly_from_the_first(tmp_path):
    clip(tmp_path / "a.mp4", 9)
    (tmp_path / "a.txt").write_text("it gets brighter\n")
    (text,), bad = read_texts(tmp_path, with_images=True)
    assert bad == []
    means = square(text, 16, 5).float().mean((0, 2, 3))
    torch.testing.assert_close(means, torch.tensor([20.0, 40, 60, 80, 100]), rtol=0, atol=5)
    with pytest.raises(ValueError, match="9 frames: expected at least 10"):
        frames_of(tmp_path / "a.mp4", 10)


def test_a_clip_that_is_none_is_told(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no clip")
    (tmp_path / "a.txt").write_text("x\n")
    with pytest.raises(UserError, match=r"a\.mp4:1: image: .*expected a picture"):
        read_texts(tmp_path, with_images=True)


def test_too_few_rows_are_told(tmp_path):
    settings = own("own", **diff(pictures(tmp_path / "few", 9)))
    config = accepted({**settings, "results": str(tmp_path)}).parts("own")["config/data.json"]
    with pytest.raises(UserError, match="9 good rows: expected at least 10"):
        render(json.loads(json.dumps(config)))


def test_clips_go_with_wan(tmp_path):
    frames = {"frames": 8, "codec": {"kind": "patches", "patch": [4, 4, 4], "channels": 8}}
    line = refused(own("own", **diff(tmp_path, **frames)))
    assert "model.kind: 'qwen': expected 'wan' for data.frames 8" in line
