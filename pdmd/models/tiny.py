"""Tiny random models of the released families' own classes, in folders as the hub has them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from pdmd.errors import UserError
from pdmd.models.families import FAMILIES, Family

WIDTH, VOCABULARY = 32, 300  # of text rows; of a tokenizer of bytes, with room for special tokens
SPREAD = 0.2  # deviation of random weights: velocities depend visibly on x, t and text
SHARD = "40KB"  # of the transformers' files, so that an index names several
WAN_SHIFTS = {"wan2.2-t2v-a14b": 12.0, "wan2.2-i2v-a14b": 5.0}  # as released; else 3
TINY: dict[str, dict[str, Any]] = {  # what the tiny transformers have of their own
    "qwen": {
        "num_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": WIDTH,
        "axes_dims_rope": (8, 4, 4),
    },
    "wan": {
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "text_dim": WIDTH,
        "freq_dim": 32,
        "ffn_dim": 32,
        "num_layers": 2,
        "rope_max_seq_len": 64,
    },
}
VAE = {
    "z_dim": 16,
    "dim_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
}


def write_tiny(name: str, folder: Path, seed: int = 0) -> None:
    """Write a tiny random model of a family; its weights are a function of `seed`.

    It has every part that the released one has, and is written beside and renamed once.

    Raises:
        UserError: there is no such family, or something is in the folder already: it may be a
            user's own, and is left alone.
    """
    if name not in FAMILIES:
        raise UserError(f"family: {name}: expected one of {', '.join(FAMILIES)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: there already: expected a folder that is new, or empty")
    family = FAMILIES[name]
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = _qwen() if family.kind == "qwen" else _wan(name, family)
    pipeline.save_pretrained(beside, max_shard_size=SHARD)
    beside.rename(folder)  # in the place of an empty folder, too


def tiny_architecture(family: Family) -> dict[str, Any]:
    """The architecture of a family's tiny transformers."""
    return {**family.architecture, **TINY[family.kind]}


def _qwen() -> Any:
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImagePipeline,
        QwenImageTransformer2DModel,
    )

    scheduler = FlowMatchEulerDiscreteScheduler(
        base_image_seq_len=256,
        base_shift=0.5,
        max_image_seq_len=8192,
        max_shift=0.9,
        shift_terminal=0.02,
        use_dynamic_shifting=True,
    )
    transformer = QwenImageTransformer2DModel(**tiny_architecture(FAMILIES["qwen-image"]))
    vae: Any = AutoencoderKLQwenImage(base_dim=8, **VAE)
    return QwenImagePipeline(scheduler, vae, _qwen_encoder(), _tokenizer(), _random(transformer))


def _wan(name: str, family: Family) -> Any:
    import diffusers
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel

    def transformer() -> Any:
        return _random(WanTransformer3DModel(**tiny_architecture(family)))

    vae: Any = AutoencoderKLWan(base_dim=4, **VAE)
    more: dict[str, Any] = {}
    if family.image_channels:
        more = {"image_encoder": None, "image_processor": None}
    return getattr(diffusers, family.pipeline)(
        tokenizer=_tokenizer(),
        text_encoder=_wan_encoder(),
        vae=vae,
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            num_train_timesteps=1000,
            flow_shift=WAN_SHIFTS.get(name, 3.0),
        ),
        transformer=transformer(),
        transformer_2=transformer() if family.experts == 2 else None,
        boundary_ratio=family.boundary,
        **more,
    )


@torch.no_grad()
def _random(network: Any) -> Any:
    """Give every weight a value, so that none is zero by construction."""
    for name, p in network.named_parameters():
        draw = SPREAD * torch.randn(p.shape)
        p.copy_(1 + draw if "norm" in name and name.endswith("weight") else draw)
    return network


def _wan_encoder() -> Any:
    from transformers import UMT5Config, UMT5EncoderModel

    settings: Any = {
        "vocab_size": VOCABULARY,
        "d_model": WIDTH,
        "d_kv": 8,
        "d_ff": 37,
        "num_layers": 2,
        "num_heads": 4,
        "relative_attention_num_buckets": 8,
        "dropout_rate": 0.0,
        "tie_word_embeddings": False,
    }
    return UMT5EncoderModel(UMT5Config(**settings)).eval()


def _qwen_encoder() -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text: Any = {
        "hidden_size": WIDTH,
        "intermediate_size": 37,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 4096,
        "rope_parameters": {
            "mrope_section": [2, 3, 3],
            "rope_type": "default",
            "rope_theta": 1e6,
        },
    }
    vision: Any = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "fullatt_block_indexes": [0],
    }
    special = [
        *("video_token_id", "vision_start_token_id", "vision_end_token_id"),
        *("vision_token_id", "image_token_id"),
    ]
    numbers: Any = {name: VOCABULARY - 5 + i for i, name in enumerate(special)}
    config: Any = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **numbers)
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def _tokenizer() -> Any:
    """A tokenizer of bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<pad>", "</s>", *letters])}
    made: Any = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", padding_side="right"
    )
