"""`pdmd sample`: one sample of an export into a file, or one line that says what is wrong."""

import json
import resource
import shutil
import signal

import cv2
import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from exports import frame, trained
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pdmd.errors import UserError
from pdmd.models.export import SETTINGS, write_export
from pdmd.models.load_export import generate, load_export
from pdmd.models.tiny import write_tiny
from pdmd.stages.generate import generate_file, save_media

NAMES = ["qwen-image", "wan2.1-t2v-1.3b", "wan2.2-i2v-a14b"]
QWEN, WAN, PICTURED = NAMES


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of tiny bases, and of an export for each."""
    folder = tmp_path_factory.mktemp("generate")
    for name in NAMES:
        write_tiny(name, folder / "bases" / name)
        student, _ = trained(name, folder / "bases" / name, "phased2")
        write_export(student, folder / "exports" / name, "# card\n")
    frame().save(folder / "first.png")
    return folder


def draw(made, output, name=WAN, **changes):
    """generate_file as it is right, but for some arguments."""
    wanted = {
        "export": made / "exports" / name,
        "base": str(made / "bases" / name),
        "prompt": "a cat",
        "output": output,
        "seed": 1,
        "size": None,
        "image": made / "first.png" if name == PICTURED else None,
        "device": "cpu",
    }
    generate_file(**{**wanted, **changes})


def frames_of(path):
    clip, frames = cv2.VideoCapture(str(path)), []
    while (read := clip.read())[0]:
        frames.append(read[1][..., ::-1])
    return frames, clip.get(cv2.CAP_PROP_FPS)


# -- what is drawn ------------------------------------------------------------------------------


def test_a_picture_is_the_pipelines_and_follows_the_seed_and_prompt(made, tmp_path):
    draw(made, tmp_path / "a.png", QWEN)
    pipeline, values = load_export(made / "exports" / QWEN, made / "bases" / QWEN)
    wanted = generate(pipeline, values, "a cat", 1)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), np.asarray(wanted))
    draw(made, tmp_path / "same.png", QWEN)
    draw(made, tmp_path / "seed.png", QWEN, seed=2)  # controls
    draw(made, tmp_path / "prompt.png", QWEN, prompt="two dogs")
    content = {path.stem: path.read_bytes() for path in tmp_path.iterdir()}
    assert content["same"] == content["a"]
    assert content["seed"] != content["a"] != content["prompt"]


@pytest.mark.parametrize("name", [WAN, PICTURED])
def test_a_clip_has_its_frames_at_sixteen_a_second(name, made, tmp_path):
    draw(made, tmp_path / "a.mp4", name)
    draw(made, tmp_path / "b.mp4", name, size="5x48x32")
    frames, rate = frames_of(tmp_path / "a.mp4")
    assert (len(frames), frames[0].shape, rate) == (9, (32, 48, 3), 16)
    frames, _ = frames_of(tmp_path / "b.mp4")
    assert (len(frames), frames[0].shape) == (5, (48, 32, 3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_one_frame_of_a_clip_is_a_picture(made, tmp_path):
    draw(made, tmp_path / "a.png", size="1x32x48")
    assert Image.open(tmp_path / "a.png").size == (48, 32)


def test_the_first_frame_matters(made, tmp_path):
    Image.new("RGB", (48, 32), (200, 30, 90)).save(tmp_path / "other.png")
    draw(made, tmp_path / "a.mp4", PICTURED)
    draw(made, tmp_path / "b.mp4", PICTURED, image=tmp_path / "other.png")
    assert (tmp_path / "a.mp4").read_bytes() != (tmp_path / "b.mp4").read_bytes()


def test_without_a_base_the_hubs_own_is_looked_for(made, tmp_path, monkeypatch):
    asked = []

    def locate(source):
        asked.append(source)
        return made / "bases" / QWEN

    monkeypatch.setattr("pdmd.stages.generate.locate", locate)
    draw(made, tmp_path / "a.png", QWEN, base=None)
    assert asked == ["Qwen/Qwen-Image"]
    assert (tmp_path / "a.png").is_file()


def test_frames_keep_their_colours_and_order(tmp_path):
    colours = [(230, 20, 20), (20, 230, 20), (20, 20, 230)]
    save_media([Image.new("RGB", (64, 48), colour) for colour in colours], tmp_path / "a.mp4")
    frames, _ = frames_of(tmp_path / "a.mp4")
    assert [int(found.mean((0, 1)).argmax()) for found in frames] == [0, 1, 2]


def test_a_clip_that_the_disk_has_no_room_for_is_none(tmp_path):
    generator = np.random.default_rng(0)
    noise = [Image.fromarray(generator.integers(0, 255, (64, 64, 3), np.uint8)) for _ in range(9)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        with pytest.raises(UserError, match=r"a\.mp4: 0 frames: expected room for 9"):
            save_media(noise, tmp_path / "a.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []
    save_media(noise, tmp_path / "a.mp4")  # control
    assert len(frames_of(tmp_path / "a.mp4")[0]) == 9


# -- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "output", "changes", "said"),
    [
        (WAN, "a.png", {}, r"--output: .*a\.png: expected a name that ends with \.mp4"),
        (QWEN, "a.mp4", {}, r"--output: .*a\.mp4: expected a name that ends with \.png"),
        (WAN, "a", {}, "--output: .*a: expected a name"),
        (WAN, "a.mp4", {"size": "large"}, "--size: large: expected frames, height and width"),
        (WAN, "a.mp4", {"size": "5x33x32"}, "--size: 5x33x32: expected sides"),
        (WAN, "a.mp4", {"size": "6x32x32"}, "--size: 6x32x32: expected 4 k"),
        (WAN, "a.mp4", {"size": "5x0x32"}, "--size: 5x0x32: expected"),
        (QWEN, "a.png", {"size": "5x32x32"}, "--size: 5x32x32: expected 1 frame"),
        (PICTURED, "a.mp4", {"image": None}, "--image: None: expected the first frame"),
        (WAN, "a.mp4", {"device": "cuda"}, "--device: cuda: expected a GPU"),
    ],
)
def test_a_request_that_does_not_fit_is_one_line(name, output, changes, said, made, tmp_path):
    if changes.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match=said) as error:
        draw(made, tmp_path / output, name, **changes)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_first_frame_is_for_image_to_video_alone_and_a_picture(made, tmp_path):
    with pytest.raises(UserError, match=r"--image: .* expected none"):
        draw(made, tmp_path / "a.mp4", WAN, image=made / "first.png")
    (tmp_path / "no.png").write_text("no picture")
    with pytest.raises(UserError, match=r"--image: .*no\.png: .*expected a picture"):
        draw(made, tmp_path / "a.mp4", PICTURED, image=tmp_path / "no.png")


@pytest.mark.parametrize("base", [QWEN, PICTURED])
def test_a_base_of_another_family_is_refused(base, made, tmp_path):
    with pytest.raises(UserError, match=r"model_index\.json: .*expected"):
        draw(made, tmp_path / "a.mp4", WAN, base=str(made / "bases" / base))


def test_a_folder_that_is_no_export_is_refused(made, tmp_path):
    with pytest.raises(UserError, match=r"no sampling\.json: expected a folder that"):
        draw(made, tmp_path / "a.mp4", export=made / "bases" / WAN)


# -- exports that were damaged ------------------------------------------------------------------


def settings(change):
    """What changes sampling.json."""

    def damage(folder):
        path = folder / SETTINGS
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return damage


def wider(folder):
    """An adapter of a base that is twice as wide."""
    path = folder / "phase2.safetensors"
    with safe_open(path, "pt") as handle:
        metadata = handle.metadata()
    axis = {"A": 1, "B": 0}
    state = {
        key: torch.cat([t, t], axis[key[key.index("lora_") + 5]])
        for key, t in load_file(path).items()
    }
    save_file(state, path, metadata)


def shifted(folder):
    FlowMatchEulerDiscreteScheduler(shift=5.0).save_pretrained(folder / "scheduler")


def nameless(folder):
    path = folder / "phase2.safetensors"
    save_file({"x": torch.ones(2)}, path)


def cut(folder):
    path = folder / "phase2.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


DAMAGES = {
    "an adapter is gone": (lambda f: (f / "phase2.safetensors").unlink(), "phase2.safetensors"),
    "an adapter was cut": (cut, "phase2.safetensors"),
    "an adapter of another width": (wider, "phase2.safetensors"),
    "an adapter of nothing": (nameless, "phase2.safetensors"),
    "no scheduler": (lambda f: shutil.rmtree(f / "scheduler"), "scheduler_config.json"),
    "a scheduler that shifts once more": (shifted, "scheduler_config.json"),
    "no settings": (lambda f: (f / SETTINGS).write_text("{"), SETTINGS),
    "another family": (settings(lambda v: v.update(family=["x"])), SETTINGS),
    "no adapters": (settings(lambda v: v.update(adapters=[])), SETTINGS),
    "an adapter without keys": (settings(lambda v: v.update(adapters=[{}])), SETTINGS),
    "one adapter of two": (settings(lambda v: v["adapters"].pop()), SETTINGS),
    "one adapter twice": (settings(lambda v: v["adapters"].append(v["adapters"][-1])), SETTINGS),
    "another transformer": (
        settings(lambda v: v["adapters"][1].update(transformer="vae")),
        SETTINGS,
    ),
    "sigmas that are none": (settings(lambda v: v.update(sigmas="many")), SETTINGS),
    "no sigmas": (settings(lambda v: v.update(sigmas=[])), SETTINGS),
    "rising sigmas": (settings(lambda v: v["sigmas"].reverse()), SETTINGS),
    "a sigma that is no number": (settings(lambda v: v["sigmas"].append(float("nan"))), SETTINGS),
    "a boundary of one expert": (settings(lambda v: v.update(boundary=0.9)), SETTINGS),
    "no size": (settings(lambda v: v.update(size=[5, 32])), SETTINGS),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_export_is_one_line_that_names_the_file(damage, made, tmp_path):
    folder = shutil.copytree(made / "exports" / WAN, tmp_path / "export")
    change, named = DAMAGES[damage]
    change(folder)
    with pytest.raises(UserError, match=named) as error:
        draw(made, tmp_path / "a.mp4", export=folder)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "a.mp4").exists()
