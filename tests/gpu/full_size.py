"""Updates of a released architecture with random weights: seconds and peak memory.

python tests/gpu/full_size.py wan2.1-t2v-1.3b            # 81x480x832, LoRA of rank 64
python tests/gpu/full_size.py wan2.2-a14b-expert
python tests/gpu/full_size.py wan2.2-a14b --offload     # both experts, one at a time on the GPU
python tests/gpu/full_size.py qwen-image
"""

import argparse
import json
import sys
import time

import torch

from pdmd.config.sections import Average, Fake, latent_size, parse_size
from pdmd.distill import PhaseTrainer, Recipe
from pdmd.flow import RECTIFIED
from pdmd.models.adapters import MARK, SharedBase, checkpoint_activations, idle_tensors
from pdmd.models.base import Guided, Prompted
from pdmd.models.experts import Experts
from pdmd.models.offload import take_turns
from pdmd.models.qwen import QwenVelocity, rescale_guidance
from pdmd.models.wan import WanVelocity
from pdmd.phases import split_phases
from pdmd.roles import Roles
from pdmd.starts import BankStarts, NoiseStarts
from pdmd.training.world import World

WAN = {"text_dim": 4096, "cross_attn_norm": True, "qk_norm": "rms_norm_across_heads"}
MODELS = {  # as in the released config.json files
    "wan2.1-t2v-1.3b": dict(WAN, num_attention_heads=12, ffn_dim=8960, num_layers=30),
    "wan2.2-a14b-expert": dict(WAN, num_attention_heads=40, ffn_dim=13824, num_layers=40),
    "qwen-image": {"num_layers": 60, "num_attention_heads": 24, "joint_attention_dim": 3584},
    "tiny": dict(WAN, num_attention_heads=2, attention_head_dim=12, ffn_dim=32, num_layers=2),
}
MODELS |= {"wan2.2-a14b": MODELS["wan2.2-a14b-expert"], "tiny-experts": MODELS["tiny"]}
BOUNDARY = {"wan2.2-a14b": 0.875, "tiny-experts": 0.875}  # of models of two experts
SIZES = {"qwen-image": "1x1024x1024", "tiny": "9x32x48", "tiny-experts": "9x32x48"}
TEXT = {"qwen": 120, "wan": 512}


def velocity(name, device, dtype, home=None):
    """The architecture with random weights, made on the device in its own precision.

    Args:
        home: where experts go once they are made, one after the other; they stay where it is None.
    """
    if name in BOUNDARY:
        high, low = (_one(name, device, dtype).to(home or device) for _ in range(2))
        return Experts(high, low, BOUNDARY[name])
    return _one(name, device, dtype)


def _one(name, device, dtype):
    from diffusers import QwenImageTransformer2DModel, WanTransformer3DModel

    qwen = name.startswith("qwen")
    kind = QwenImageTransformer2DModel if qwen else WanTransformer3DModel
    with torch.device(device):
        torch.set_default_dtype(dtype)
        try:
            net = kind(**MODELS[name])
        finally:
            torch.set_default_dtype(torch.float32)
    return (QwenVelocity if qwen else WanVelocity)(net)


def texts(name, device):
    """One random prompt, and what gives every sample of a batch the same."""
    kind = "qwen" if name.startswith("qwen") else "wan"
    width = MODELS[name].get("joint_attention_dim") or MODELS[name]["text_dim"]
    text = torch.randn(1, TEXT[kind], width, generator=torch.Generator().manual_seed(0))
    text = text.to(device, torch.bfloat16)
    lengths = torch.tensor([TEXT[kind]], device=device)

    def prompts(count):
        return Prompted(text.expand(count, -1, -1), lengths.expand(count))

    return prompts


def recipe(batch, region):
    """The recipe of config/scenarios/wan22t2v.yaml."""
    return Recipe(
        updates=1000,
        batch=batch,
        fake_updates=5,
        generator_lr=5e-5,
        fake_lr=5e-5,
        decay=1.0,
        betas=(0.0, 0.999),
        weight_decay=0.01,
        clip=1.0,
        average=Average(law="power"),
        budget="expert",
        rollout="fresh",
        target="unbiased",
        gradient="normalised",
        normaliser="sample",
        region=region,
        fake=Fake(mode="lora"),
        microbatch=1,
        checkpointing=True,
        backward="exit",
        exits="stratified",
    )


def trainer(name, size, device, dtype, rank=64, batch=2, offload=False):
    """Phase 1 of two, every role an adapter on one base; a sample at a time through networks.

    Args:
        offload: of two experts, keep the idle one's base in main memory.

    Of a model of two experts phase 2, from a bank: its generator is the low-noise expert, scores
    are matched at both, and an update noises samples to the side of one of them.
    """
    network = velocity(name, device, dtype, "cpu" if offload else None)
    prompts = texts(name, device)
    turns = take_turns(network, torch.device(device)) if offload else None
    shared = SharedBase(network, rank, max(1, rank // 8))
    checkpoint_activations(network)
    both = name in BOUNDARY
    phases = split_phases(4, (2, 4), 5.0, "nested", 0.001, BOUNDARY.get(name, 0.0))
    phase, rescale = phases[both], rescale_guidance if name.startswith("qwen") else None
    adapters = (
        shared.add("fake", 0, True, phase.scored if both else None),
        shared.add("generator", 0, True, phase.called if both else None),
        shared.add("average", 0, experts=phase.called if both else None),
    )
    roles = Roles(
        Guided(shared.plain(), 4.0, prompts(1), rescale=rescale, apart=True),
        *adapters,
        frozen=turns or {key: p for key, p in network.named_parameters() if MARK not in key},
        idle=idle_tensors(network),
    )
    shape = (16, *latent_size(parse_size(size)))
    starts = NoiseStarts(RECTIFIED, [], phase.times, shape, lambda _, count: prompts(count), 1)
    if both:
        bank = torch.randn(2, 1, *shape, generator=torch.Generator().manual_seed(1)).to(device)
        starts = BankStarts(bank, torch.zeros(2, 1).long(), lambda index: prompts(len(index)))
    world = World(device=torch.device(device))
    wanted = recipe(batch, "update" if both else "row")
    return PhaseTrainer(RECTIFIED, phase, wanted, roles, starts, [1], world)


def measure(name, size=None, device="cuda", dtype=torch.bfloat16, updates=3, **options):
    """Seconds of each update, by role, and the GPU's peak memory in GiB."""
    size = size or SIZES.get(name, "81x480x832")
    made = trainer(name, size, device, dtype, **options)
    seconds = []
    for step in range(updates):
        start = time.perf_counter()
        made.update(step)
        seconds.append(round(time.perf_counter() - start, 3))
    found = {"model": name, "size": size, "batch": made.recipe.batch, "seconds": seconds}
    found["by_role"] = {role: round(value, 3) for role, value in made.cost.seconds.items()}
    found["forwards"] = dict(made.cost.forwards)
    if device == "cuda":
        found["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        found["device"] = torch.cuda.get_device_name()
    return found


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("model", choices=MODELS)
    options.add_argument("--size")
    options.add_argument("--updates", type=int, default=3)
    options.add_argument("--device", default="cuda")
    options.add_argument("--offload", action="store_true", help="the idle one of two experts")
    given = options.parse_args()
    found = measure(
        given.model, given.size, given.device, updates=given.updates, offload=given.offload
    )
    json.dump(found, sys.stdout)
    print()
