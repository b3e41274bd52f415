"""Options B and C: a projection, where shapes change or on every block; D: one that reads every pixel.

    B, C   s(x) = norm(W x)           W a 1x1 convolution of stride r; He et al. 2015, section 3.3
    D      s(x) = norm(W pool(x))     pool the r x r average, W of stride 1; He, T. et al. 2019, fig. 2c

A strided 1x1 convolution reads one pixel in r^2, D reads all. In a pre-activation network (He 2016b)
the projection has no norm of its own: its input is already normalised. C is also the "1x1 conv"
shortcut of 2016b, figure 2d.

Shapes: x (N, C, *S) -> (N, C', *ceil(S / r)). Training and evaluation differ as the norm.

Measured (python benchmarks/parts.py, docs/parts.md): after 200 steps a ResNet-20 recognises 53.1 %; with
shortcut=B 51.9 %, 1.02; shortcut=C 48.2 %, 1.18; shortcut=D 52.6 %, 1.02 (accuracy, time of a step).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from residua.nn.norms import Norm

POOLS: dict[int, Callable[..., nn.Module]] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}


class Projection(nn.Sequential):
    """A 1x1 convolution with stride, then a norm if `normalise`; `average` pools instead of striding."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        norm: Norm,
        normalise: bool = True,
        average: bool = False,
    ) -> None:
        super().__init__()
        if average and stride > 1:
            window = norm.each(stride)
            self.pool = POOLS[norm.dims](window, window, ceil_mode=True, count_include_pad=False)
            stride = 1
        self.conv = norm.conv(in_channels, out_channels, 1, stride, bias=False)
        if normalise and norm.layer is not None:
            self.norm = norm.layer(out_channels)
