"""What a user takes home draws, in the family's own pipeline, what training's student draws."""

import functools
import json
import subprocess
import sys

import pytest
import torch
from PIL import Image

from pdmd.flow import RECTIFIED
from pdmd.models.adapters import SharedBase
from pdmd.models.export import SETTINGS, Student, adapters_of, write_export
from pdmd.models.families import FAMILIES, load_velocity
from pdmd.models.load_export import attach, generate, load_export
from pdmd.models.tiny import write_tiny
from pdmd.phases import split_phases, step_grid
from pdmd.rollout import sample

RANK, ALPHA = 4, 2  # a loader that forgets alpha / rank draws something else
SIZES = {"qwen": (1, 32, 48), "wan": (9, 32, 48)}
NAMES = list(FAMILIES)
CUTS = {"dmd2": (4,), "phased2": (2, 4), "phased4": (1, 2, 3, 4)}
SHIFT = 5.0


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    for name in NAMES:
        write_tiny(name, folder / name)
    return folder


def phases_of(name, cuts):
    switch = FAMILIES[name].boundary or 0.0
    return split_phases(4, CUTS[cuts], SHIFT, "nested", 0.001, switch)


def trained(name, base, cuts):
    """Experts of every step, adapters with values on one base, and what is exported of them."""
    family = FAMILIES[name]
    network = load_velocity(base, family, torch.float32)
    shared = SharedBase(network, RANK, ALPHA)
    phases, velocities, states = phases_of(name, cuts), [], {}
    for phase in phases:
        adapter = shared.add(f"phase{phase.number}", phase.number, experts=phase.called)
        generator = torch.Generator().manual_seed(phase.number)
        with torch.no_grad():
            for p in adapter.parameters():
                p.copy_(0.3 * torch.randn(p.shape, generator=generator))
        states[phase.number] = adapter.state_dict()
        velocities += [adapter] * (phase.last - phase.first)
    own(network)
    student = Student(
        family=name,
        times=step_grid(4, SHIFT),
        shift=SHIFT,
        boundary=family.boundary,
        rank=RANK,
        alpha=ALPHA,
        phases=tuple((phase.first, phase.last) for phase in phases),
        states=states,
        size=SIZES[family.kind],
    )
    return student, velocities


def own(*networks):
    """Weights in memory of their own: a matrix that lies elsewhere meets another kernel (1e-6)."""
    for network in networks:
        for p in network.parameters():
            p.data = p.data.clone()


def pipeline_of(folder, base):
    pipeline, values = load_export(folder, base, dtype=torch.float32)
    own(*(getattr(pipeline, part) for part in FAMILIES[values["family"]].transformers))
    return pipeline, values


