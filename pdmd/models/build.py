"""Build networks from a config, stack the networks of several runs, take one run out again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pdmd.config.catalogue import TRANSFORMERS
from pdmd.config.sections import Model
from pdmd.errors import UserError
from pdmd.files.contents import check_state, take
from pdmd.files.storage import load_tensors, reading
from pdmd.models.base import Space, VelocityNetwork

Unstack = Callable[[Mapping[str, Tensor], int], dict[str, Tensor]]
Where = str | Sequence[Path]  # a file, or one for each run


class Stackable(Protocol):
    """A state that is of several runs, stacked, or of one: a network's, or an adapter's."""

    stacked: bool

    def state_dict(self) -> Mapping[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> Any: ...


def build(spec: Model, space: Space, runs: int, seed: int) -> VelocityNetwork:
    """A new network for `runs` runs, its weights a function of `seed`.

    Args:
        spec: the `model` section of a config.
    """
    if spec.kind in TRANSFORMERS:
        if runs != 1:
            raise ValueError(f"runs: {runs}: expected 1 for model.kind {spec.kind}")
        return build_transformer(spec, space, seed)
    from pdmd.models.mlp import ConditionalMLP, VelocityMLP

    (dim,) = space.shape
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if spec.kind == "mlp":
            return VelocityMLP(runs, dim, spec.width, spec.depth, spec.waves)
        if space.classes is None:
            raise UserError(
                "model.kind: 'conditional-mlp': expected 'mlp' for data without classes"
            )
        return ConditionalMLP(runs, dim, spec.width, spec.depth, space.classes)


def build_transformer(spec: Model, space: Space, seed: int) -> VelocityNetwork:
    """A new Qwen-Image or Wan network; with `boundary`, a high-noise and a low-noise expert."""
    from pdmd.models.experts import Experts
    from pdmd.models.qwen import build_qwen
    from pdmd.models.wan import build_wan

    make = build_qwen if spec.kind == "qwen" else build_wan
    if spec.boundary is None:
        return make(spec, space, seed)
    high, low = (make(spec, space, seed + i) for i in range(2))
    return Experts(high, low, spec.boundary)


def stack_states(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """State dicts of single runs -> the state dict of the network that holds them all."""
    return {name: torch.cat([state[name] for state in states]) for name in states[0]}


def unstack_state(state: Mapping[str, Tensor], run: int) -> dict[str, Tensor]:
    """One run's share of a stacked state dict."""
    return {name: tensor[run : run + 1].clone() for name, tensor in state.items()}


def copy_state(state: Mapping[str, Tensor], run: int) -> dict[str, Tensor]:
    """The state dict of a network that holds one run alone."""
    return {name: tensor.clone() for name, tensor in state.items()}


def unstacker(network: Stackable) -> Unstack:
    """What takes one run out of a network's state dict."""
    return unstack_state if network.stacked else copy_state


def load_stacked(
    spec: Model,
    space: Space,
    states: Sequence[Mapping[str, Tensor]],
    where: Where,
    trainable: bool = False,
) -> VelocityNetwork:
    """A network holding one state for each run. Raises UserError naming `where` on a mismatch."""
    model = build(spec, space, len(states), seed=0)
    load_state(model, states, where)
    return model.requires_grad_(trainable)


def load_state(model: Stackable, states: Sequence[Mapping[str, Tensor]], where: Where) -> None:
    """Put one state for each run into a network.

    Raises:
        UserError: a tensor is missing or one too many, of another shape or dtype, or not finite;
            names the run's own file.
    """
    files: Sequence[Path | str] = [where] * len(states) if isinstance(where, str) else where
    wanted = unstacker(model)(model.state_dict(), 0)
    for file, state in zip(files, states, strict=True):
        check_state(file, state, wanted)
    model.load_state_dict(stack_states(states) if model.stacked else states[0])


def load_snapshots(path: Path) -> dict[int, dict[str, Tensor]]:
    """Update -> the state that a run's network had after it. Raises UserError naming the file."""
    snapshots: dict[int, dict[str, Tensor]] = {}
    tensors = load_tensors(path)
    with reading(path, "snapshots, `<update>/<name of a tensor>`"):
        for key, tensor in tensors.items():
            step, name = key.split("/", 1)
            snapshots.setdefault(int(step), {})[name] = tensor
    if not snapshots:
        raise UserError(f"{path}: no snapshots: expected one at least")
    return snapshots


def warm_start(model: VelocityNetwork, state: Mapping[str, Tensor], where: str) -> None:
    """Start a network from a smaller relative's weights, which it then equals as a function.

    Both of two experts get the one network's weights; input channels that the relative has not,
    those of image-to-video's condition, start at zero.

    Raises:
        UserError: a tensor does not fit; names `where`.
    """
    wanted, ready, used = model.state_dict(), {}, set()
    for name, tensor in wanted.items():
        own = name if name in state else name.removeprefix("high.").removeprefix("low.")
        shape: list[int | None] = list(tensor.shape)
        if "patch_embedding" in name and own in state and state[own].ndim == tensor.ndim > 1:
            shape[1] = min(state[own].shape[1], tensor.shape[1])  # input channels
        source = take(where, state, own, shape, tensor.dtype)
        ready[name] = torch.zeros_like(tensor)
        ready[name][tuple(slice(size) for size in source.shape)] = source
        used.add(own)
    if odd := sorted(state.keys() - used):
        raise UserError(f"{where}: {odd[0]}: expected weights of a network that fits into ours")
    model.load_state_dict(ready)


def load_files(spec: Model, space: Space, paths: Sequence[Path]) -> VelocityNetwork:
    """A frozen network from one expert file for each run."""
    return load_stacked(spec, space, [load_tensors(path) for path in paths], paths)
