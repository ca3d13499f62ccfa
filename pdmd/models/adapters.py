"""LoRA adapters on one shared frozen base: each is a velocity with few tensors of its own.

Whoever needs a variant of a network (a generator, its average, frozen earlier phases, a fake score)
adds an adapter to the base that all share, which is in memory once.  Calling a variant switches the
base to it; the switch leaves alone which tensors are trained, so that a graph made under one
adapter stays right while another is called.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pdmd.models.base import Condition, VelocityNetwork
from pdmd.models.experts import Absent, Experts

# Attention and MLPs, no modulation, as in the released Lightning adapters (Qwen-Image-Lightning).
QWEN_TARGETS = [
    *("to_q", "to_k", "to_v", "to_out.0"),
    *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    *("img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"),
]
WAN_TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]
MARK = ".lora_"


def transformers_of(network: VelocityNetwork) -> list[Any]:
    """The diffusers models inside a network: one, or the high- and the low-noise expert's."""
    return [net for _, _, net in experts_of(network)]


def experts_of(network: VelocityNetwork) -> list[tuple[int, str, Any]]:
    """(number, name, diffusers model) of each expert that is there; one alone has no name."""
    if not isinstance(network, Experts):
        return [(0, "", network.net)]
    both = ((0, "high", network.high), (1, "low", network.low))
    return [(number, name, of.net) for number, name, of in both if not isinstance(of, Absent)]


def idle_tensors(network: VelocityNetwork) -> list[str]:
    """Parts of names of tensors that no velocity needs: what Qwen's last block does to text."""
    names = []
    for net in transformers_of(network):
        if "Qwen" in type(net).__name__:
            last = f"transformer_blocks.{len(net.transformer_blocks) - 1}"
            ends = ("attn.add_q_proj", "attn.to_add_out", "attn.norm_added_q", "txt_mlp")
            names += [f"{last}.{end}" for end in ends]
    return names


class SharedBase:
    """A frozen network and the adapters on it.

    Attributes:
        network: frozen, once in memory; active: the adapter that it works with, None for none.

    Args:
        network: of transformers; rank, alpha: of every adapter, whose share of a layer is
            alpha / rank B A; empty: whether adapters on a network without values get none either,
            as a plan of memory wants it.
    """

    def __init__(self, network: VelocityNetwork, rank: int, alpha: int, empty: bool = False):
        self.network, self.empty = network.requires_grad_(False), empty
        self.rank, self.alpha = rank, alpha
        self.active: str | None = None
        self._trained: dict[str, bool] = {}
        self._layers: list[Any] = []

    def add(
        self,
        name: str,
        seed: int,
        trainable: bool = False,
        experts: Collection[str] | None = None,
    ) -> Adapted:
        """A new adapter that changes nothing yet: B = 0, and A is a function of `seed`.

        Of a name that is there already, the adapter as it is.  Its tensors are float32, whatever
        the base computes in.

        Args:
            experts: of two, those that it changes; all where it is None.
        """
        from peft import LoraConfig

        if name in self._trained:
            return Adapted(self, name)
        for number, expert, net in experts_of(self.network):
            if experts is not None and expert and expert not in experts:
                continue
            qwen = "Qwen" in type(net).__name__
            targets = QWEN_TARGETS if qwen else WAN_TARGETS
            config = LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=targets)
            with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Already found a `peft_config`")
                torch.manual_seed(seed + number)
                net.add_adapter(config, name)
                torch.manual_seed(seed + number)
                if not self.empty:
                    _give_values(net, name)
        self._trained[name] = trainable
        self._layers = lora_layers(self.network)
        for key, p in self.network.named_parameters():  # peft trains what it added last, alone
            owner = key.rpartition(".")[0].rpartition(".")[2] if MARK in key else ""
            if MARK in key:
                keep_in_float32(p)
            p.requires_grad_(self._trained.get(owner, False))
        self._switch()
        return Adapted(self, name)

    def plain(self) -> Adapted:
        """The network without any adapter."""
        return Adapted(self)

    def use(self, name: str | None) -> None:
        """Switch to an adapter, or to none; no tensor's `requires_grad` changes."""
        if name != self.active:
            self.active = name
            self._switch()

    def _switch(self) -> None:
        for layer in self._layers:
            set_adapter(layer, self.active)


def keep_in_float32(p: Tensor) -> None:
    """Have an adapter's tensor in float32: peft gives it the base's precision, in which updates of
    5e-5 round to none.
    """
    p.data = p.data.float()


