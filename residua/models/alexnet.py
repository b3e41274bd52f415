"""AlexNet: five convolutions and three linear layers; where deep networks for pictures began.

    stem      conv11x11/4 relu maxpool3x3/2, 64 channels
    stage 0   conv5x5 relu maxpool3x3/2, 192 channels
    stage 1   conv3x3 relu (384, 256, 256 channels) maxpool3x3/2
    head      average pooling to 6x6, dropout fc 4096 relu, dropout fc 4096 relu, fc

Krizhevsky 2014 (One weird trick), the one-tower variant of Krizhevsky, Sutskever, Hinton 2012, without local
response normalisation, as in torchvision. Started from He's initialisation by fan-in, in the hidden linear
layers too; the original drew from N(0, 0.01^2). In training, dropout before the first two linear layers.

Shapes: (N, C, H, W) -> (N, classes), H, W >= 63; the maps are (H - 7) // 4 + 1 high after the convolution of
the stem, then (h - 3) // 2 + 1 after each pooling. Raises ValueError for smaller pictures.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from residua.models.network import Network
from residua.models.registry import register
from residua.models.straight import Perceptron, activated
from residua.nn.init import initialise
from residua.nn.init.scheme import Fan
from residua.nn.norms import make_norm

PAPER = "Krizhevsky 2014, One weird trick for parallelizing convolutional neural networks"

SMALLEST = 63  # 63 -> 15 -> 7 -> 3 -> 1 pixels
CHANNELS = (192, 256)


class AtLeast(nn.Module):
    """Pass pictures on if both sides have so many pixels, else ValueError: (N, C, H, W) as it is."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Check the size."""
        height, width = x.shape[2:]
        if height < self.side or width < self.side:
            raise ValueError(
                f"pictures must be at least {self.side} x {self.side} pixels, not {height} x {width}"
            )
        return x


def alexnet(
    *,
    num_classes: int,
    in_channels: int,
    norm: str = "none",
    dropout: float = 0.5,
    init: str = "he",
    fan: Fan = "fan_in",
    features_only: bool = False,
) -> Network:
    """Build an AlexNet.

    norm: one of `residua.nn.NORMS`, after each convolution (which keeps its bias). dropout:
    probability in the head. init, fan: of the convolutions, see `residua.nn.initialise`.
    features_only: no head; return one map a stage.
    """
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout {dropout} is not in [0, 1)")
    how = make_norm(norm)

    def conv(cin: int, cout: int, kernel: int) -> nn.Sequential:
        return nn.Sequential(activated(how.conv(cin, cout, kernel, bias=True), how))

    # Not a "same" convolution: torchvision's padding of 2 rather than half the kernel.
    first = activated(how.convolution(in_channels, 64, 11, stride=4, padding=2), how)
    stem = nn.Sequential(OrderedDict(size=AtLeast(SMALLEST), **first, pool=_pool()))
    stages = [
        nn.Sequential(conv(64, 192, 5), _pool()),
        nn.Sequential(conv(192, 384, 3), conv(384, 256, 3), conv(256, 256, 3), _pool()),
    ]
    head = None if features_only else Perceptron(256, 6, num_classes, dropout, dropout_first=True)
    network = Network(stem, stages, None, head, CHANNELS)
    initialise(network, init, fan)
    return network


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2)


register(
    "alexnet",
    alexnet,
    family="alexnet",
    paper=PAPER,
    parameters=61_100_840,
    multiply_adds=714_188_480,
    input_size=224,
    num_classes=1000,
    preset={},
    smallest=SMALLEST,
)
