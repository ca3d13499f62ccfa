"""The released families on tiny configurations: in the hub's layout, sampled as by pipelines."""

import functools
import math

import numpy as np
import pytest
import torch
from tiny import CHANNELS, euler, noise, prompts, qwen, qwen_vae, wan, wan_vae

from pdmd.errors import UserError
from pdmd.flow import RECTIFIED, shift_time
from pdmd.models.base import Guided
from pdmd.models.families import FAMILIES, load_velocity, qwen_shift, stretched
from pdmd.models.qwen import pack, unpack
from pdmd.models.source import check_folder
from pdmd.models.tiny import write_tiny
from pdmd.phases import step_grid
from pdmd.rollout import sample

PARTS = ("scheduler", "vae")  # text is given as embeddings here
STEPS = 6
SCALE, LOW = 4.0, 3.0
VIDEOS = [name for name, family in FAMILIES.items() if family.kind == "wan"]
SIZES = [(4, 4), (4, 8)]  # of latents


def scheduler_of(kind, shift):
    from diffusers import UniPCMultistepScheduler

    if kind == "euler":
        scheduler = euler(shift)
        raw = [1 - i / STEPS for i in range(STEPS)]
        scheduler.set_timesteps = functools.partial(scheduler.set_timesteps, sigmas=raw)
        return scheduler
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        num_train_timesteps=1000,
        flow_shift=shift,
    )


def saved(name, folder):
    """The velocity of a tiny model that lies in a folder as the hub has it, and its pipeline."""
    import diffusers

    family = FAMILIES[name]
    kind = getattr(diffusers, family.pipeline)
    if family.kind == "qwen":
        pipeline = kind(released(), qwen_vae(), None, None, qwen(1).net)
    else:
        images = torch.zeros(1, family.image_channels, 1, 1, 1) if family.image_channels else None
        high, low = (wan(seed, images=images).net for seed in (1, 2))
        more = {"image_encoder": None, "image_processor": None} if family.image_channels else {}
        pipeline = kind(
            tokenizer=None,
            text_encoder=None,
            vae=wan_vae(),
            scheduler=scheduler_of("unipc", 5.0),
            transformer=high,
            transformer_2=low if family.experts == 2 else None,
            boundary_ratio=family.boundary,
            **more,
        )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    check_folder(folder, family, PARTS)
    field = load_velocity(folder, family, torch.float32)
    # The same memory for both: a matrix that lies elsewhere is multiplied by another kernel (1e-6).
    nets = [field.net] if family.experts == 1 else [field.high.net, field.low.net]
    for name, net in zip(family.transformers, nets, strict=True):
        written, read = getattr(pipeline, name).state_dict(), net.state_dict()
        assert all(torch.equal(read[key], written[key]) for key in written | read)
        setattr(pipeline, name, net)
    return field, pipeline


