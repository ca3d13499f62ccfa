"""LoRA adapters on the transformers, trained and stored alone, in diffusers' own format."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pdmd.models.base import VelocityNetwork
from pdmd.models.experts import Experts
from pdmd.models.qwen import QwenVelocity

# Attention and MLPs, no modulation, as in the released Lightning adapters (Qwen-Image-Lightning).
QWEN_TARGETS = [
    *("to_q", "to_k", "to_v", "to_out.0"),
    *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    *("img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"),
]
WAN_TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]
MARK = ".lora_"


def transformers_of(network: VelocityNetwork) -> list[Any]:
    """The diffusers models inside a network: one, or the high- and the low-noise expert's."""
    if isinstance(network, Experts):
        return [*transformers_of(network.high), *transformers_of(network.low)]
    return [network.net]


def add_lora(network: VelocityNetwork, rank: int, alpha: int, seed: int) -> None:
    """Put a new adapter on every transformer of a network, and train nothing else.

    It starts as the identity (B = 0), A is a function of `seed`. From now on the network's state
    dict is the adapter's alone, and only that is accepted again.
    """
    from peft import LoraConfig

    for number, net in enumerate(transformers_of(network)):
        qwen = type(net).__name__.startswith("Qwen")
        targets = QWEN_TARGETS if qwen else WAN_TARGETS
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + number)
            net.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets))
    for name, p in network.named_parameters():
        p.requires_grad_(MARK in name)
    network.register_state_dict_post_hook(_keep_adapter)
    network.load_state_dict = functools.partial(_load_adapter, network)  # type: ignore[method-assign]


def _keep_adapter(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in [name for name in state if MARK not in name]:
        del state[name]


def _load_adapter(network: VelocityNetwork, state: Mapping[str, Tensor]) -> None:
    """Take exactly the adapter's tensors. Raises RuntimeError for others, missing or misshapen."""
    wanted = {name: p for name, p in network.named_parameters() if MARK in name}
    if state.keys() != wanted.keys():
        odd = sorted(state.keys() ^ wanted.keys())
        raise RuntimeError(f"adapter: {odd[0]} and {len(odd) - 1} more: expected its own tensors")
    with torch.no_grad():
        for name, p in wanted.items():
            if (p.shape, p.dtype) != (state[name].shape, state[name].dtype):
                raise RuntimeError(f"adapter: {name}: expected {p.dtype} {tuple(p.shape)}")
            p.copy_(state[name])


def save_lora(network: VelocityNetwork, folder: Path, name: str = "adapter.safetensors") -> None:
    """Write a network's adapter as QwenImagePipeline and WanPipeline load it.

    Two experts give high_noise_model.safetensors and low_noise_model.safetensors.
    """
    from diffusers import QwenImagePipeline, WanPipeline
    from peft.utils import get_peft_model_state_dict

    if isinstance(network, Experts):
        save_lora(network.high, folder, "high_noise_model.safetensors")
        save_lora(network.low, folder, "low_noise_model.safetensors")
        return
    net: Any = network.net
    config = net.peft_config["default"].to_dict()
    told = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
    pipeline: Any = QwenImagePipeline if isinstance(network, QwenVelocity) else WanPipeline
    pipeline.save_lora_weights(
        folder,
        transformer_lora_layers=get_peft_model_state_dict(net),
        weight_name=name,
        transformer_lora_adapter_metadata=told,
    )