def noise(student):
    frames, height, width = student.size
    shape = (1, 16, (frames - 1) // 4 + 1, height // 8, width // 8)
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


def given(pipeline, student):
    """Text, and a first frame's latents, as the pipeline makes them, for our own sampler."""
    from pdmd.models.base import Prompted

    family = FAMILIES[student.family]
    if family.kind == "qwen":
        rows, _ = pipeline.encode_prompt(["a cat"])
        return Prompted(rows, torch.tensor([rows.shape[1]]))
    rows, _ = pipeline.encode_prompt("a cat", None, False, max_sequence_length=512)
    images = None
    if family.image_channels:
        frames, height, width = student.size
        picture = pipeline.video_processor.preprocess(frame(), height=height, width=width)
        latents = noise(student)
        _, images = pipeline.prepare_latents(
            picture, 1, 16, height, width, frames, torch.float32, latents.device, latents=latents
        )
    return Prompted(rows, torch.tensor([rows.shape[1]]), images)


def frame():
    return Image.linear_gradient("L").convert("RGB").resize((48, 32))


@torch.no_grad()
def ours(student, velocities, pipeline, steps=None):
    """Samples of training's own velocities; `steps` is what takes them, our own where None."""
    x, condition = noise(student), given(pipeline, student)
    if steps is None:
        return sample(RECTIFIED, velocities, student.times, x, condition)
    for velocity, timestep, t in zip(velocities, steps.timesteps, student.times, strict=False):
        v = velocity(x, torch.tensor([t]), condition)
        x = steps.step(v, timestep, x, return_dict=False)[0]
    return x


def scheduler(student):
    from diffusers import FlowMatchEulerDiscreteScheduler

    steps = FlowMatchEulerDiscreteScheduler(shift=1.0)
    steps.set_timesteps(sigmas=list(student.times[:-1]))
    return steps


def theirs(pipeline, values, student):
    from pdmd.models.qwen import pack, unpack

    family, x = FAMILIES[student.family], noise(student)
    if family.kind == "qwen":
        tokens = generate(pipeline, values, "a cat", latents=pack(x), output_type="latent")
        return unpack(tokens[None], *x.shape[-2:])
    more = {"image": frame()} if family.image_channels else {}
    return generate(pipeline, values, "a cat", latents=x, output_type="latent", **more)[None]


def exported(name, bases, tmp_path, cuts="phased2"):
    student, velocities = trained(name, bases / name, cuts)
    write_export(student, tmp_path / "export", "# card\n")
    pipeline, values = pipeline_of(tmp_path / "export", bases / name)
    return student, velocities, pipeline, values


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_bit_equal_to_those_of_training(name, bases, tmp_path):
    student, velocities, pipeline, values = exported(name, bases, tmp_path)
    x = theirs(pipeline, values, student)
    assert torch.equal(x, ours(student, velocities, pipeline, scheduler(student)))
    assert off(ours(student, velocities, pipeline), x) < 1e-6  # by our own Euler steps
    if FAMILIES[name].experts == 1:
        before = [velocities[0]] * 4  # control: the first phase's expert at every step
        assert off(ours(student, before, pipeline), x) > 1e-3


def off(one, other):
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("cuts", ["dmd2", "phased4"])
@pytest.mark.parametrize("name", ["qwen-image", "wan2.2-t2v-a14b"])
def test_any_number_of_phases_is_exported(name, cuts, bases, tmp_path):
    student, velocities, pipeline, values = exported(name, bases, tmp_path, cuts)
    x = ours(student, velocities, pipeline, scheduler(student))
    assert torch.equal(theirs(pipeline, values, student), x)


@pytest.mark.parametrize("name", NAMES)
def test_original_names_load_to_the_same(name, bases, tmp_path):
    student, _, pipeline, values = exported(name, bases, tmp_path)
    x = theirs(pipeline, values, student)
    pipeline.unload_lora_weights()
    assert not torch.allclose(theirs_plain(name, bases, values, student), x, atol=1e-3)  # control
    plain = bare(name, bases)
    attach(plain, tmp_path / "export", values, "comfyui")
    own(*(getattr(plain, part) for part in FAMILIES[name].transformers))
    assert torch.equal(theirs(plain, values, student), x)


def bare(name, bases):
    import diffusers

    kind = getattr(diffusers, FAMILIES[name].pipeline)
    pipeline = kind.from_pretrained(bases / name, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def theirs_plain(name, bases, values, student):
    """The base's samples on the same grid."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    pipeline = bare(name, bases)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    if FAMILIES[name].kind == "wan":
        scheduler.set_timesteps = functools.partial(
            scheduler.set_timesteps, sigmas=values["sigmas"]
        )
    pipeline.scheduler = scheduler
    return theirs(pipeline, values, student)


def test_an_alpha_that_is_forgotten_changes_the_samples(bases, tmp_path):
    """The control of both files: a loader that takes alpha = rank draws something else."""
    name = "wan2.1-t2v-1.3b"
    student, _, pipeline, values = exported(name, bases, tmp_path)
    x = theirs(pipeline, values, student)
    wrong = Student(**{**vars(student), "alpha": RANK})
    write_export(wrong, tmp_path / "wrong", "# card\n")
    pipeline, values = pipeline_of(tmp_path / "wrong", bases / name)
    assert not torch.allclose(theirs(pipeline, values, student), x, atol=1e-3)


@pytest.mark.parametrize("name", ["wan2.1-t2v-1.3b", "qwen-image"])
def test_the_pipeline_takes_exactly_the_trained_steps(name, bases, tmp_path):
    from diffusers import FlowMatchEulerDiscreteScheduler

    student, _, pipeline, values = exported(name, bases, tmp_path)
    theirs(pipeline, values, student)
    grid = torch.tensor(student.times)
    assert torch.equal(pipeline.scheduler.sigmas, grid)
    twice = FlowMatchEulerDiscreteScheduler(shift=SHIFT)  # control: the shift in the config alone
    twice.set_timesteps(4)
    assert (twice.sigmas - grid).abs().max() > 0.2


def test_wan_22_gives_one_file_for_each_expert(bases, tmp_path):
    student, _ = trained("wan2.2-t2v-a14b", bases / "wan2.2-t2v-a14b", "phased2")
    files = [(one.file, one.transformer, one.first) for one in adapters_of(student)]
    assert files == [
        ("high_noise_model.safetensors", "transformer", 1.0),
        ("low_noise_model.safetensors", "transformer_2", student.times[2]),
    ]


def test_every_tensor_of_the_original_names_is_float32_and_has_an_alpha(bases, tmp_path):
    from safetensors.torch import load_file

    student, _ = trained("wan2.2-i2v-a14b", bases / "wan2.2-i2v-a14b", "phased2")
    write_export(student, tmp_path / "export", "# card\n")
    state = load_file(tmp_path / "export/comfyui/low_noise_model.safetensors")
    layers = {key.rsplit(".", 1)[0] for key in state if key.endswith(".alpha")}
    assert "diffusion_model.blocks.0.cross_attn.o" in layers
    assert len(state) == 3 * len(layers)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert {float(state[f"{layer}.alpha"]) for layer in layers} == {ALPHA}


@pytest.mark.parametrize("name", ["qwen-image", "wan2.2-t2v-a14b", "wan2.2-i2v-a14b"])
def test_the_example_runs_as_it_stands(name, bases, tmp_path):
    student, _ = trained(name, bases / name, "phased2")
    names = write_export(student, tmp_path / "export", "# card\n")
    frame().save(tmp_path / "first.png")
    command = [sys.executable, str(tmp_path / "export/example.py"), str(bases / name), "a cat"]
    subprocess.run([*command, str(tmp_path / "first.png")], check=True, cwd=tmp_path)
    made = tmp_path / "export" / ("sample.png" if name == "qwen-image" else "sample.mp4")
    assert made.stat().st_size > 500
    assert "example.py" in names
    text = (tmp_path / "export/README.md").read_text()
    assert (tmp_path / "export/example.py").read_text() in text


def test_settings_name_every_adapter_and_step(bases, tmp_path):
    student, _ = trained("wan2.2-t2v-a14b", bases / "wan2.2-t2v-a14b", "phased2")
    write_export(student, tmp_path / "export", "# card\n")
    values = json.loads((tmp_path / "export" / SETTINGS).read_text())
    assert values["sigmas"] == list(student.times[:-1])
    assert values["raw_sigmas"] == [1.0, 0.75, 0.5, 0.25]
    assert [one["name"] for one in values["adapters"]] == ["high", "low"]
