import functools

import pytest
import torch
from tiny import CHANNELS, euler, noise, qwen, qwen_vae, wan, wan_vae

from pdmd.models.experts import Experts
from pdmd.models.lora import add_lora, save_lora
from pdmd.models.qwen import pack

RANK = 4


def trained(network, seed=1):
    """A network with an adapter that has left zero."""
    add_lora(network, RANK, RANK, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            if p.requires_grad:
                p.copy_(0.2 * torch.randn(p.shape, generator=generator))
    return network


def call(network):
    x = noise(2, CHANNELS, 1, 4, 4)
    with torch.no_grad():
        return network(x, torch.tensor([0.3, 0.9]), torch.tensor([0, 1]))


@pytest.mark.parametrize("make", [qwen, wan])
def test_a_new_adapter_changes_nothing_and_a_trained_one_does(make):
    network = make()
    before = call(network)
    add_lora(network, RANK, RANK, 0)
    assert torch.equal(call(network), before)
    assert not torch.allclose(call(trained(make())), before, atol=1e-4)


@pytest.mark.parametrize("make", [qwen, wan])
def test_the_adapter_alone_is_trained_and_stored(make):
    network = trained(make())
    names = {name for name, p in network.named_parameters() if p.requires_grad}
    assert names == set(network.state_dict())
    assert all(".lora_" in name for name in names)
    again = make()
    add_lora(again, RANK, RANK, 5)
    again.load_state_dict(network.state_dict())
    assert torch.equal(call(again), call(network))
    state = dict(network.state_dict())
    state.popitem()
    with pytest.raises(RuntimeError, match="expected its own tensors"):
        again.load_state_dict(state)
    halves = {name: tensor.half() for name, tensor in network.state_dict().items()}
    with pytest.raises(RuntimeError, match=r"expected torch\.float32"):
        again.load_state_dict(halves)


def test_an_adapter_is_a_function_of_its_seed():
    first, same, other = (qwen() for _ in range(3))
    for network, seed in ((first, 1), (same, 1), (other, 2)):
        add_lora(network, RANK, RANK, seed)
    name = next(name for name in first.state_dict() if "lora_A" in name)
    assert torch.equal(first.state_dict()[name], same.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def pipeline_of(network):
    """A pipeline without text encoder around a network's transformer."""
    from diffusers import QwenImagePipeline, WanPipeline

    if network.net.__class__.__name__.startswith("Qwen"):
        made = QwenImagePipeline(euler(3.0), qwen_vae(), None, None, network.net)
    else:
        scheduler = euler(5.0)
        scheduler.set_timesteps = functools.partial(scheduler.set_timesteps, sigmas=[1.0, 0.5])
        made = WanPipeline(None, None, wan_vae(), scheduler, transformer=network.net)
    made.set_progress_bar_config(disable=True)
    return made


def draw(pipeline, told):
    size = {"height": 64, "width": 64, "num_inference_steps": 2, "output_type": "latent"}
    if pipeline.__class__.__name__.startswith("Qwen"):
        latents = pack(noise(1, CHANNELS, 1, 8, 8))
        embeds = told.text[:1, : told.lengths[0]]
        found = pipeline(
            prompt_embeds=embeds, true_cfg_scale=1.0, sigmas=[1.0, 0.5], latents=latents, **size
        )
        return found.images
    latents = noise(1, CHANNELS, 2, 8, 8)
    embeds = told.text[:1]
    found = pipeline(
        prompt_embeds=embeds, guidance_scale=1.0, num_frames=5, latents=latents, **size
    )
    return found.frames


@pytest.mark.parametrize("make", [qwen, wan])
def test_the_pipelines_load_our_adapter_files(make, tmp_path):
    ours = trained(make())
    save_lora(ours, tmp_path)
    mine = draw(pipeline_of(ours), ours.conditions)
    plain = make()
    theirs = pipeline_of(plain)
    without = draw(theirs, plain.conditions)
    theirs.load_lora_weights(tmp_path, weight_name="adapter.safetensors")
    assert torch.equal(draw(theirs, plain.conditions), mine)
    assert not torch.allclose(without, mine, atol=1e-4)  # control: the adapter matters


def test_two_experts_have_an_adapter_each(tmp_path):
    experts = Experts(wan(0), wan(1), 0.875)
    add_lora(experts, RANK, RANK, 0)
    assert {name.split(".")[0] for name in experts.state_dict()} == {"high", "low"}
    save_lora(experts, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "high_noise_model.safetensors",
        "low_noise_model.safetensors",
    ]
