"""Build networks from a config, stack the networks of several runs, take one run out again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pdmd.errors import UserError
from pdmd.models.base import VelocityNetwork
from pdmd.models.mlp import ConditionalMLP, VelocityMLP
from pdmd.storage import load_tensors


def build(
    spec: Mapping[str, Any], dim: int, classes: int | None, runs: int, seed: int
) -> VelocityNetwork:
    """A new network for `runs` runs, its weights a function of `seed`.

    Args:
        spec: the `model` section of a config; dim: size of x; classes: None if unconditional.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if spec["kind"] == "mlp":
            return VelocityMLP(runs, dim, spec["width"], spec["depth"], spec.get("waves", 0))
        if classes is None:
            raise UserError(
                "model.kind: 'conditional-mlp': expected 'mlp' for data without classes"
            )
        return ConditionalMLP(runs, dim, spec["width"], spec["depth"], classes)


def stack_states(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """State dicts of single runs -> the state dict of the network that holds them all."""
    return {name: torch.cat([state[name] for state in states]) for name in states[0]}


def unstack_state(state: Mapping[str, Tensor], run: int) -> dict[str, Tensor]:
    """One run's share of a stacked state dict."""
    return {name: tensor[run : run + 1].clone() for name, tensor in state.items()}


def load_stacked(
    spec: Mapping[str, Any],
    dim: int,
    classes: int | None,
    states: Sequence[Mapping[str, Tensor]],
    where: str,
    trainable: bool = False,
) -> VelocityNetwork:
    """A network holding one state for each run. Raises UserError naming `where` on a mismatch."""
    model = build(spec, dim, classes, len(states), seed=0)
    try:
        model.load_state_dict(stack_states(states))
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{where}: {reason}: expected weights of the configured model") from error
    return model.requires_grad_(trainable)


def load_files(
    spec: Mapping[str, Any], dim: int, classes: int | None, paths: Sequence[Path]
) -> VelocityNetwork:
    """A frozen network from one expert file for each run."""
    where = ", ".join(str(path) for path in paths)
    return load_stacked(spec, dim, classes, [load_tensors(path) for path in paths], where)
