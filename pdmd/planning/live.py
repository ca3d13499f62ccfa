"""Counting, op by op, of what training does: bytes that live and are sent, and calculations.

The same counter sees real tensors and fake ones, which have shapes and no values. It does not see
what a kernel allocates for itself while it runs, nor how an allocator rounds.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from pdmd.models.rows import local
from pdmd.planning.exchanges import exchanged

aten = torch.ops.aten
GATHERED = "gathered"  # the part of what sharded networks put together again
PASSING = "activations"  # the part of what nothing else was said of
# The attention of a CPU, which stands for that of a GPU: the same products.
ATTENTION = {
    aten._scaled_dot_product_flash_attention_for_cpu: aten._scaled_dot_product_flash_attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        aten._scaled_dot_product_flash_attention_backward
    ),
}


@dataclass
class Segment:
    """A piece of an update.

    Attributes:
        peak: part -> bytes, at the moment when most lived; flops: precision -> floating-point
            operations, a multiplication and an addition being two; exchanged: kind -> bytes of all
            processes of a group that are put together, or summed.
    """

    peak: Counter[str] = field(default_factory=Counter)
    flops: Counter[str] = field(default_factory=Counter)
    exchanged: Counter[str] = field(default_factory=Counter)

    @property
    def bytes(self) -> int:
        """All parts together."""
        return sum(self.peak.values())


class Live(TorchDispatchMode):
    """Counts while it is entered.

    Attributes:
        now: part -> bytes that live; segments: name -> what was counted in it; among: where what is
            made meanwhile is fake, if it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now: Counter[str] = Counter()
        self.segments: dict[str, Segment] = {}
        self.among: FakeTensorMode | None = None
        self._known: dict[int, tuple[weakref.ref[Any], str, int]] = {}
        self._total = self._highest = 0
        self._part, self._segment = PASSING, self.segments.setdefault("", Segment())

    def __enter__(self) -> Live:
        """Count from here on; FSDP2 frees and fills what it gathers by the size of its storage."""
        kind: Any = torch.UntypedStorage
        resize = kind.resize_

        def resize_(storage: torch.UntypedStorage, size: int) -> torch.UntypedStorage:
            resize(storage, size)
            self._resized(storage)
            return storage

        kind.resize_ = resize_
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Count no more."""
        kind: Any = torch.UntypedStorage
        del kind.resize_  # its own is inherited
        super().__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.prim.device.default and isinstance(args[0], FakeTensor):
            return args[0].fake_device  # half of all ops, and the slowest of them
        with self.among or nullcontext():
            made = func(*args, **(kwargs or {}))
        for one in (made,) if isinstance(made, Tensor) else tree_leaves(made):
            if isinstance(one, Tensor):
                self._see(one, self._part)
        self._calculated(func, args, kwargs or {}, made)
        return made

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what is made meanwhile as a part of its own."""
        before, self._part = self._part, name
        try:
            yield
        finally:
            self._part = before

    @contextmanager
    def segment(self, name: str) -> Iterator[None]:
        """Count a piece of an update by itself; pieces of one name are one."""
        before = self._segment
        self._enter(self.segments.setdefault(name, Segment()))
        try:
            yield
        finally:
            self._enter(before)

    def adopt(self, tensors: Iterable[Tensor], part: str) -> None:
        """Count tensors that are there, or were counted as another part, as this one.

        Of sharded tensors, what this process holds.
        """
        for tensor in map(local, tensors):
            known = self._known.get(tensor.untyped_storage()._cdata)
            if known is None:
                self._see(tensor, part)
            else:
                reference, before, size = known
                self.now[before] -= size
                self.now[part] += size
                self._known[tensor.untyped_storage()._cdata] = reference, part, size

    def _enter(self, segment: Segment) -> None:
        self._segment, self._highest = segment, segment.bytes
        self._peaked()

    def _resized(self, storage: torch.UntypedStorage) -> None:
        known = self._known.get(storage._cdata)
        if known is not None:
            reference, part, before = known
            size = storage.nbytes()
            self._known[storage._cdata] = reference, GATHERED, size
            self.now[part] -= before
            self.now[GATHERED] += size
            self._total += size - before
            self._peaked()

    def _see(self, tensor: Tensor, part: str) -> None:
        storage = local(tensor).untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        # Its object lives as long as the storage does, whoever holds that.
        self._known[key] = weakref.ref(storage, lambda _: self._gone(key)), part, size
        self.now[part] += size
        self._total += size
        self._peaked()

    def _gone(self, key: int) -> None:
        _, part, size = self._known.pop(key)
        self.now[part] -= size
        self._total -= size

    def _peaked(self) -> None:
        if self._total > self._highest:
            self._highest = self._total
            self._segment.peak = Counter({name: size for name, size in self.now.items() if size})

    def _calculated(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: Any
    ) -> None:
        packet: Any = getattr(func, "_overloadpacket", None)
        formula = flop_registry.get(ATTENTION.get(packet, packet))
        if formula is not None:
            precision = str(args[0].dtype).removeprefix("torch.")
            self._segment.flops[precision] += int(formula(*args, **kwargs, out_val=made))
        if sent := exchanged(func, args, made):
            self._segment.exchanged[sent[0]] += sent[1]
