"""Two frozen experts of which one at a time is on the device; the other waits in main memory.

An update of `region: update` calls one expert for scores, and a phase one for its steps, so that a
device needs room for one. Weights are copied to it and never back: they are frozen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from pdmd.models.experts import Absent, Experts

ALIGNED = 512  # bytes, as the allocator of a GPU aligns: kernels depend on it


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in its expert's bytes."""

    tensor: nn.Parameter
    start: int
    shape: torch.Size

    @property
    def end(self) -> int:
        return self.start + prod(self.shape) * self.tensor.dtype.itemsize


class Turns(Mapping[str, Tensor]):
    """The experts of a network, taking turns in one room on a device.

    As a mapping: name -> frozen tensor, whose expert has its turn when it is asked for.

    Attributes:
        side: the expert whose turn it is, None at first; room: its bytes on the device.

    Args:
        network: with both experts, frozen, in main memory, without adapters: those that are added
            later stay on the device.
    """

    def __init__(self, network: Experts, device: torch.device):
        self.device = device
        self.side: str | None = None
        self.places = {side: _places(getattr(network, side)) for side in ("high", "low")}
        self.named = dict(network.named_parameters())
        self.waiting = {side: self._pack(places) for side, places in self.places.items()}
        largest = max(len(one) for one in self.waiting.values())
        self.room = torch.empty(largest, dtype=torch.uint8, device=device)
        network.to(device)  # buffers: the tensors are empty
        for side in self.places:
            self._attend(getattr(network, side), side)

    def _pack(self, places: list[Place]) -> Tensor:
        """An expert's bytes in main memory; its tensors are emptied, on the device."""
        size = max(place.end for place in places)
        flat = torch.empty(size, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        for place in places:
            values = place.tensor.data.contiguous().flatten().view(torch.uint8)
            flat[place.start : place.end].copy_(values)
            self._empty(place)
        return flat

    def _empty(self, place: Place) -> None:
        place.tensor.data = torch.empty(0, dtype=place.tensor.dtype, device=self.device)

    def _attend(self, expert: nn.Module, side: str) -> None:
        """Let an expert have its turn when it is called, and when a graph through it goes back."""

        def before(*_: Any) -> None:
            self.bring(side)

        def after(_: nn.Module, __: Any, velocity: Tensor) -> None:
            if velocity.requires_grad:
                velocity.register_hook(before)

        expert.register_forward_pre_hook(before)
        expert.register_forward_hook(after)

    def bring(self, side: str) -> None:
        """Give an expert its turn: the other's tensors are empty then, and a call of them fails."""
        if side == self.side:
            return
        for place in self.places[self.side] if self.side else ():
            self._empty(place)
        bytes_ = self.waiting[side]
        self.room[: len(bytes_)].copy_(bytes_, non_blocking=True)
        for place in self.places[side]:
            values = self.room[place.start : place.end].view(place.tensor.dtype)
            place.tensor.data = values.view(place.shape)
        self.side = side

    def __getitem__(self, name: str) -> Tensor:
        self.bring(name.partition(".")[0])
        return self.named[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.named)

    def __len__(self) -> int:
        return len(self.named)


def _places(expert: nn.Module) -> list[Place]:
    places, start = [], 0
    for p in expert.parameters():
        places.append(Place(p, start, p.shape))
        start = -(-places[-1].end // ALIGNED) * ALIGNED
    return places


def take_turns(network: nn.Module, device: torch.device) -> Turns | None:
    """Let the experts of a network take turns on a device; None where there are not two of them."""
    if not isinstance(network, Experts):
        return None
    if any(isinstance(one, Absent) for one in (network.high, network.low)):
        return None
    return Turns(network, device)
