"""TensorFlow's SAME padding: the output has ceil(size / stride) positions, the end gets more."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


def pad_same(x: Tensor, kernel: Sequence[int], stride: Sequence[int], value: float = 0.0) -> Tensor:
    """Pad the last axes of x, one for each entry of kernel and stride."""
    sizes = x.shape[-len(kernel) :]
    pads: list[int] = []
    for size, k, s in reversed(list(zip(sizes, kernel, stride, strict=True))):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads, value=value) if any(pads) else x


class SameConv2d(nn.Conv2d):
    """A convolution of pictures with SAME padding."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', ceil(H / stride), ceil(W / stride))."""
        return super().forward(pad_same(input, self.kernel_size, self.stride))


class SameConv3d(nn.Conv3d):
    """A convolution of clips with SAME padding."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, C', ceil(T / stride), ...)."""
        return super().forward(pad_same(input, self.kernel_size, self.stride))


class SameMaxPool3d(nn.Module):
    """A maximum over windows of clips with SAME padding, which never wins."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]):
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, C, ceil(T / stride), ...)."""
        padded = pad_same(x, self.kernel, self.stride, float("-inf"))
        return functional.max_pool3d(padded, self.kernel, self.stride)
