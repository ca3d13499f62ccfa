"""The clip stage: the small CLIP that scores alignment, trained or kept."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pdmd.errors import UserError
from pdmd.files import provenance
from pdmd.files.kept import said, say
from pdmd.files.storage import (
    load_tensors,
    read_json,
    save_pickled,
    save_tensors,
    shown,
    write_json,
)
from pdmd.networks.small_clip import EMBEDDING, SIZES, known_tokens, train_small_clip
from pdmd.stages.outputs import CLIP, PROVENANCE

TOKENS = "tokens"  # rows of the embedding that are kept, by their token
SAID = ("updates", "scores", "commit")  # beside a kept one


def make_clip(updates: int, output: Path, kept: Path | None) -> None:
    """Train the small CLIP, or take the one that `clip.kept` names.

    Raises:
        UserError: it is not there, differs from what is said beside it, or had other updates.
    """
    inputs = [] if kept is None else [kept]
    if kept is None:
        model, scores = train_small_clip(updates)
        state = model.state_dict()
    else:
        made = said(kept, "clip.kept", "the weights of a small CLIP", SAID)
        if made["updates"] != updates:
            expected = f"{shown(made['updates'])} by {kept.stem}.json, or clip.kept: null"
            raise UserError(f"{kept}: clip.updates: {updates}: expected {expected}")
        state, scores = whole(load_tensors(kept), str(kept)), made["scores"]
    write_json(output.with_suffix(".json"), scores)
    save_pickled(output, state)
    settings = {"updates": updates, "kept": None if kept is None else kept.name}
    provenance.record(output.with_name(PROVENANCE), settings, [], inputs, CLIP)


def keep_clip(source: Path, output: Path) -> None:
    """Keep a trained small CLIP for `clip.kept`: half precision, rows of the words it knows.

    Nothing is lost: its weights are rounded so, and its other rows are 0.

    Raises:
        UserError: what is kept would not be what was trained.
    """
    state = torch.load(source, weights_only=True)
    made = read_json(source.with_name(PROVENANCE), dict, ("commit", "config"))
    save_tensors(output, compact(state))
    again = whole(load_tensors(output), str(output))
    for name, tensor in state.items():
        if not torch.equal(again[name], tensor):
            raise UserError(f"{source}: {name}: expected weights that half precision holds")
    scores = read_json(source.with_suffix(".json"), dict)
    say(output, {"updates": made["config"]["updates"], "scores": scores, "commit": made["commit"]})


def compact(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A small CLIP's weights in half precision, of the embedding the rows of known tokens."""
    tokens = known_tokens()
    small = {name: tensor.half() for name, tensor in state.items() if tensor.is_floating_point()}
    small[EMBEDDING] = small[EMBEDDING][tokens].contiguous()
    others = {name: tensor for name, tensor in state.items() if not tensor.is_floating_point()}
    return {**others, **small, TOKENS: tokens}


def whole(small: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """The inverse of `compact`. Raises UserError for other tensors."""
    rows, tokens = small.get(EMBEDDING), small.get(TOKENS)
    if rows is None or tokens is None or len(rows) != len(tokens):
        raise UserError(f"{where}: {EMBEDDING}: expected a row for each of {TOKENS}")
    state = {name: one.float() if one.is_floating_point() else one for name, one in small.items()}
    del state[TOKENS]
    embedding = torch.zeros(int(SIZES["vocab_size"]), rows.shape[1])
    state[EMBEDDING] = embedding.index_copy_(0, tokens, rows.float())
    return state
