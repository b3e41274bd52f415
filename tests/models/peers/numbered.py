"""AlexNet and VGG, by torchvision's numbers.

A column is a list of convolutions' channels, with M for each 2x2 pooling (Simonyan, Zisserman 2015, table 1).
"""

import torch.nn.functional as F

from . import layers

COLUMNS = {
    11: "64 M 128 M 256 256 M 512 512 M 512 512 M",
    13: "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    16: "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    19: "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}
# number of the layer: channels, kernel
ALEXNET = {0: (64, 11), 3: (192, 5), 6: (384, 3), 8: (256, 3), 10: (256, 3)}


def vgg_shapes(depth, bn=False):
    names, at, channels = {}, 0, 3
    for word in COLUMNS[depth].split():
        if word == "M":
            at += 1
            continue
        names |= layers.conv(f"features.{at}", int(word), channels, 3, bias=True)
        channels = int(word)
        if bn:
            names |= layers.norm(f"features.{at + 1}", channels)
        at += 3 if bn else 2
    return names | _classifier((0, 3, 6), channels * 7 * 7)


def alexnet_shapes():
    names, channels = {}, 3
    for at, (out, kernel) in ALEXNET.items():
        names |= layers.conv(f"features.{at}", out, channels, kernel, bias=True)
        channels = out
    return names | _classifier((1, 4, 6), channels * 6 * 6)


def _classifier(at, features):
    sizes = (features, 4096, 4096, 1000)
    names = {}
    for i, cin, cout in zip(at, sizes, sizes[1:], strict=False):
        names |= layers.linear(f"classifier.{i}", cout, cin)
    return names


def vgg_features(net, x, depth):
    """net: Layers of a state dict. x: (N, 3, H, W)."""
    at = 0
    for word in COLUMNS[depth].split():
        if word == "M":
            x, at = F.max_pool2d(x, 2), at + 1
            continue
        x = net.conv(f"features.{at}", x)
        if "features.1" in net:
            x, at = net.norm(f"features.{at + 1}", x), at + 1
        x, at = F.relu(x), at + 2
    return x


def vgg(net, x, depth):
    """Dropout is nothing in evaluation."""
    x = F.adaptive_avg_pool2d(vgg_features(net, x, depth), 7).flatten(1)
    x = F.relu(net.linear("classifier.3", F.relu(net.linear("classifier.0", x))))
    return net.linear("classifier.6", x)


def alexnet_features(net, x):
    """net: Layers of a state dict. x: (N, 3, H, W)."""
    x = F.max_pool2d(F.relu(net.conv("features.0", x, 4, padding=2)), 3, 2)
    x = F.max_pool2d(F.relu(net.conv("features.3", x)), 3, 2)
    for at in (6, 8, 10):
        x = F.relu(net.conv(f"features.{at}", x))
    return F.max_pool2d(x, 3, 2)


def alexnet(net, x):
    """Dropout is nothing in evaluation."""
    x = F.adaptive_avg_pool2d(alexnet_features(net, x), 6).flatten(1)
    x = F.relu(net.linear("classifier.4", F.relu(net.linear("classifier.1", x))))
    return net.linear("classifier.6", x)