def off(ours, theirs):
    """The largest difference, as a share of the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def by_scheduler(field, scheduler, x, condition, times):
    """The loop of the pipelines, driven by their scheduler, over our velocity."""
    with torch.no_grad():
        for timestep, t in zip(scheduler.timesteps, times, strict=True):
            v = field(x, t.expand(len(x)), condition)
            x = scheduler.step(v, timestep, x, return_dict=False)[0]
    return x


# -- Wan ----------------------------------------------------------------------------------------


def guided(field, family, condition_null):
    return Guided(
        field,
        SCALE,
        condition_null,
        low=LOW if family.experts == 2 else None,
        boundary=family.boundary or 0.0,
        rescale=family.rescale,
        apart=True,
    )


def videos(pipeline, family, text, null, x, image=None):
    """Latents of a Wan pipeline from embeddings."""
    height, width = (8 * side for side in x.shape[-2:])
    return pipeline(
        **({"image": image} if image is not None else {}),
        prompt_embeds=text,
        negative_prompt_embeds=null,
        guidance_scale=SCALE,
        guidance_scale_2=LOW if family.experts == 2 else None,
        height=height,
        width=width,
        num_frames=4 * (x.shape[2] - 1) + 1,
        num_inference_steps=STEPS,
        latents=x.clone(),
        output_type="latent",
    ).frames


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("solver", ["unipc", "euler"])
@pytest.mark.parametrize("name", VIDEOS)
def test_clips_are_the_pipelines(tmp_path, name, solver, size):
    """Two prompts of different length, and one picture for both, as the pipeline takes one."""
    family = FAMILIES[name]
    field, pipeline = saved(name, tmp_path)
    pipeline.scheduler = scheduler_of(solver, 5.0)
    x, image = noise(2, CHANNELS, 2, *size), None
    condition = prompts(0, 1)
    if family.image_channels:
        image = picture(0, size)
        given = first_frame(pipeline, image, x)
        assert torch.equal(given[0], given[1])
        condition = prompts([0, 0], [1, 1], images=given)
    null = prompts(3)
    theirs = videos(pipeline, family, condition.text, null.text.expand(len(x), -1, -1), x, image)
    scheduler = fresh(solver)
    # UniPC hands its times over as integers: 937 for .9375.
    exact = solver == "euler"
    times = scheduler.sigmas[:-1] if exact else scheduler.timesteps.float() / 1000
    wanted = guided(field, family, null)
    ours = by_scheduler(wanted, scheduler, x, condition, times)
    assert off(ours, theirs) == 0.0
    plain = by_scheduler(field, fresh(solver), x, condition, times)
    assert off(plain, theirs) > 1e-3  # control: no guidance
    if family.experts == 2:  # control: one scale for both experts
        one = by_scheduler(Guided(field, SCALE, null), fresh(solver), x, condition, times)
        assert off(one, theirs) > 1e-3
    if exact:
        with torch.no_grad():
            mine = sample(RECTIFIED, [wanted] * STEPS, step_grid(STEPS, 5.0), x, condition)
        assert off(mine, theirs) < 1e-5


def picture(seed, size):
    from PIL import Image

    height, width = (8 * side for side in size)
    pixels = np.random.RandomState(seed).randint(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def first_frame(pipeline, image, x):
    """What a Wan pipeline concatenates to latents x for a picture."""
    height, width = (8 * side for side in x.shape[-2:])
    pixels = pipeline.video_processor.preprocess(image, height=height, width=width).float()
    with torch.no_grad():
        return pipeline.prepare_latents(
            pixels, len(x), CHANNELS, height, width, 5, torch.float32, "cpu", None, x.clone()
        )[1]


def test_pictures_of_a_batch_are_each_ones_own(tmp_path):
    """Two prompts and two pictures at once, as the pipeline draws one after the other."""
    (name,) = (name for name in VIDEOS if FAMILIES[name].image_channels)
    family, size = FAMILIES[name], SIZES[1]
    field, pipeline = saved(name, tmp_path)
    pipeline.scheduler = scheduler_of("euler", 5.0)
    x, images = noise(2, CHANNELS, 2, *size), [picture(seed, size) for seed in (0, 1)]
    given = torch.cat([first_frame(pipeline, images[k], x[k : k + 1]) for k in (0, 1)])
    null = prompts(3)
    wanted = guided(field, family, null)
    theirs = torch.cat(
        [
            videos(pipeline, family, prompts(k).text, null.text, x[k : k + 1], images[k])
            for k in (0, 1)
        ]
    )
    drawn = {}
    for order in ((0, 1), (1, 0)):
        condition = prompts([0, order[0]], [1, order[1]], images=given)
        with torch.no_grad():
            drawn[order] = sample(RECTIFIED, [wanted] * STEPS, step_grid(STEPS, 5.0), x, condition)
    assert off(drawn[0, 1], theirs) < 1e-5
    assert off(drawn[1, 0], theirs) > 1e-3  # control: each with the other's picture


def fresh(solver):
    scheduler = scheduler_of(solver, 5.0)
    scheduler.set_timesteps(STEPS)
    return scheduler


# -- Qwen-Image ---------------------------------------------------------------------------------

RELEASED = {
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 8192,
    "max_shift": 0.9,
    "shift": 1.0,
    "shift_terminal": 0.02,
    "time_shift_type": "exponential",
    "use_dynamic_shifting": True,
}


def released():
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**RELEASED)


def grid(tokens, last=0.02):
    """Qwen-Image's times: even to 1 / n, shifted by the resolution, stretched to .02, then 0."""
    raw = torch.linspace(1, 1 / STEPS, STEPS, dtype=torch.float64)
    times = [*shift_time(raw, qwen_shift(tokens)).tolist(), 0.0]
    return stretched(times, last) if last else tuple(times)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("index", [[0], [0, 1, 2]])
