import functools

import pytest
import torch
from tiny import (
    CHANNELS,
    NULL,
    WAN,
    euler,
    noise,
    prompts,
    randomise,
    space,
    wan,
    wan_vae,
)

from pdmd.data.codec import first_frame_condition
from pdmd.flow import RECTIFIED
from pdmd.models.base import Guided
from pdmd.models.build import warm_start
from pdmd.models.experts import Experts
from pdmd.models.wan import build_wan
from pdmd.phases import step_grid
from pdmd.rollout import sample

FRAMES, SIDE = 3, 4  # of latents: 9 frames of 32 pixels
STEPS, SHIFT = 4, 5.0


def by_pipeline(high, prompt, scale=1.0, low=None, boundary=None):
    """The latents of WanPipeline from the same noise and embeddings."""
    from diffusers import WanPipeline

    scheduler = euler(SHIFT)
    raw = [1 - i / STEPS for i in range(STEPS)]
    scheduler.set_timesteps = functools.partial(scheduler.set_timesteps, sigmas=raw)
    pipeline = WanPipeline(
        None,
        None,
        wan_vae(),
        scheduler,
        transformer=high.net,
        transformer_2=None if low is None else low.net,
        boundary_ratio=boundary,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompt_embeds=prompts(prompt).text,
        negative_prompt_embeds=NULL.text,
        guidance_scale=scale,
        height=8 * SIDE,
        width=8 * SIDE,
        num_frames=4 * (FRAMES - 1) + 1,
        num_inference_steps=STEPS,
        latents=noise(1, CHANNELS, FRAMES, SIDE, SIDE),
        output_type="latent",
    ).frames


def by_us(field, prompt, shift=SHIFT):
    x, times = noise(1, CHANNELS, FRAMES, SIDE, SIDE), step_grid(STEPS, shift)
    with torch.no_grad():
        return sample(RECTIFIED, [field] * STEPS, times, x, prompts(prompt))


def test_samples_are_the_pipelines():
    network = wan()
    theirs = by_pipeline(network, 0)
    assert torch.allclose(by_us(network, 0), theirs, atol=2e-6, rtol=0)
    assert not torch.allclose(by_us(network, 1), theirs, atol=1e-3)  # control
    assert not torch.allclose(by_us(network, 0, shift=3.0), theirs, atol=1e-3)  # control


def test_guided_samples_are_the_pipelines():
    network = wan()
    theirs = by_pipeline(network, 0, scale=4.0)
    assert torch.allclose(by_us(Guided(network, 4.0, NULL), 0), theirs, atol=1e-5, rtol=0)
    assert not torch.allclose(by_us(network, 0), theirs, atol=1e-3)  # control


def test_two_experts_sample_as_the_pipeline_does():
    high, low = wan(0), wan(1)
    theirs = by_pipeline(high, 0, low=low, boundary=0.875)
    assert torch.allclose(by_us(Experts(high, low, 0.875), 0), theirs, atol=2e-6, rtol=0)
    for wrong in (0.7, 0.95):  # controls: another step goes to the other expert
        assert not torch.allclose(by_us(Experts(high, low, wrong), 0), theirs, atol=1e-3)


def test_a_first_frame_is_concatenated_as_wan_has_it():
    images = first_frame_condition(noise(2, CHANNELS, FRAMES, SIDE, SIDE))
    assert images.shape[1] == 4 + CHANNELS
    assert bool((images[:, :4, 0] == 1).all())
    assert bool((images[:, :4, 1:] == 0).all())
    network = wan(images=images)
    assert network.net.config.in_channels == 36
    x, t = noise(2, CHANNELS, FRAMES, SIDE, SIDE), torch.tensor([0.4, 0.9])
    pairs = prompts([0, 1], [2, 0], images=images)
    theirs = network.net(
        torch.cat([x, images[[1, 0]]], 1), 1000 * t, prompts(0, 2).text, return_dict=False
    )[0]
    assert torch.equal(network(x, t, pairs), theirs)
    assert not torch.equal(network(x, t, prompts([0, 0], [2, 1], images=images)), theirs)  # control


@pytest.mark.parametrize("twin", ["image", "experts"])
def test_a_warm_start_is_the_same_function(twin):
    small = wan()
    state = small.state_dict()
    x, t = noise(2, CHANNELS, FRAMES, SIDE, SIDE), torch.tensor([0.4, 0.9])
    if twin == "image":
        images = first_frame_condition(noise(2, CHANNELS, FRAMES, SIDE, SIDE))
        large = randomise(build_wan(WAN, space(images), 0), 9)
        condition = prompts([0, 0], [1, 1], images=images)
    else:
        large = Experts(wan(8), wan(9), 0.875)
        condition = prompts(0, 1)
    before = large(x, t, condition)
    warm_start(large, state, "teacher")
    after, wanted = large(x, t, condition), small(x, t, prompts(0, 1))
    assert torch.allclose(after, wanted, atol=1e-6)
    assert not torch.allclose(before, wanted, atol=1e-3)  # control
