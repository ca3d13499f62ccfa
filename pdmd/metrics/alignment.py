"""How well pictures fit their prompts: CLIP score through clip-anytorch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pdmd.networks.small_clip import prepare

CHUNK = 256


@cache
def load_clip(name: str) -> Any:
    """CLIP by the name of OpenAI's weights ("ViT-B/32", fetched once) or from a local file."""
    import clip

    with warnings.catch_warnings():
        # clip.load tries a TorchScript archive before it takes the file for a state dict
        warnings.filterwarnings("ignore", ".*torch.jit.load.*", FutureWarning)
        model, _ = clip.load(name, device="cpu", jit=False)
    return model.eval()


@torch.no_grad()
def clip_score(name: str, pictures: Tensor, texts: Sequence[str]) -> float:
    """Mean of 100 max(cosine, 0) between pictures and their texts (Hessel et al. 2021, w = 1).

    Args:
        name: of the weights, or their file; pictures: (N, 3, H, W) in [-1, 1]; texts: N of them.
    """
    from clip import tokenize

    model = load_clip(name)
    size, context = model.visual.input_resolution, model.context_length
    image = torch.cat([model.encode_image(prepare(p, size)) for p in pictures.split(CHUNK)])
    distinct = list(dict.fromkeys(texts))
    text = model.encode_text(tokenize(distinct, context_length=context, truncate=True))
    where = {words: row for row, words in enumerate(distinct)}
    mine = text[[where[words] for words in texts]]
    cosine = functional.cosine_similarity(image, mine, dim=-1)
    return float(100 * cosine.clamp_min(0).mean())
