"""DenseNets, by torchvision's and timm's names.

y = [x, conv3x3(relu(bn(conv1x1(relu(bn(x))))))]
"""

import torch
import torch.nn.functional as F

from . import layers, resnet

BLOCKS = {
    121: (6, 12, 24, 16),
    161: (6, 12, 36, 24),
    169: (6, 12, 32, 32),
    201: (6, 12, 48, 32),
    264: (6, 12, 64, 48),
}


def shapes(depth, growth=None, deep=False):
    """deep: a stem of three 3x3 convolutions."""
    growth = growth or (48 if depth == 161 else 32)
    channels = 2 * growth
    stem = (
        [(growth, 3, 3), (growth, growth, 3), (channels, growth, 3)] if deep else [(channels, 3, 7)]
    )
    names = {}
    for i, (cout, cin, kernel) in enumerate(stem):
        names |= layers.conv(f"features.conv{i}", cout, cin, kernel)
        names |= layers.norm(f"features.norm{i}", cout)
    for s, count in enumerate(BLOCKS[depth], start=1):
        for i in range(1, count + 1):
            at = f"features.denseblock{s}.denselayer{i}"
            names |= layers.norm(f"{at}.norm1", channels) | layers.conv(
                f"{at}.conv1", 4 * growth, channels, 1
            )
            names |= layers.norm(f"{at}.norm2", 4 * growth) | layers.conv(
                f"{at}.conv2", growth, 4 * growth, 3
            )
            channels += growth
        if s < 4:
            names |= layers.norm(f"features.transition{s}.norm", channels)
            names |= layers.conv(f"features.transition{s}.conv", channels // 2, channels, 1)
            channels //= 2
    return (
        names
        | layers.norm("features.norm5", channels)
        | layers.linear("classifier", 1000, channels)
    )


def forward(net, x, blur=False):
    """net: Layers of a state dict. x: (N, 3, H, W), H and W at least 29. blur: after the stem's pooling."""

    def activated(name, x):
        return F.relu(net.norm(name, x))

    x = activated("features.norm0", net.conv("features.conv0", x, 2))
    for i in (1, 2) if "features.conv2" in net else ():
        x = activated(f"features.norm{i}", net.conv(f"features.conv{i}", x))
    x = resnet.blurred(F.max_pool2d(x, 3, 1, 1)) if blur else F.max_pool2d(x, 3, 2, 1)
    for s in range(1, 5):
        for i in range(1, 1 + net.count(f"features.denseblock{s}.denselayer{{}}.", first=1)):
            at = f"features.denseblock{s}.denselayer{i}"
            f = net.conv(f"{at}.conv1", activated(f"{at}.norm1", x))
            x = torch.cat([x, net.conv(f"{at}.conv2", activated(f"{at}.norm2", f))], 1)
        if s < 4:
            at = f"features.transition{s}"
            x = F.avg_pool2d(net.conv(f"{at}.conv", activated(f"{at}.norm", x)), 2)
    return net.linear("classifier", activated("features.norm5", x).mean((2, 3)))