def test_pictures_are_the_pipelines(tmp_path, index, size):
    family = FAMILIES["qwen-image"]
    field, pipeline = saved("qwen-image", tmp_path)
    x, null = noise(len(index), CHANNELS, 1, *size), prompts(3, padded=None)
    condition = prompts(*index, padded=None)
    mask = torch.arange(condition.text.shape[1]) < condition.lengths[:, None]
    n = len(index)
    theirs = pipeline(
        prompt_embeds=condition.text,
        prompt_embeds_mask=None if bool(mask.all()) else mask,
        negative_prompt_embeds=null.text.expand(n, -1, -1),
        negative_prompt_embeds_mask=None,
        true_cfg_scale=SCALE,
        height=8 * size[0],
        width=8 * size[1],
        num_inference_steps=STEPS,
        latents=pack(x),
        output_type="latent",
    ).images
    theirs = unpack(theirs, *size)
    scheduler = pipeline.scheduler
    times = scheduler.timesteps / 1000  # the division is the pipeline's
    scheduler.set_begin_index(0)
    scheduler._step_index = None
    ours = by_scheduler(guided(field, family, null), scheduler, x, condition, times)
    tokens = size[0] * size[1] // 4
    with torch.no_grad():
        mine, unscaled, still = (
            sample(RECTIFIED, [chosen] * STEPS, at, x, condition)
            for chosen, at in (
                (guided(field, family, null), grid(tokens)),
                (Guided(field, SCALE, null, apart=True), grid(tokens)),
                (guided(field, family, null), grid(tokens, last=None)),
            )
        )
    assert off(ours, theirs) == 0.0
    assert off(mine, theirs) < 1e-5
    assert off(unscaled, theirs) > 1e-3  # control: norms not kept
    assert off(still, theirs) > 1e-3  # control: grid not stretched


@pytest.mark.parametrize(("height", "width", "shift"), [(1024, 1024, 2.00), (928, 1664, 2.21)])
def test_the_shift_is_the_schedulers(height, width, shift):
    from diffusers.pipelines.qwenimage.pipeline_qwenimage import calculate_shift

    tokens = height // 16 * (width // 16)
    assert qwen_shift(tokens) == pytest.approx(shift, abs=5e-3)
    assert math.log(qwen_shift(tokens)) == pytest.approx(
        calculate_shift(tokens, 256, 8192, 0.5, 0.9)
    )
    assert math.log(qwen_shift(tokens)) != pytest.approx(calculate_shift(tokens))  # its defaults


def test_weights_of_another_class_are_one_line(tmp_path):
    saved("wan2.1-t2v-14b", tmp_path)
    (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(b"{}")
    with pytest.raises(UserError, match="expected a WanTransformer3DModel"):
        load_velocity(tmp_path, FAMILIES["wan2.1-t2v-14b"], torch.float32)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named_with_their_file(value, tmp_path):
    """A shard with flipped bytes passes every look at sizes."""
    from safetensors.torch import load_file, save_file

    write_tiny("wan2.2-t2v-a14b", tmp_path / "model")
    family = FAMILIES["wan2.2-t2v-a14b"]
    load_velocity(tmp_path / "model", family, torch.bfloat16)  # control
    folder = tmp_path / "model" / "transformer_2"
    shard = sorted(folder.glob("*.safetensors"))[1]
    tensors = load_file(shard)
    key = sorted(tensors)[-1]
    tensors[key].view(-1)[-1] = value
    save_file(tensors, shard, {"format": "pt"})
    with pytest.raises(UserError, match=f"transformer_2/{shard.name}: {key}: not finite: expected"):
        load_velocity(tmp_path / "model", family, torch.bfloat16)


def test_a_text_encoder_whose_weights_are_no_numbers_is_named(tmp_path):
    from safetensors.torch import load_file, save_file

    from pdmd.models.text import FamilyText

    write_tiny("wan2.1-t2v-1.3b", tmp_path / "model")
    family = FAMILIES["wan2.1-t2v-1.3b"]
    FamilyText.load(tmp_path / "model", family)  # control
    shard = sorted((tmp_path / "model" / "text_encoder").glob("*.safetensors"))[0]
    tensors = load_file(shard)
    key = next(key for key, one in tensors.items() if one.ndim == 2)
    tensors[key].view(-1)[0] = float("nan")
    save_file(tensors, shard, {"format": "pt"})
    with pytest.raises(UserError, match=r"text_encoder/.*: not finite: expected numbers"):
        FamilyText.load(tmp_path / "model", family)
