"""A small CLIP of clip-anytorch's own class, trained on emoji and words; `clip.load` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pdmd.data.prompts import with_article
from pdmd.scenarios.kind import kinds
from pdmd.scenarios.sprites import STYLES, categories, nouns, place, sprite
from pdmd.streams import Stream

PX, SPRITE, BATCH = 32, 96, 64
CONTEXT = 16  # tokens of a text, start and end included
SIZES = {
    "embed_dim": 64,
    "image_resolution": PX,
    "vision_layers": 2,
    "vision_width": 128,
    "vision_patch_size": 8,
    "context_length": CONTEXT,
    "vocab_size": 49408,
    "transformer_width": 64,
    "transformer_heads": 1,
    "transformer_layers": 2,
}
TRAINED = ("{a}", "a picture of {a}", "{n} emoji", "a drawing of {a}")
UNSEEN = "an image of {a}"
WORDINGS = (*TRAINED, UNSEEN)
EMBEDDING = "token_embedding.weight"
CATEGORY_SHARE = 0.2  # of captions that name the category alone
LR, WARMUP = 1e-3, 50
JITTERS = 12  # pictures of each sprite that it is trained on
MEAN = (0.48145466, 0.4578275, 0.40821073)  # of clip's own preprocessing
STD = (0.26862954, 0.26130258, 0.27577711)


def prepare(pictures: Tensor, size: int) -> Tensor:
    """(N, 3, H, W) in [-1, 1] -> as clip's own preprocessing gives them, (N, 3, size, size)."""
    x = functional.interpolate(
        (pictures.clamp(-1, 1) + 1) / 2, (size, size), mode="bicubic", antialias=True
    )
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (x - mean) / std


@dataclass(frozen=True)
class Objects:
    """What the small CLIP is trained on.

    Attributes:
        sprites: (objects, styles, 4, S, S); nouns: words for each object;
        groups: (objects,) category of each; group_nouns: words for each category.
    """

    sprites: Tensor
    nouns: list[str]
    groups: Tensor
    group_nouns: list[str]

    def pictures(self, rows: Tensor, styles: Tensor, stream: Stream) -> Tensor:
        """(N, 3, 32, 32): jittered pictures of some objects on light or dark grounds."""
        n = len(rows)
        scale, angle = 0.6 + 0.36 * stream.uniform(n), 16 * stream.uniform(n) - 8
        dx, dy = (6 * stream.uniform(n) - 3 for _ in range(2))
        shade = torch.where(stream.uniform(n) < 0.7, 0.96, 0.12)[:, None].expand(n, 3)
        return place(self.sprites[rows, styles], PX, scale, dx, dy, shade, angle)

    def caption(self, row: int, wording: int, of_group: bool) -> str:
        """One trained wording of an object, or of its category."""
        noun = self.group_nouns[int(self.groups[row])] if of_group else self.nouns[row]
        return TRAINED[wording].format(a=with_article(noun), n=noun)


def load_objects() -> Objects:
    """Every object of the art in its four styles."""
    names, known = list(nouns()), categories()
    titles = sorted(set(known.values()))
    sprites = [torch.stack([sprite(n, style, SPRITE) for style in STYLES]) for n in names]
    groups = torch.tensor([titles.index(known[name]) for name in names])
    return Objects(torch.stack(sprites), [nouns()[n] for n in names], groups, titles)


def train_small_clip(updates: int) -> tuple[nn.Module, dict[str, float]]:
    """Train on all objects and state how well held-out pictures find unseen wordings.

    Symmetric contrastive loss; texts that are right for another picture of the batch do not count
    against it.

    Returns:
        the model, its weights rounded to the half precision that `clip.load` gives them, rows of
        words in no prompt of ours 0, and retrieval accuracy R@1 and R@5 over all objects, on
        jitters never trained on.
    """
    from clip.model import CLIP

    torch.set_num_threads(1)
    objects = load_objects()
    pool = picture_pool(objects, JITTERS, Stream([0], 0, "clip pictures"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = CLIP(**SIZES)
    optimizer = torch.optim.AdamW(model.parameters(), LR, weight_decay=0.05, fused=True)
    for step in range(updates):
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1.0, (step + 1) / WARMUP) * (1 - step / updates)
        loss = contrastive_loss(model, objects, pool, Stream([0], step, "clip"))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.half().float())
        known = known_tokens()
        rows = model.token_embedding.weight[known].clone()
        model.token_embedding.weight.zero_().index_copy_(0, known, rows)
    model.eval().requires_grad_(False)
    return model, heldout_retrieval(model, objects)