def _give_values(net: nn.Module, name: str) -> None:
    """Draw an adapter anew on the CPU, in peft's order, where peft left it as empty as its base."""
    for layer in lora_layers(net):
        base = layer.get_base_layer()
        if base.weight.device.type != "meta":
            continue
        for part, (inside, out) in (
            (layer.lora_A, (base.in_features, layer.r[name])),
            (layer.lora_B, (layer.r[name], base.out_features)),
        ):
            part[name] = nn.Linear(inside, out, bias=False)
        layer.reset_lora_parameters(name, True)
        for part in (layer.lora_A, layer.lora_B):
            part[name].to(base.weight.dtype)  # as peft has it in the end


class Adapted:
    """A velocity on a shared base: with one of its adapters, or with none, which is the teacher's.

    Its state is its adapter's alone, under the names of an adapter called "default".

    Args:
        name: of the adapter, None for none.
    """

    runs, stacked = 1, False
    null: int | None = None

    def __init__(self, shared: SharedBase, name: str | None = None):
        self.shared, self.name = shared, name

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition = None) -> Tensor:
        """(N, ...), (N,), N conditions or None -> (N, ...)."""
        self.shared.use(self.name)
        velocity: Tensor = self.shared.network(x_t, t, condition)
        return velocity

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The adapter's tensors."""
        end = f".{self.name}.weight"
        for key, p in self.shared.network.named_parameters():
            if self.name is not None and MARK in key and key.endswith(end):
                yield key.removesuffix(end) + ".default.weight", p

    def parameters(self) -> Iterator[Tensor]:
        """The same without names."""
        return (p for _, p in self.named_parameters())

    def state_dict(self) -> dict[str, Tensor]:
        """The adapter's tensors."""
        return {name: p.detach() for name, p in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take exactly the adapter's tensors.

        Raises:
            RuntimeError: one is missing, one too many, or of another shape or dtype.
        """
        wanted = dict(self.named_parameters())
        if state.keys() != wanted.keys():
            odd = sorted(state.keys() ^ wanted.keys())
            raise RuntimeError(
                f"adapter: {odd[0]} and {len(odd) - 1} more: expected its own tensors"
            )
        with torch.no_grad():
            for name, p in wanted.items():
                if (p.shape, p.dtype) != (state[name].shape, state[name].dtype):
                    raise RuntimeError(f"adapter: {name}: expected {p.dtype} {tuple(p.shape)}")
                p.copy_(state[name])


def lora_layers(module: nn.Module) -> list[Any]:
    """The layers of a module that have adapters."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [layer for layer in module.modules() if isinstance(layer, BaseTunerLayer)]


def set_adapter(layer: Any, name: str | None) -> None:
    """Have one layer work with an adapter, or with none; peft's own way freezes the others."""
    layer._disable_adapters = name is None
    if name is not None:
        layer._active_adapter = [name]


@contextmanager
def switched(layers: list[Any], name: str | None) -> Iterator[None]:
    """Let some layers work with an adapter, and then with what they worked with before."""
    before = [(layer._disable_adapters, layer._active_adapter) for layer in layers]
    for layer in layers:
        set_adapter(layer, name)
    try:
        yield
    finally:
        for layer, (off, active) in zip(layers, before, strict=True):
            layer._disable_adapters, layer._active_adapter = off, active


def checkpoint_activations(network: VelocityNetwork, on: bool = True) -> None:
    """Keep no activations inside of a network's blocks: the backward pass makes them again.

    It makes them with the adapter that the forward pass had, whatever the base was switched to in
    between.
    """
    for net in transformers_of(network):
        if on:
            net.enable_gradient_checkpointing(Recomputed())
        else:
            net.disable_gradient_checkpointing()


class Recomputed:
    """What calls a block so that its activations are made again, under the adapter of the call."""

    def __init__(self) -> None:
        self._layers: dict[int, list[Any]] = {}

    def __call__(self, block: Callable[..., Any], *inputs: Any) -> Any:
        """The block's outputs."""
        if id(block) not in self._layers:
            self._layers[id(block)] = lora_layers(block) if isinstance(block, nn.Module) else []
        layers = self._layers[id(block)]
        name = None
        if layers and not layers[0]._disable_adapters:
            (name,) = layers[0].active_adapters

        def again(*arguments: Any) -> Any:
            with switched(layers, name):
                return block(*arguments)

        return checkpoint(again, *inputs, use_reentrant=False)
