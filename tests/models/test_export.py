"""What a user takes home draws, in the family's own pipeline, what training's student draws."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from exports import (
    ALPHA,
    CUTS,
    NAMES,
    RANK,
    SHIFT,
    bare,
    exported,
    given,
    noise,
    off,
    ours,
    own,
    pipeline_of,
    theirs,
    trained,
    without,
    write_bases,
)
from safetensors.torch import load_file, save_file

from pdmd.errors import UserError
from pdmd.models.export import (
    CONFIG_ALONE,
    EXPERT_FILES,
    ORIGINAL,
    SETTINGS,
    adapters_of,
    write_export,
)
from pdmd.models.families import FAMILIES
from pdmd.models.load_export import attach
from pdmd.models.original_keys import WAN


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return write_bases(tmp_path_factory.mktemp("bases"))


def exchanged(folder):
    """The export with the tensors of its first and last adapter in each other's file."""
    files = [one["file"] for one in json.loads((folder / SETTINGS).read_text())["adapters"]]
    first, last, spare = folder / files[0], folder / files[-1], folder / "spare"
    first.rename(spare)
    last.rename(first)
    spare.rename(last)


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("name", NAMES)
def test_samples_are_bit_equal_to_those_of_training(name, cuts, bases, tmp_path):
    student, velocities, pipeline, values = exported(name, bases, tmp_path, cuts)
    x = ours(student, velocities, pipeline)
    assert torch.equal(theirs(pipeline, values, student), x)
    if len(adapters_of(student)) > 1:  # control
        exchanged(tmp_path / "export")
        pipeline, values = pipeline_of(tmp_path / "export", bases / name)
        assert off(theirs(pipeline, values, student), x) > 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_original_names_load_to_the_same(name, bases, tmp_path):
    student, _, pipeline, values = exported(name, bases, tmp_path)
    x = theirs(pipeline, values, student)
    plain = bare(name, bases)
    assert off(without(plain, tmp_path / "export", values, student), x) > 1e-2  # control
    attach(plain, tmp_path / "export", values, ORIGINAL)
    own(*(getattr(plain, part) for part in FAMILIES[name].transformers))
    assert torch.equal(theirs(plain, values, student), x)


@pytest.mark.parametrize("files", ["", ORIGINAL])
@pytest.mark.parametrize("name", ["wan2.1-t2v-1.3b", "qwen-image"])
def test_without_what_the_files_say_of_alpha_samples_are_others(name, files, bases, tmp_path):
    """The control of both kinds of file: the loader takes alpha for the rank."""
    student, _, pipeline, values = exported(name, bases, tmp_path)
    x = theirs(pipeline, values, student)
    for path in (tmp_path / "export" / files).glob("*.safetensors"):
        state = load_file(path)
        save_file({key: t for key, t in state.items() if not key.endswith(".alpha")}, path)
    plain = bare(name, bases)
    attach(plain, tmp_path / "export", values, files)
    assert off(theirs(plain, values, student), x) > 1e-2


@pytest.mark.parametrize("name", ["wan2.1-t2v-1.3b", "qwen-image"])
def test_the_pipeline_takes_exactly_the_trained_steps(name, bases, tmp_path):
    student, _, pipeline, values = exported(name, bases, tmp_path)
    theirs(pipeline, values, student)
    assert torch.equal(pipeline.scheduler.sigmas, torch.tensor(student.times))


@pytest.mark.parametrize("shift", [SHIFT, 1.0])
def test_no_scheduler_by_its_configuration_alone_takes_the_trained_steps(shift, bases, tmp_path):
    """The trap: without the noise levels Wan's pipeline shifts twice, or not at all."""
    student, _, pipeline, values = exported("wan2.1-t2v-1.3b", bases, tmp_path)
    x = theirs(pipeline, values, student)
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    assert off(theirs(pipeline, values, student), x) > 0.1
    assert (pipeline.scheduler.sigmas - torch.tensor(student.times)).abs().max() > 0.2


