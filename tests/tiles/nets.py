"""Small networks that go down and up again, written out plainly, to hold tiles against."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
UP = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def convolution(dims: int, cin: int, cout: int, pad: bool, norm: Any = NORM) -> nn.Sequential:
    conv = CONV[dims](cin, cout, 3, padding=1 if pad else 0)
    return nn.Sequential(conv, norm[dims](cout), nn.ReLU())


class Down(nn.Module):
    """A U-Net with skips, in double precision, so that differences are not those of rounding."""

    def __init__(
        self, dims: int = 2, depth: int = 2, classes: int = 3, *, pad: bool = True, norm: Any = NORM
    ) -> None:
        super().__init__()
        widths = [2 * 2**i for i in range(depth + 1)]
        self.enter = nn.ModuleList(
            convolution(dims, a, b, pad, norm) for a, b in itertools.pairwise([1, *widths])
        )
        self.pool = POOL[dims](2, ceil_mode=pad)
        self.up = nn.ModuleList(UP[dims](b, a, 2, 2) for a, b in itertools.pairwise(widths))
        self.leave = nn.ModuleList(convolution(dims, 2 * w, w, pad, norm) for w in widths[:-1])
        self.head = CONV[dims](widths[0], classes, 1)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for enter in self.enter[:-1]:
            x = enter(x)
            skips.append(x)
            x = self.pool(x)
        x = self.enter[-1](x)
        for up, leave in zip(reversed(self.up), reversed(self.leave), strict=True):
            skip, x = skips.pop(), up(x)
            for axis in range(2, x.dim()):
                size = min(skip.shape[axis], x.shape[axis])
                skip = skip.narrow(axis, (skip.shape[axis] - size) // 2, size)
                x = x.narrow(axis, 0, size)
            x = leave(torch.cat([skip, x], 1))
        y: Tensor = self.head(x)
        return y


def whole(network: nn.Module, picture: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the probabilities (K, *S) of a picture (C, *S), without tiles."""
    with torch.inference_mode():
        scores = network.eval()(torch.from_numpy(np.ascontiguousarray(picture))[None])
    return scores.softmax(1)[0].numpy()


def noise(*shape: int, seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(1, *shape))
