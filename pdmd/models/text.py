"""The text encoders of the released families, run as their pipelines run them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pdmd.errors import UserError
from pdmd.files.storage import shown
from pdmd.models.families import Family, check_finite

BATCH = 16  # texts at a time
UNUSED = ("transformer", "transformer_2", "vae", "scheduler", "image_encoder", "image_processor")
LONGEST = {"qwen": 1024, "wan": 512}  # tokens that a text is cut to, as the pipelines cut


class FamilyText:
    """A family's tokenizer and text encoder, and nothing else of its folder.

    Attributes:
        cut: texts so far that were longer than the family takes, and lost their ends.

    Args:
        pipeline: diffusers' own, of these two parts alone.
    """

    def __init__(self, pipeline: Any, family: Family):
        self.pipeline, self.family = pipeline, family
        self.cut: list[str] = []

    @classmethod
    def load(
        cls,
        folder: Path,
        family: Family,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.bfloat16,
    ) -> FamilyText:
        """Load the two parts. Raises UserError that names the folder."""
        import diffusers

        unused = dict.fromkeys(UNUSED[: 4 if family.experts == 2 else 1] + UNUSED[2:])
        if not family.image_channels:
            unused = {name: None for name in unused if not name.startswith("image_")}
        kind: Any = getattr(diffusers, family.pipeline)
        try:
            pipeline = kind.from_pretrained(folder, dtype=dtype, local_files_only=True, **unused)
        except (OSError, ValueError, RuntimeError) as error:
            expected = f"the text encoder of a {family.pipeline}"
            raise UserError(f"{folder}: {shown(error)}: expected {expected}") from None
        check_finite(pipeline.text_encoder, folder / "text_encoder")
        pipeline.text_encoder.eval().requires_grad_(False).to(device)
        return cls(pipeline, family)

    @torch.no_grad()
    def rows(self, texts: Sequence[str]) -> list[Tensor]:
        """Valid token rows (length, D) of each text, as encoded, on the CPU."""
        encode = self._qwen if self.family.kind == "qwen" else self._wan
        found: list[Tensor] = []
        for start in range(0, len(texts), BATCH):
            found += encode(list(texts[start : start + BATCH]))
        return found

    def _wan(self, texts: list[str]) -> list[Tensor]:
        from diffusers.pipelines.wan.pipeline_wan import prompt_clean

        longest = LONGEST["wan"]
        cleaned = [prompt_clean(text) for text in texts]
        lengths = [len(ids) for ids in self.pipeline.tokenizer(cleaned).input_ids]
        self.cut += [t for t, n in zip(texts, lengths, strict=True) if n > longest]
        device = self.pipeline.text_encoder.device
        every, _ = self.pipeline.encode_prompt(
            texts, do_classifier_free_guidance=False, max_sequence_length=longest, device=device
        )
        return [
            rows[: min(n, longest)].cpu().clone() for rows, n in zip(every, lengths, strict=True)
        ]

    def _qwen(self, texts: list[str]) -> list[Tensor]:
        longest, start = LONGEST["qwen"], self.pipeline.prompt_template_encode_start_idx
        filled = [self.pipeline.prompt_template_encode.format(text) for text in texts]
        counts = [len(ids) - start for ids in self.pipeline.tokenizer(filled).input_ids]
        self.cut += [t for t, n in zip(texts, counts, strict=True) if n > longest]
        device = self.pipeline.text_encoder.device
        every, mask = self.pipeline.encode_prompt(texts, device=device, max_sequence_length=longest)
        lengths = [every.shape[1]] * len(every) if mask is None else mask.sum(1).tolist()
        return [rows[: int(n)].cpu().clone() for rows, n in zip(every, lengths, strict=True)]