def test_a_scheduler_that_shifts_once_more_is_refused(bases, tmp_path):
    exported("wan2.1-t2v-1.3b", bases, tmp_path)
    FlowMatchEulerDiscreteScheduler(shift=SHIFT).save_pretrained(tmp_path / "export/scheduler")
    with pytest.raises(UserError, match=r"scheduler_config\.json: .* another grid"):
        pipeline_of(tmp_path / "export", bases / "wan2.1-t2v-1.3b")


def test_the_boundary_is_the_students_whatever_the_base_says(bases, tmp_path):
    name = "wan2.2-t2v-a14b"  # .875 in its folder; the third of steps 1, .94, .83, .63 is high now
    student, velocities, pipeline, values = exported(name, bases, tmp_path, "phased4", 0.8)
    x = ours(student, velocities, pipeline)
    assert torch.equal(theirs(pipeline, values, student), x)
    pipeline.register_to_config(boundary_ratio=FAMILIES[name].boundary)  # control
    assert off(theirs(pipeline, values, student), x) > 1e-2


def test_wan_22_gives_one_file_for_each_expert(bases, tmp_path):
    student, _ = trained("wan2.2-t2v-a14b", bases / "wan2.2-t2v-a14b", "phased2")
    files = [(one.file, one.transformer, one.first) for one in adapters_of(student)]
    assert files == [
        ("high_noise_model.safetensors", "transformer", 1.0),
        ("low_noise_model.safetensors", "transformer_2", student.times[2]),
    ]


def test_each_transformer_and_phase_has_a_file_and_its_noise_levels(bases, tmp_path):
    student, _ = trained("wan2.2-t2v-a14b", bases / "wan2.2-t2v-a14b", "phased4")
    high, low = EXPERT_FILES.values()
    names = [f"{side}_phase{n}.safetensors" for n, side in enumerate([high, high, low, low], 1)]
    write_export(student, tmp_path / "export", "# card\n")
    values = json.loads((tmp_path / "export" / SETTINGS).read_text())
    assert values["sigmas"] == list(student.times[:-1])
    assert values["raw_sigmas"] == [1.0, 0.75, 0.5, 0.25]
    assert [one["file"] for one in values["adapters"]] == names
    assert [one["from_sigma"] for one in values["adapters"]] == values["sigmas"]
    assert [one["to_sigma"] for one in values["adapters"]] == values["sigmas"]


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_of_the_original_names_is_float32_and_has_an_alpha(name, bases, tmp_path):
    student, _ = trained(name, bases / name, "dmd2")
    write_export(student, tmp_path / "export", "# card\n")
    for path in (tmp_path / "export" / ORIGINAL).iterdir():
        state = load_file(path)
        layers = {key.removesuffix(".alpha") for key in state if key.endswith(".alpha")}
        assert all(layer.startswith("diffusion_model.") for layer in layers)
        wanted = {f"{layer}.lora_{side}.weight" for layer in layers for side in ("down", "up")}
        assert state.keys() == wanted | {f"{layer}.alpha" for layer in layers}
        assert {tensor.dtype for tensor in state.values()} == {torch.float32}
        assert {float(state[f"{layer}.alpha"]) for layer in layers} == {ALPHA}
        if FAMILIES[name].kind == "wan":
            assert {layer.split(".", 3)[3] for layer in layers} == set(WAN.values())


# -- states that do not fit ---------------------------------------------------------------------


def tensors_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.safe*"))}


def test_an_expert_that_no_step_of_a_phase_calls_is_left_out(bases, tmp_path):
    student, _ = trained("wan2.2-t2v-a14b", bases / "wan2.2-t2v-a14b", "phased2")
    write_export(student, tmp_path / "export", "# card\n")
    first = {**student.states[1]}
    for key, tensor in student.states[1].items():  # an expert that was never trained: B = 0
        idle = torch.zeros_like(tensor) if ".lora_B." in key else tensor
        first[key.replace("high.", "low.")] = idle
    more = replace(student, states={**student.states, 1: first})
    write_export(more, tmp_path / "more", "# card\n")
    assert tensors_of(tmp_path / "more") == tensors_of(tmp_path / "export")
    names = {one.file for one in adapters_of(more)}
    assert names == {"high_noise_model.safetensors", "low_noise_model.safetensors"}


