"""Identity, zero-padding (A), projection where shapes change (B, D) or everywhere (C); dropout after it."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from residua.nn import Projection, ZeroPad, make_norm, make_shortcut
from residua.nn.shortcuts import with_dropout


def kinds(kind):
    """The shortcuts of a block that keeps its shape, strides, widens."""
    changes = [(8, 8, 1), (8, 8, 2), (8, 16, 1)]
    return [type(make_shortcut(kind, *change, make_norm("batch"))) for change in changes]


def test_a_and_b_act_only_where_shapes_change_and_c_everywhere():
    assert kinds("A") == [nn.Identity, ZeroPad, ZeroPad]
    assert kinds("B") == [nn.Identity, Projection, Projection]
    assert kinds("C") == [Projection, Projection, Projection]
    assert kinds("D") == [nn.Identity, Projection, Projection]


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


@settings(deadline=None)
@given(height=st.integers(1, 7), width=st.integers(1, 7))
def test_d_projects_the_average_of_every_2x2_pixels_that_there_are(height, width):
    torch.manual_seed(0)
    x = torch.randn(1, 2, height, width, dtype=torch.float64)
    shortcut = make_shortcut("D", 2, 3, 2, make_norm("batch"), normalise=False).double()
    rows, columns = (height + 1) // 2, (width + 1) // 2
    mean = torch.empty(1, 2, rows, columns, dtype=torch.float64)
    for i in range(rows):
        for j in range(columns):
            mean[:, :, i, j] = x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((2, 3))
    expected = torch.einsum("oc,nchw->nohw", shortcut.conv.weight[:, :, 0, 0], mean)
    torch.testing.assert_close(shortcut(x), expected)
    assert expected.shape == nn.Conv2d(2, 3, 3, 2, 1).double()(x).shape


def test_d_does_not_pool_where_nothing_is_halved():
    wider = make_shortcut("D", 4, 8, 1, make_norm("batch"))
    assert [type(m) for m in wider] == [nn.Conv2d, nn.BatchNorm2d]


@pytest.mark.parametrize("kind", ["A", "B", "C", "D"])
@pytest.mark.parametrize("shape", [(4, 4, 1), (4, 8, 2)])
def test_dropout_drops_values_in_training_keeps_their_mean_and_does_nothing_in_evaluation(
    kind, shape
):
    torch.manual_seed(0)
    bare = make_shortcut(kind, *shape, make_norm("none"))
    dropped = with_dropout(copy.deepcopy(bare), 0.25)
    x = torch.randn(64, shape[0], 16, 16) + 3.0
    usual = bare(x)
    assert torch.equal(dropped.eval()(x), usual)
    y = dropped.train()(x)
    kept = y != 0
    torch.testing.assert_close(y[kept], usual[kept] / 0.75)
    assert kept[usual != 0].float().mean().item() == pytest.approx(0.75, abs=0.01)


def test_no_dropout_leaves_the_shortcut_as_it_is_and_certainty_is_refused():
    identity = nn.Identity()
    assert with_dropout(identity, 0.0) is identity
    for p in (1.0, -0.1):
        with pytest.raises(ValueError, match=r"shortcut_dropout .* is not in \[0, 1\)"):
            with_dropout(identity, p)


def test_an_unknown_shortcut_is_named():
    with pytest.raises(ValueError, match="shortcut 'E' is unknown: expected one of A, B, C, D"):
        make_shortcut("E", 4, 4, 1, None)
