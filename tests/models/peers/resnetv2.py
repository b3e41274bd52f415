"""Pre-activation ResNets and BiT, by timm's names.

y = s + f(a), a = relu(norm(x))     s = x, or W a in the first block of a stage
"""

import torch
import torch.nn.functional as F

from . import layers

DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
EPS = 1e-10  # under the root of the weights' variance, in the BiT authors' code; timm has 1e-8


def shapes(depth, k=1, running=True, deep=(), third=None):
    """k: times as many channels. deep: those of the stem's three convolutions. running: batch norm.

    third: the name of a third parameter of every norm, which then is an activation too.
    """
    if deep:
        names = layers.conv("stem.conv1", deep[0], 3, 3)
        for i in (1, 2):
            names |= layers.norm(f"stem.norm{i}", deep[i - 1], running)
            names |= layers.conv(f"stem.conv{i + 1}", deep[i], deep[i - 1], 3)
    else:
        names = layers.conv("stem.conv", 64 * k, 3, 7)
    channels = 64 * k
    for s, blocks in enumerate(DEPTHS[depth]):
        width = 64 * k * 2**s
        for b in range(blocks):
            at = f"stages.{s}.blocks.{b}"
            cout = width if depth < 50 else 4 * width
            if b == 0 and channels != cout:
                names |= layers.conv(f"{at}.downsample.conv", cout, channels, 1)
            outs = (width, width) if depth < 50 else (width, width, cout)
            kernels = (3, 3) if depth < 50 else (1, 3, 1)
            for i, (out, kernel) in enumerate(zip(outs, kernels, strict=True), start=1):
                names |= layers.norm(f"{at}.norm{i}", channels, running=running)
                names |= layers.conv(f"{at}.conv{i}", out, channels, kernel)
                channels = out
    names |= layers.norm("norm", channels, running=running)
    if third is not None:
        norms = {name for name in names if "norm" in name and name.endswith(".weight")}
        names |= {name.removesuffix("weight") + third: names[name] for name in norms}
    return names | layers.conv("head.fc", 1000, channels, 1, bias=True)


def forward(net, x, eps=EPS):
    """net: Layers of a state dict. x: (N, 3, H, W)."""
    bit = "norm.running_mean" not in net.state and "stem.conv" in net
    if bit:
        net = type(net)({name: _standardised(name, w, eps) for name, w in net.state.items()})

    def activated(name, x):
        if f"{name}.v" in net.state:
            return _evonorm(net, name, x)
        if f"{name}.tau" in net.state:
            return _thresholded(net, name, x)
        return F.relu(net.norm(name, x))

    if "stem.conv1" in net:
        x = activated("stem.norm1", net.conv("stem.conv1", x, 2))
        x = net.conv("stem.conv3", activated("stem.norm2", net.conv("stem.conv2", x)))
    else:
        x = net.conv("stem.conv", x, 2)
    x = F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2) if bit else F.max_pool2d(x, 3, 2, 1)
    for s in range(4):
        for b in range(net.count(f"stages.{s}.blocks.{{}}.")):
            at, stride = f"stages.{s}.blocks.{b}", 2 if b == 0 and s > 0 else 1
            strides = (1, stride, 1) if f"{at}.conv3" in net else (stride, 1)
            f = activated(f"{at}.norm1", x)
            if f"{at}.downsample.conv" in net:
                x = net.conv(f"{at}.downsample.conv", *_read(net, f, stride))
            for i, step in enumerate(strides, start=1):
                f = activated(f"{at}.norm{i}", f) if i > 1 else f
                f = net.conv(f"{at}.conv{i}", f, step)
            x = x + f
    return net.linear("head.fc", activated("norm", x).mean((2, 3)))


def _affine(net, name, x):
    gamma, beta = (net.state[f"{name}.{leaf}"].view(-1, 1, 1) for leaf in ("weight", "bias"))
    return gamma * x + beta


def _evonorm(net, name, x):
    gate = (x * net.state[f"{name}.v"].view(-1, 1, 1)).sigmoid()
    groups = x.reshape(len(x), 32, -1)
    deviation = (groups.var(2, correction=0) + 1e-5).sqrt()
    deviation = deviation.repeat_interleave(x.shape[1] // 32, 1)[:, :, None, None]
    return _affine(net, name, x * gate / deviation)


def _thresholded(net, name, x):
    y = _affine(net, name, x / (x.square().mean((2, 3), keepdim=True) + 1e-5).sqrt())
    return torch.maximum(y, net.state[f"{name}.tau"].view(-1, 1, 1))


def _read(net, x, stride):
    """What a projection convolves, and its stride: with a deep stem averages of 2x2 pixels."""
    if stride == 1 or "stem.conv1" not in net:
        return x, stride
    return F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False), 1


def _standardised(name, w, eps):
    """Filters of mean 0 and variance 1 (BiT); the head is as it is."""
    if w.dim() < 4 or name.startswith("head"):
        return w
    mean = w.mean((1, 2, 3), keepdim=True)
    return (w - mean) / ((w - mean).pow(2).mean((1, 2, 3), keepdim=True) + eps).sqrt()
