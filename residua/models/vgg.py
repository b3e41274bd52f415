"""VGG: plain stacks of 3x3 convolutions, halved by pooling; what residual networks are compared with.

    stem    conv3x3 (norm) relu, 64 channels
    stage i the rest of the convolutions at 64, 128, 256, 512, 512 channels, then 2x2 max pooling
    head    average pooling to 7x7, fc 4096 relu dropout, fc 4096 relu dropout, fc

Simonyan, Zisserman 2015, table 1: configurations A (11 weight layers), B (13), D (16) and E (19). The `_bn`
networks put batch norm (Ioffe, Szegedy 2015) after each convolution; their convolutions keep the bias, as
torchvision's do. For 32-pixel pictures there is one linear layer after global average pooling, as usual
on CIFAR (Veit, Wilber, Belongie 2016 delete layers of such a network).

Started from He's initialisation, by fan-in: without a norm nothing restores what fan-out loses where layers
widen; the hidden linear layers too. The paper drew from N(0, 0.01^2) and could train its deeper networks
only from the shallow ones. In training, dropout before each of the last two linear layers (for 32 pixels:
before the one).

Shapes: (N, C, H, W) -> (N, classes), any H, W >= 1: a side of one pixel is no longer halved.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from residua.models.network import Network
from residua.models.registry import register
from residua.models.straight import DropoutHead, Perceptron, activated
from residua.nn.init import initialise
from residua.nn.init.scheme import Fan
from residua.nn.norms import make_norm
from residua.nn.pooling import Halve

PAPER = (
    "Simonyan, Zisserman 2015, Very Deep Convolutional Networks for Large-Scale Image Recognition"
)

WIDTHS = (64, 128, 256, 512, 512)

# depth: convolutions at each width (table 1)
DEPTHS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


def vgg(
    *,
    depths: Sequence[int],
    small: bool,
    num_classes: int,
    in_channels: int,
    norm: str = "none",
    dropout: float = 0.5,
    init: str = "he",
    fan: Fan = "fan_in",
    features_only: bool = False,
) -> Network:
    """Build a VGG network.

    Args:
        depths: convolutions at each of the five widths, the stem's counted.
        small: one linear layer after global pooling (32 pixels) rather than three.
        norm: one of `residua.nn.NORMS`, after each convolution. dropout: probability in the head.
        init, fan: of the convolutions, see `residua.nn.initialise`.
        features_only: no head; return one map a stage.
    """
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout {dropout} is not in [0, 1)")
    how = make_norm(norm)

    def convolution(cin: int, cout: int) -> nn.Sequential:
        return nn.Sequential(activated(how.conv(cin, cout, 3, bias=True), how))

    stages = []
    channels = WIDTHS[0]
    for i, (depth, width) in enumerate(zip(depths, WIDTHS, strict=True)):
        stage = nn.Sequential()
        for _ in range(depth if i else depth - 1):  # the first convolution is the stem
            stage.append(convolution(channels, width))
            channels = width
        stages.append(stage.append(Halve("max")))
    head: nn.Module | None = None
    if not features_only:
        head = (
            DropoutHead(channels, num_classes, dropout)
            if small
            else Perceptron(channels, 7, num_classes, dropout, dropout_first=False)
        )
    network = Network(convolution(in_channels, WIDTHS[0]), stages, None, head, WIDTHS)
    initialise(network, init, fan)
    return network


# name: (depth, parameters, multiply-adds)
IMAGENET = {
    "vgg11": (11, 132_863_336, 7_609_090_048),
    "vgg13": (13, 133_047_848, 11_308_466_176),
    "vgg16": (16, 138_357_544, 15_470_264_320),
    "vgg19": (19, 143_667_240, 19_632_062_464),
    "vgg11_bn": (11, 132_868_840, 7_609_090_048),
    "vgg13_bn": (13, 133_053_736, 11_308_466_176),
    "vgg16_bn": (16, 138_365_992, 15_470_264_320),
    "vgg19_bn": (19, 143_678_248, 19_632_062_464),
}

CIFAR = {
    "vgg16_bn_cifar": (16, 14_728_266, 313_201_664),
    "vgg19_bn_cifar": (19, 20_040_522, 398_136_320),
}

for table, size, classes in ((IMAGENET, 224, 1000), (CIFAR, 32, 10)):
    for name, (depth, parameters, multiply_adds) in table.items():
        register(
            name,
            vgg,
            family="vgg",
            paper=PAPER,
            parameters=parameters,
            multiply_adds=multiply_adds,
            input_size=size,
            num_classes=classes,
            preset={"depths": DEPTHS[depth], "small": size == 32},
            defaults={"norm": "batch"} if "_bn" in name else {},
        )
