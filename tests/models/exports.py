"""Students of the tiny released models, what is exported of them, and samples of both."""

import diffusers
import torch
from PIL import Image

from pdmd.flow import RECTIFIED
from pdmd.models.adapters import SharedBase
from pdmd.models.base import Prompted
from pdmd.models.export import Student, write_export
from pdmd.models.families import FAMILIES, load_velocity
from pdmd.models.load_export import attach, generate, load_export
from pdmd.models.qwen import pack, unpack
from pdmd.models.tiny import write_tiny
from pdmd.phases import split_phases, step_grid
from pdmd.rollout import sample

RANK, ALPHA = 4, 2  # a loader that forgets alpha / rank draws something else
SIZES = {"qwen": (1, 32, 48), "wan": (9, 32, 48)}
NAMES = list(FAMILIES)
CUTS = {"dmd2": (4,), "phased2": (2, 4), "phased4": (1, 2, 3, 4)}
SHIFT = 5.0


def write_bases(folder):
    """A tiny base of every family."""
    for name in NAMES:
        write_tiny(name, folder / name)
    return folder


def trained(name, base, cuts, boundary=None):
    """Experts of every step, adapters with values on one base, and what is exported of them."""
    family = FAMILIES[name]
    boundary = boundary or family.boundary
    network = load_velocity(base, family, torch.float32, boundary)
    shared = SharedBase(network, RANK, ALPHA)
    phases = split_phases(4, CUTS[cuts], SHIFT, "nested", 0.001, boundary or 0.0)
    velocities, states = [], {}
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
        boundary=boundary,
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
def ours(student, velocities, pipeline):
    """Samples of training's own velocities, by its own sampler."""
    condition = given(pipeline, student)
    return sample(RECTIFIED, velocities, student.times, noise(student), condition)


def theirs(pipeline, values, student):
    family, x = FAMILIES[student.family], noise(student)
    if family.kind == "qwen":
        tokens = generate(pipeline, values, "a cat", latents=pack(x), output_type="latent")
        return unpack(tokens[None], *x.shape[-2:])
    more = {"image": frame()} if family.image_channels else {}
    return generate(pipeline, values, "a cat", latents=x, output_type="latent", **more)[None]


def exported(name, bases, tmp_path, cuts="phased2", boundary=None):
    student, velocities = trained(name, bases / name, cuts, boundary)
    write_export(student, tmp_path / "export", "# card\n")
    pipeline, values = pipeline_of(tmp_path / "export", bases / name)
    return student, velocities, pipeline, values


def off(one, other):
    return float((one - other).abs().max() / other.abs().max())


def bare(name, bases):
    kind = getattr(diffusers, FAMILIES[name].pipeline)
    pipeline = kind.from_pretrained(bases / name, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def without(pipeline, folder, values, student):
    """The base's samples at the student's steps."""
    attach(pipeline, folder, {**values, "adapters": []})
    return theirs(pipeline, values, student)
