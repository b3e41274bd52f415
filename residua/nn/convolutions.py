"""The convolutions of a residual branch, before norms and activations are put between them.

    basic        3x3, 3x3                                   He et al. 2015, fig. 5 left
    bottleneck   1x1, 3x3, 1x1; four times as wide outside  fig. 5 right; grouped: Xie et al. 2017, fig. 3c

3x3 stands for 3 in each of the norm's dimensions. Shapes: (N, C, *S) -> (N, width, ...) or, of bottlenecks,
(N, 4 * width, ...).
"""

from __future__ import annotations

from residua.nn.norms import Convolution, Norm

EXPANSION = 4  # of a bottleneck: its output over its width


def basic_convolutions(
    norm: Norm, in_channels: int, width: int, stride: int, bias: bool | None = None
) -> list[Convolution]:
    """Return two 3x3 convolutions, the first with the stride; bias as in `Norm.conv`."""
    return [
        norm.conv(in_channels, width, 3, stride, bias=bias),
        norm.conv(width, width, 3, bias=bias),
    ]


def bottleneck_convolutions(
    norm: Norm,
    in_channels: int,
    width: int,
    stride: int,
    bias: bool | None = None,
    *,
    inner: int | None = None,
    groups: int = 1,
    stride_on: str = "3x3",
    spatial: int = 1,
) -> list[Convolution]:
    """Return 1x1, 3x3, 1x1 convolutions over `inner` channels (None: width), with the stride on one.

    spatial: how many 3x3 convolutions there are; the first one strides.
    """
    inner = width if inner is None else inner
    first, second = (1, stride) if stride_on == "3x3" else (stride, 1)
    return [
        norm.conv(in_channels, inner, 1, first, bias=bias),
        *(
            norm.conv(inner, inner, 3, second if i == 0 else 1, groups, bias=bias)
            for i in range(spatial)
        ),
        norm.conv(inner, EXPANSION * width, 1, bias=bias),
    ]
