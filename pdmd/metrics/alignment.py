"""How well pictures fit their prompts: CLIP score through clip-anytorch."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pdmd.errors import UserError
from pdmd.files.digests import check_recorded
from pdmd.files.storage import reading, shown
from pdmd.metrics import checks
from pdmd.networks.small_clip import prepare

CHUNK = 256


@cache
def load_clip(name: str, device: torch.device | str = "cpu") -> Any:
    """CLIP by the name of OpenAI's weights ("ViT-B/32", fetched once) or from a local file.

    It computes in float32 on every device: clip itself would halve its precision on a GPU.

    Raises:
        UserError: no such name or file, or no CLIP in it; names it.
    """
    import clip

    expected = "CLIP's weights, as `pdmd clip` writes them, or the name of OpenAI's"
    if name not in clip.available_models() and not Path(name).is_file():
        raise UserError(f"{name}: no such file: expected {expected}")
    check_recorded(Path(name))
    with reading(name, expected), warnings.catch_warnings():
        # clip.load tries a TorchScript archive before it takes the file for a state dict
        warnings.filterwarnings("ignore", ".*torch.jit.load.*", FutureWarning)
        model, _ = clip.load(name, device="cpu", jit=False)
    if Path(name).is_file():
        _check_own(name, model, expected)
    return model.eval().to(device)


def _check_own(name: str, model: Any, expected: str) -> None:
    """Refuse what clip took without a word: other dtypes, no numbers, bytes that have changed."""
    with reading(name, expected), zipfile.ZipFile(name) as archive:
        if (bad := archive.testzip()) is not None:  # torch itself does not look
            raise ValueError(f"{bad} does not match its checksum")
    for key, p in model.named_parameters():
        if not bool(torch.isfinite(p).all()):
            raise UserError(f"{name}: {key}: not finite: expected {expected}")
    try:
        state = torch.load(name, map_location="cpu", weights_only=True)
    except RuntimeError:  # OpenAI's own are TorchScript, whose dtypes are as they were trained
        return
    for key, tensor in state.items():
        if not tensor.is_floating_point() and key in dict(model.named_parameters()):
            raise UserError(f"{name}: {key}: {shown(tensor.dtype)}: expected {expected}")


def clip_score(name: str, pictures: Tensor, texts: Sequence[str]) -> float:
    """Mean of 100 max(cosine, 0) between pictures and their texts; arguments as of clip_cosines."""
    return score_of_cosines(clip_cosines(name, pictures, texts))


@torch.no_grad()
def clip_cosines(
    name: str, pictures: Tensor, texts: Sequence[str], device: torch.device | str = "cpu"
) -> Tensor:
    """Cosine of CLIP's features of each picture and its text, (N,).

    Args:
        name: of the weights, or their file; pictures: (N, 3, H, W) in [-1, 1]; texts: N of them;
        device: that CLIP computes on.
    Raises:
        UserError: a picture, or a feature of one, is not finite; not as many texts as pictures.
    """
    pictures = checks.pictures("clip", pictures, 4).float()
    if len(texts) != len(pictures):
        raise UserError(f"clip: {len(texts)} texts: expected {len(pictures)}, one a picture")
    image, distinct = clip_features(name, pictures, device), list(dict.fromkeys(texts))
    text = text_features(name, distinct, device)
    where = {words: row for row, words in enumerate(distinct)}
    of_rows = text[[where[words] for words in texts]]
    return _cosines(image, of_rows)


@torch.no_grad()
def clip_features(name: str, pictures: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """CLIP's features of pictures (N, 3, H, W) in [-1, 1], (N, E); name: as of clip_cosines.

    Args:
        device: that it computes on; features come back to the CPU.
    """
    model = load_clip(name, device)
    size = model.visual.input_resolution
    parts = [
        model.encode_image(prepare(part, size).to(device)).cpu() for part in pictures.split(CHUNK)
    ]
    return torch.cat(parts).float()


@torch.no_grad()
def text_features(name: str, texts: Sequence[str], device: torch.device | str = "cpu") -> Tensor:
    """CLIP's features of texts, (N, E); arguments as of clip_cosines."""
    from clip import tokenize

    model = load_clip(name, device)
    tokens = tokenize(list(texts), context_length=model.context_length, truncate=True)
    return torch.as_tensor(model.encode_text(tokens.to(device)).cpu()).float()


def score_of_features(image: Tensor, text: Tensor) -> float:
    """Mean of 100 max(cosine, 0) between CLIP's features of pictures and of their texts, (N, D)."""
    return score_of_cosines(_cosines(image, text))


def score_of_cosines(cosine: Tensor) -> float:
    """Mean of 100 max(cosine, 0), (N,), of pictures and their texts (Hessel et al. 2021, w = 1)."""
    return min(100.0, float(100 * cosine.clamp_min(0).mean()))


def _cosines(image: Tensor, text: Tensor) -> Tensor:
    image, text = checks.features("clip", image), checks.features("clip", text, what="texts")
    checks.same_width("clip", text, image, "texts")
    return functional.cosine_similarity(image, text, dim=-1)
