"""Identity, zero-padding (A), projection where shapes change (B) and everywhere (C)."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from residua.nn import Projection, ZeroPad, make_norm, make_shortcut


def kinds(kind):
    """The shortcuts of a block that keeps its shape, strides, widens."""
    changes = [(8, 8, 1), (8, 8, 2), (8, 16, 1)]
    return [type(make_shortcut(kind, *change, make_norm("batch"))) for change in changes]


def test_a_and_b_act_only_where_shapes_change_and_c_everywhere():
    assert kinds("A") == [nn.Identity, ZeroPad, ZeroPad]
    assert kinds("B") == [nn.Identity, Projection, Projection]
    assert kinds("C") == [Projection, Projection, Projection]


@given(
    stride=st.integers(1, 3),
    extra=st.integers(0, 4),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
)
def test_a_zero_padded_shortcut_copies_every_stride_th_pixel(stride, extra, height, width):
    x = torch.arange(2.0 * height * width).reshape(1, 2, height, width)
    y = ZeroPad(2, 2 + extra, stride)(x)
    convolved = nn.Conv2d(2, 2 + extra, 3, stride, padding=1)(x)
    assert y.shape == convolved.shape  # it meets a strided branch at any size
    assert torch.equal(y[:, :2], x[:, :, ::stride, ::stride])
    assert not y[:, 2:].any()


def test_gradient_flows_through_a_zero_padded_shortcut():
    x = torch.zeros(1, 2, 4, 4, requires_grad=True)
    ZeroPad(2, 4, 2)(x).sum().backward()
    expected = torch.zeros(4, 4)
    expected[::2, ::2] = 1
    assert torch.equal(x.grad, expected.expand(1, 2, 4, 4))


def test_a_zero_padded_shortcut_has_no_parameters_and_cannot_narrow():
    assert list(ZeroPad(4, 8, 2).parameters()) == []
    with pytest.raises(ValueError, match="use shortcut B"):
        ZeroPad(8, 4, 1)


def test_a_projection_is_a_1x1_convolution_with_a_norm_unless_pre_activated():
    assert [type(m) for m in Projection(4, 8, 2, make_norm("batch"))] == [nn.Conv2d, nn.BatchNorm2d]
    (conv,) = Projection(4, 8, 2, make_norm("batch"), normalise=False)
    assert (conv.kernel_size, conv.stride, conv.bias) == ((1, 1), (2, 2), None)


def test_an_unknown_shortcut_is_named():
    with pytest.raises(ValueError, match="shortcut 'E' is unknown: expected one of A, B, C, D"):
        make_shortcut("E", 4, 4, 1, None)
