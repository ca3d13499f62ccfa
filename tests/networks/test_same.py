import pytest
import torch
from torch.nn import functional

from pdmd.networks.same import SameConv2d, SameConv3d, SameMaxPool3d, pad_same


@pytest.mark.parametrize("size", [1, 4, 7, 8, 15])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (7, 2), (2, 2)])
def test_the_output_has_as_many_positions_as_strides_fit(size, kernel, stride):
    conv = SameConv2d(1, 1, kernel, stride)
    assert conv(torch.zeros(1, 1, size, size)).shape[-2:] == 2 * (-(-size // stride),)


def test_the_end_gets_more_padding_than_the_start():
    """TensorFlow's documented case: 8 positions, kernel 3, stride 2: none before, one after."""
    assert pad_same(torch.ones(1, 8), [3], [2]).tolist() == [[1.0] * 8 + [0.0]]
    assert pad_same(torch.ones(1, 7), [3], [2]).tolist() == [[0.0] + [1.0] * 7 + [0.0]]


def test_axes_are_padded_each_by_their_own_kernel_and_stride():
    assert pad_same(torch.zeros(2, 8, 9, 9), [7, 3, 1], [2, 2, 1]).shape == (2, 13, 11, 9)


def test_a_convolution_differs_from_one_with_symmetric_padding():
    x = torch.arange(8.0).view(1, 1, 1, 1, 8).expand(1, 1, 8, 8, 8)
    conv = SameConv3d(1, 1, 3, 2, bias=False)
    conv.weight.data.fill_(1 / 27)
    found = conv(x)[0, 0, 1, 1]
    assert found.tolist() == pytest.approx([1.0, 3.0, 5.0, (6 + 7) / 3])
    symmetric = functional.conv3d(x, conv.weight, stride=2, padding=1)
    assert not torch.allclose(found, symmetric[0, 0, 1, 1])  # control


def test_padding_never_wins_a_maximum():
    x = torch.full((1, 1, 8, 8, 8), -2.0)
    assert SameMaxPool3d((3, 3, 3), (2, 2, 2))(x).unique().tolist() == [-2.0]
    assert pad_same(x, [3, 3, 3], [2, 2, 2]).max() == 0  # control: zeros would win