def test_equal_students_give_equal_files(bases, tmp_path):
    student, _ = trained("qwen-image", bases / "qwen-image", "phased2")
    for folder in ("one", "two"):
        write_export(student, tmp_path / folder, "# card\n")
    one, two = (
        {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        for folder in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda state: state.clear(), r"phase 2: net\.\*: no tensors"),
        (lambda state: state.popitem(), "phase 2: .*: one matrix: expected lora_A and lora_B"),
        (lambda state: state.update({"net.x": torch.ones(2)}), r"phase 2: net\.x: expected"),
    ],
)
def test_a_state_that_is_no_adapter_is_refused_and_the_export_stays(damage, said, bases, tmp_path):
    student, _ = trained("qwen-image", bases / "qwen-image", "phased2")
    write_export(student, tmp_path / "export", "# card\n")
    before, state = tensors_of(tmp_path / "export"), dict(student.states[2])
    damage(state)
    with pytest.raises(UserError, match=said):
        write_export(replace(student, states={**student.states, 2: state}), tmp_path / "export", "")
    assert tensors_of(tmp_path / "export") == before
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_another_rank_than_the_students_is_refused(bases, tmp_path):
    student, _ = trained("qwen-image", bases / "qwen-image", "dmd2")
    with pytest.raises(UserError, match=f"rank {RANK}: expected 8"):
        write_export(replace(student, rank=8), tmp_path / "export", "# card\n")


# -- a scheduler by its configuration alone ------------------------------------------------------


def by_config(folder):
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler.from_pretrained(folder / "export" / CONFIG_ALONE)


@pytest.mark.parametrize("name", ["wan2.1-t2v-1.3b", "wan2.2-t2v-a14b"])
def test_a_scheduler_by_its_configuration_alone_draws_nearly_the_same(name, bases, tmp_path):
    """Whole thousandths for times: the samples are near, those of a grid of no shift are not."""
    student, _, pipeline, values = exported(name, bases, tmp_path)
    x = theirs(pipeline, values, student)
    pipeline.scheduler = by_config(tmp_path)
    near = theirs(pipeline, values, student)
    assert (pipeline.scheduler.sigmas[:-1] - torch.tensor(student.times[:-1])).abs().max() < 1.5e-3
    assert 0 < off(near, x) < 0.05
    pipeline.scheduler = type(pipeline.scheduler).from_config(  # control
        pipeline.scheduler.config, flow_shift=1.0
    )
    assert off(theirs(pipeline, values, student), x) > 10 * off(near, x)


def test_its_steps_are_eulers_on_its_own_grid(bases, tmp_path):
    """Bit-near: order 1 without corrections; with the corrections it is another method."""
    student, velocities, pipeline, values = exported("wan2.1-t2v-1.3b", bases, tmp_path)
    scheduler = by_config(tmp_path)
    scheduler.set_timesteps(4)
    sigmas, t = scheduler.sigmas.tolist(), scheduler.timesteps / 1000
    condition, x = given(pipeline, student), noise(student)
    with torch.no_grad():
        for step, velocity in enumerate(velocities):
            v = velocity(x, t[step : step + 1].float(), condition)
            x = x + (sigmas[step + 1] - sigmas[step]) * v
    pipeline.scheduler = by_config(tmp_path)
    assert off(theirs(pipeline, values, student), x) < 1e-5
    config = {**pipeline.scheduler.config, "disable_corrector": []}  # control
    pipeline.scheduler = type(pipeline.scheduler).from_config(config)
    assert off(theirs(pipeline, values, student), x) > 1e-3


def test_what_it_is_off_by_is_said_and_a_chosen_grid_has_none(bases, tmp_path):
    student, _ = trained("wan2.1-t2v-1.3b", bases / "wan2.1-t2v-1.3b", "phased2")
    write_export(student, tmp_path / "export", "# card\n")
    assert "up to 0.0010 off the trained ones" in (tmp_path / "export/README.md").read_text()
    chosen = replace(student, times=(1.0, 0.9, 0.6, 0.3, 0.0))
    write_export(chosen, tmp_path / "chosen", "# card\n")
    assert not (tmp_path / "chosen" / CONFIG_ALONE).exists()
    assert CONFIG_ALONE not in (tmp_path / "chosen/README.md").read_text()
