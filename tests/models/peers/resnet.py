"""ResNet, ResNeXt, wide, C, D, S, T, SE, antialiased and RS networks, by torchvision's and timm's names.

y = relu(s(x) + f(x))     f = conv bn relu conv bn, or 1x1 bn relu 3x3 bn relu 1x1 bn; SE after the last
"""

import torch
import torch.nn.functional as F

from . import layers

DEPTHS = {
    10: (1, 1, 1, 1),
    14: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    26: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
    201: (3, 24, 36, 4),
    269: (3, 30, 48, 8),
    270: (4, 29, 53, 4),
    350: (4, 36, 72, 4),
    420: (4, 44, 87, 4),
}
BASIC = (10, 18, 34)


def shapes(depth, groups=1, base=64, deep=(), pooled=False, se=None, strided=False, running=True):
    """deep: channels of the stem's three convolutions. se: the part of the channels that its inner layer has.

    strided: a convolution for the stem's pooling. running: batch norm, not group norm.
    """
    names = {}
    channels = deep[-1] if deep else 64
    if deep:
        for i, cout, cin in zip((0, 3, 6), deep, (3, *deep), strict=False):
            names |= layers.conv(f"conv1.{i}", cout, cin, 3)
            names |= layers.norm(f"conv1.{i + 1}", cout) if i < 6 else {}
    else:
        names |= layers.conv("conv1", channels, 3, 7)
    names |= layers.norm("bn1", channels, running)
    if strided:
        names |= layers.conv("maxpool.0", channels, channels, 3)
        names |= layers.norm("maxpool.1", channels)
    expansion = 1 if depth in BASIC else 4
    for s, blocks in enumerate(DEPTHS[depth]):
        width = 64 * 2**s
        for b in range(blocks):
            at, cin, cout = f"layer{s + 1}.{b}", channels, width * expansion
            inner = width if depth in BASIC else int(width * base / 64) * groups
            if depth in BASIC:
                convolutions = [(inner, cin, 3, 1), (inner, inner, 3, 1)]
            else:
                convolutions = [(inner, cin, 1, 1), (inner, inner, 3, groups), (cout, inner, 1, 1)]
            for i, convolution in enumerate(convolutions, start=1):
                names |= layers.conv(f"{at}.conv{i}", *convolution)
                names |= layers.norm(f"{at}.bn{i}", convolution[0], running)
            if se is not None:  # rounded to a multiple of 8
                squeezed = max(8, (cout // se + 4) // 8 * 8)
                names |= layers.conv(f"{at}.se.fc1", squeezed, cout, 1, bias=True)
                names |= layers.conv(f"{at}.se.fc2", cout, squeezed, 1, bias=True)
            if cin != cout:
                names |= layers.conv(f"{at}.downsample.{0 + pooled}", cout, cin, 1)
                names |= layers.norm(f"{at}.downsample.{1 + pooled}", cout, running)
            channels = cout
    return names | layers.linear("fc", 1000, channels)


def blurred(x):
    """Every second pixel after a convolution of each map with the binomial kernel, mirrored at the border."""
    row = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype) / 4
    kernel = torch.outer(row, row).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, stride=2, groups=x.shape[1])


def forward(net, x, smooth=None):
    """net: Layers of a state dict. x: (N, 3, H, W). smooth: what halves maps in the place of strides."""
    if "conv1.0" in net:
        x = F.relu(net.norm("conv1.1", net.conv("conv1.0", x, 2)))
        x = F.relu(net.norm("conv1.4", net.conv("conv1.3", x)))
        x = net.conv("conv1.6", x)
    else:
        x = net.conv("conv1", x, 2)
    x = F.relu(net.norm("bn1", x))
    if "maxpool.0" in net:
        x = F.relu(net.norm("maxpool.1", net.conv("maxpool.0", x, 2)))
    elif smooth is None:
        x = F.max_pool2d(x, 3, 2, 1)
    else:
        x = blurred(F.max_pool2d(x, 3, 1, 1)) if smooth is blurred else smooth(x)
    for s in range(1, 5):
        for b in range(net.count(f"layer{s}.{{}}.")):
            x = _block(net, f"layer{s}.{b}", x, 2 if b == 0 and s > 1 else 1, smooth)
    return net.linear("fc", x.mean((2, 3)))


def _block(net, at, x, stride, smooth):
    strides = (1, stride, 1) if f"{at}.conv3" in net else (stride, 1)
    f = x
    for i, step in enumerate(strides, start=1):
        f = net.conv(f"{at}.conv{i}", f, step if smooth is None else 1)
        f = net.norm(f"{at}.bn{i}", f)
        f = F.relu(f) if i < len(strides) else f
        f = smooth(f) if smooth is not None and step == 2 else f
    if f"{at}.se.fc1" in net:
        gain = F.relu(net.conv(f"{at}.se.fc1", f.mean((2, 3), keepdim=True)))
        f = f * net.conv(f"{at}.se.fc2", gain).sigmoid()
    if f"{at}.downsample.2" in net:
        # Averages of 2x2 pixels, at an odd edge of those that are there.
        s = F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False) if stride == 2 else x
        x = net.norm(f"{at}.downsample.2", net.conv(f"{at}.downsample.1", s))
    elif f"{at}.downsample.0" in net:
        x = net.norm(f"{at}.downsample.1", net.conv(f"{at}.downsample.0", x, stride))
    return F.relu(x + f)
