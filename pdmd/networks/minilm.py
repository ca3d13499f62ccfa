"""all-MiniLM-L6-v2: token and sentence embeddings of texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pdmd.files.assets import ASSETS, asset

LONGEST = 256  # tokens; the model was trained on no more
BATCH = 64


class MiniLM:
    """A frozen text encoder."""

    def __init__(self, tokenizer: Any, model: Any):
        self.tokenizer, self.model = tokenizer, model

    @torch.no_grad()
    def tokens(self, texts: Sequence[str]) -> list[Tensor]:
        """Last hidden states (length, 384) of each text's tokens, [CLS] and [SEP] among them."""
        rows: list[Tensor] = []
        for start in range(0, len(texts), BATCH):
            batch = self.tokenizer(
                list(texts[start : start + BATCH]),
                padding=True,
                truncation=True,
                max_length=LONGEST,
                return_tensors="pt",
            )
            hidden = self.model(**batch).last_hidden_state
            valid = batch["attention_mask"].bool()
            rows += [row[mask] for row, mask in zip(hidden, valid, strict=True)]
        return rows

    def sentences(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (N, 384): the mean over each text's tokens."""
        means = torch.stack([row.mean(0) for row in self.tokens(texts)])
        return functional.normalize(means, dim=-1)


def load_minilm() -> MiniLM:
    """The trained encoder, read from the cache alone. Raises UserError if it is not there."""
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    files = [asset("minilm", Path(member).name) for member in ASSETS["minilm"].members]
    folder = files[0].parent
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model = AutoModel.from_pretrained(folder, local_files_only=True)
    finally:
        if shown:
            logging.enable_progress_bar()
    return MiniLM(tokenizer, model.eval().requires_grad_(False))
