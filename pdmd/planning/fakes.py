"""Tensors that have shapes and no values, so that an update of any size runs in seconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from pdmd.planning.live import Live
from pdmd.streams import Stream

aten = torch.ops.aten


class Fakes(FakeTensorMode):
    """Makes fake tensors where it is entered, and where one meets a real one.

    What decides on the way of an update (noise levels, exit steps, lengths of text) stays real. A
    value of a fake tensor is 1, or true: all losses are finite, no gradient is clipped.
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)

    def dispatch(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """What one op returns."""
        if func is aten._local_scalar_dense.default:
            kind = args[0].dtype
            return True if kind == torch.bool else 1.0 if kind.is_floating_point else 1
        return super().dispatch(func, types, args, kwargs or {})


class FakeStream(Stream):
    """Draws whose noise is fake.

    Attributes:
        fakes: that make it.
    """

    fakes: Fakes

    def normal(self, batch: int, shape: Sequence[int]) -> Tensor:
        """(batch * runs, *shape), or the share of them."""
        rows = len(range(batch)[self.share]) * len(self.seeds)
        with self.fakes:
            return torch.empty(rows, *shape, device=self.device)


@contextmanager
def pretended_group(size: int) -> Iterator[None]:
    """A process group of so many processes whose exchanges leave tensors as they are."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=size)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


@contextmanager
def gathering(live: Live, fakes: Fakes) -> Iterator[None]:
    """Have what FSDP2 makes for itself be fake: room for gathered tensors, and for gradients."""
    from torch.distributed.fsdp._fully_shard._fsdp_param_group import FSDPParamGroup

    def among(method: Any) -> Any:
        def faked(*args: Any, **options: Any) -> Any:
            before, live.among = live.among, fakes
            try:
                return method(*args, **options)
            finally:
                live.among = before

        return faked

    kind: Any = FSDPParamGroup
    own = {name: getattr(kind, name) for name in ("unshard", "wait_for_unshard", "post_backward")}
    for name, method in own.items():
        setattr(kind, name, among(method))
    try:
        yield
    finally:
        for name, method in own.items():
            setattr(kind, name, method)