def known_tokens() -> Tensor:
    """(K,) tokens, rising, of the texts it is trained and tried on, and of all rooms' prompts."""
    from clip import tokenize

    objects = load_words()
    texts = [wording.format(a=with_article(n), n=n) for n in objects for wording in WORDINGS]
    for kind in kinds().values():
        if kind.prompted is not None and kind.prompted.stratum is not None:  # known beforehand
            prompts: Any = kind.prompted.prompts
            texts += [prompt.text for prompt in prompts()]
    known: Tensor = tokenize(texts, CONTEXT, truncate=True).unique()
    return known


def load_words() -> list[str]:
    """Every noun, and every category, of the art."""
    return [*nouns().values(), *sorted(set(categories().values()))]


def picture_pool(objects: Objects, jitters: int, stream: Stream) -> Tensor:
    """(objects, styles, jitters, 3, 32, 32), prepared: drawn once, since drawing costs most."""
    count, styles = objects.sprites.shape[:2]
    rows = torch.arange(count).repeat_interleave(styles * jitters)
    which = torch.arange(styles).repeat_interleave(jitters).repeat(count)
    pictures = prepare(objects.pictures(rows, which, stream), PX)
    return pictures.view(count, styles, jitters, 3, PX, PX)


def contrastive_loss(model: Any, objects: Objects, pool: Tensor, stream: Stream) -> Tensor:
    """InfoNCE on a batch of different objects."""
    from clip import tokenize

    order = stream.uniform(len(objects.nouns)).argsort()[:BATCH]
    styles, wording = stream.integers(len(order), 4), stream.integers(len(order), len(TRAINED))
    of_group = stream.uniform(len(order)) < CATEGORY_SHARE
    texts = [
        objects.caption(int(row), int(words), bool(group))
        for row, words, group in zip(order, wording, of_group, strict=True)
    ]
    pictures = pool[order, styles, stream.integers(len(order), pool.shape[2])]
    image = functional.normalize(model.encode_image(pictures), dim=-1)
    text = functional.normalize(model.encode_text(tokenize(texts, CONTEXT)), dim=-1)
    logits = model.logit_scale.exp().clamp(max=100) * image @ text.T
    groups = objects.groups[order]
    also_right = (groups[:, None] == groups) & of_group & ~torch.eye(len(order), dtype=torch.bool)
    logits = logits.masked_fill(also_right, -1e4)
    target = torch.arange(len(order))
    return (
        functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)
    ) / 2


def heldout_retrieval(model: Any, objects: Objects) -> dict[str, float]:
    """R@1 and R@5 from picture to text among all objects, unseen jitter and wording."""
    from clip import tokenize

    rows = torch.arange(len(objects.nouns)).repeat_interleave(len(STYLES))
    styles = torch.arange(len(STYLES)).repeat(len(objects.nouns))
    pictures = prepare(objects.pictures(rows, styles, Stream([0], 0, "held out")), PX)
    texts = [UNSEEN.format(a=with_article(noun)) for noun in objects.nouns]
    with torch.no_grad():
        image, text = model.encode_image(pictures), model.encode_text(tokenize(texts, CONTEXT))
    return {
        "heldout_r1": retrieval_accuracy(image, text, rows, 1),
        "heldout_r5": retrieval_accuracy(image, text, rows, 5),
        "objects": float(len(texts)),
    }


def retrieval_accuracy(image: Tensor, text: Tensor, truth: Tensor, k: int) -> float:
    """Share of pictures (N, D) whose text, row truth (N,) of (M, D), is among the k nearest."""
    score = functional.normalize(image, dim=-1) @ functional.normalize(text, dim=-1).T
    return float((score.topk(k, 1).indices == truth[:, None]).any(1).double().mean())
