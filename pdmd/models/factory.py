"""Build networks from a config, stack the networks of several runs, take one run out again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pdmd.catalogue import TRANSFORMERS
from pdmd.errors import UserError
from pdmd.models.base import Space, VelocityNetwork
from pdmd.storage import load_tensors

Unstack = Callable[[Mapping[str, Tensor], int], dict[str, Tensor]]


def build(spec: Mapping[str, Any], space: Space, runs: int, seed: int) -> VelocityNetwork:
    """A new network for `runs` runs, its weights a function of `seed`.

    Args:
        spec: the `model` section of a config.
    """
    if spec["kind"] in TRANSFORMERS:
        if runs != 1:
            raise ValueError(f"runs: {runs}: expected 1 for model.kind {spec['kind']}")
        return build_transformer(spec, space, seed)
    from pdmd.models.mlp import ConditionalMLP, VelocityMLP

    (dim,) = space.shape
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if spec["kind"] == "mlp":
            return VelocityMLP(runs, dim, spec["width"], spec["depth"], spec.get("waves", 0))
        if space.classes is None:
            raise UserError(
                "model.kind: 'conditional-mlp': expected 'mlp' for data without classes"
            )
        return ConditionalMLP(runs, dim, spec["width"], spec["depth"], space.classes)


def build_transformer(spec: Mapping[str, Any], space: Space, seed: int) -> VelocityNetwork:
    """A new Qwen-Image or Wan network; with `boundary`, a high-noise and a low-noise expert."""
    from pdmd.models.experts import Experts
    from pdmd.models.qwen import build_qwen
    from pdmd.models.wan import build_wan

    assert space.conditions is not None
    make = build_qwen if spec["kind"] == "qwen" else build_wan
    if "boundary" not in spec:
        return make(spec, space.shape[0], space.conditions, seed)
    high, low = (make(spec, space.shape[0], space.conditions, seed + i) for i in range(2))
    return Experts(high, low, spec["boundary"])


def stack_states(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """State dicts of single runs -> the state dict of the network that holds them all."""
    return {name: torch.cat([state[name] for state in states]) for name in states[0]}


def unstack_state(state: Mapping[str, Tensor], run: int) -> dict[str, Tensor]:
    """One run's share of a stacked state dict."""
    return {name: tensor[run : run + 1].clone() for name, tensor in state.items()}


def copy_state(state: Mapping[str, Tensor], run: int) -> dict[str, Tensor]:
    """The state dict of a network that holds one run alone."""
    return {name: tensor.clone() for name, tensor in state.items()}


def unstacker(network: VelocityNetwork) -> Unstack:
    """What takes one run out of a network's state dict."""
    return unstack_state if network.stacked else copy_state


def load_stacked(
    spec: Mapping[str, Any],
    space: Space,
    states: Sequence[Mapping[str, Tensor]],
    where: str,
    trainable: bool = False,
) -> VelocityNetwork:
    """A network holding one state for each run. Raises UserError naming `where` on a mismatch."""
    model = build(spec, space, len(states), seed=0)
    load_state(model, states, where)
    return model.requires_grad_(trainable)


def load_state(model: VelocityNetwork, states: Sequence[Mapping[str, Tensor]], where: str) -> None:
    """Put one state for each run into a network. Raises UserError naming `where` on a mismatch."""
    try:
        model.load_state_dict(stack_states(states) if model.stacked else states[0])
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{where}: {reason}: expected weights of the configured model") from error


def warm_start(model: VelocityNetwork, state: Mapping[str, Tensor], where: str) -> None:
    """Start a network from a smaller relative's weights, which it then equals as a function.

    Both of two experts get the one network's weights; input channels that the relative has not,
    those of image-to-video's condition, start at zero.

    Raises:
        UserError: a tensor does not fit; names `where`.
    """
    wanted, ready = model.state_dict(), {}
    for name, tensor in wanted.items():
        source = state.get(name, state.get(name.removeprefix("high.").removeprefix("low.")))
        if source is None or any(a < b for a, b in zip(tensor.shape, source.shape, strict=True)):
            raise UserError(f"{where}: {name}: expected weights of a network that fits into ours")
        ready[name] = torch.zeros_like(tensor)
        ready[name][tuple(slice(size) for size in source.shape)] = source
        if source.shape != tensor.shape and "patch_embedding" not in name:
            raise UserError(
                f"{where}: {name}: shape {tuple(source.shape)}: expected {tuple(tensor.shape)}"
            )
    model.load_state_dict(ready)


def load_files(spec: Mapping[str, Any], space: Space, paths: Sequence[Path]) -> VelocityNetwork:
    """A frozen network from one expert file for each run."""
    where = ", ".join(str(path) for path in paths)
    return load_stacked(spec, space, [load_tensors(path) for path in paths], where)
