import pytest
import torch
from tiny import CHANNELS, NULL, QWEN, euler, noise, prompts, qwen, qwen_vae, space

from pdmd.flow import RECTIFIED
from pdmd.models.base import Guided
from pdmd.models.qwen import build_qwen, pack, rescale_guidance, unpack
from pdmd.phases import step_grid
from pdmd.rollout import sample

SIDE = 8  # of latents: 64 pixels
STEPS, SHIFT = 4, 3.0


def by_pipeline(network, prompt, scale=1.0):
    """The latents (1, C, 1, H, W) of QwenImagePipeline from the same noise and embeddings."""
    from diffusers import QwenImagePipeline

    scheduler = euler(SHIFT)
    pipeline = QwenImagePipeline(scheduler, qwen_vae(), None, None, network.net)
    pipeline.set_progress_bar_config(disable=True)
    embeds = {"prompt_embeds": prompts(prompt, padded=None).text}
    if scale != 1:
        embeds["negative_prompt_embeds"] = prompts(3, padded=None).text
        embeds["negative_prompt_embeds_mask"] = None
    raw = [1 - i / STEPS for i in range(STEPS)]
    scheduler.register_to_config(use_dynamic_shifting=False)
    latents = pipeline(
        **embeds,
        true_cfg_scale=scale,
        height=8 * SIDE,
        width=8 * SIDE,
        num_inference_steps=STEPS,
        sigmas=raw,
        latents=pack(noise(1, CHANNELS, 1, SIDE, SIDE)),
        output_type="latent",
    ).images
    return unpack(latents, SIDE, SIDE)


def by_us(field, prompt, shift=SHIFT):
    x, times = noise(1, CHANNELS, 1, SIDE, SIDE), step_grid(STEPS, shift)
    with torch.no_grad():
        return sample(RECTIFIED, [field] * STEPS, times, x, prompts(prompt))


@pytest.mark.parametrize("prompt", [0, 1, 2])
def test_samples_are_the_pipelines(prompt):
    network = qwen()
    theirs = by_pipeline(network, prompt)
    assert torch.allclose(by_us(network, prompt), theirs, atol=2e-6, rtol=0)
    assert not torch.allclose(by_us(network, (prompt + 1) % 3), theirs, atol=1e-3)  # control
    assert not torch.allclose(by_us(network, prompt, shift=2.0), theirs, atol=1e-3)  # control


def test_guided_samples_are_the_pipelines():
    network = qwen()
    theirs = by_pipeline(network, 0, scale=4.0)
    assert torch.allclose(
        by_us(Guided(network, 4.0, NULL, rescale=rescale_guidance), 0), theirs, atol=1e-5, rtol=0
    )
    plain = by_us(Guided(network, 4.0, NULL), 0)
    assert not torch.allclose(plain, theirs, atol=1e-3)  # control: guidance without rescaling


def test_packing_is_a_permutation():
    x = noise(2, CHANNELS, 1, 6, 4)
    assert torch.equal(unpack(pack(x), 6, 4), x)
    assert not torch.equal(pack(x), pack(x.flip(-1)))  # control


def test_padding_is_invisible():
    network, x, t = qwen(), noise(2, CHANNELS, 1, 4, 4), torch.tensor([0.3, 0.8])
    together = network(x, t, prompts(0, 1))  # lengths 7 and 5: the second is padded
    alone = network(x[1:], t[1:], prompts(1))
    assert torch.allclose(together[1:], alone, atol=1e-6)
    other = prompts(1)
    other.text[0, 4] += 1  # control: a valid row counts
    assert not torch.allclose(network(x[1:], t[1:], other), alone, atol=1e-4)


def test_weights_are_a_function_of_the_seed():
    one, same, other = (build_qwen(QWEN, space(), seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_network_of_text_needs_prompts():
    with pytest.raises(ValueError, match="expected text"):
        qwen()(noise(1, CHANNELS, 1, 4, 4), torch.ones(1), None)
