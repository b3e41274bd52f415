"""ResNet v2: He et al. 2016b; the convolutions of v1, a norm before each one of a branch, and one at the end.

The stem and the projections have no norm of their own; no convolution has a bias.
"""

IMAGENET = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}


def basic(cin, width, stride, side, project):
    """Return (weights, normed channels, multiply-adds) of a block whose output map is `side` high."""
    weights = 9 * cin * width + 9 * width * width + (cin * width if project else 0)
    return weights, cin + width, weights * side**2


def bottleneck(cin, width, stride, side, project):
    reduce, spatial, expand = cin * width, 9 * width * width, 4 * width * width
    project = 4 * cin * width if project else 0
    adds = reduce * (stride * side) ** 2 + (spatial + expand + project) * side**2
    return reduce + spatial + expand + project, cin + 2 * width, adds


def count(stages, block, small):
    """Return (parameters, multiply-adds) with 10 classes at 32 pixels, or 1000 at 224."""
    kernel, width, stem, side, classes = (3, 16, 32, 32, 10) if small else (7, 64, 112, 56, 1000)
    expansion = 4 if block is bottleneck else 1
    parameters = 3 * kernel**2 * width
    adds = parameters * stem**2
    channels = width
    for i, n in enumerate(stages):
        for j in range(n):
            stride = 2 if i and not j else 1
            side //= stride
            # where shapes change; 32-pixel networks of basic blocks pad with zeros instead
            changes = channels != expansion * width and not (small and block is basic)
            weights, normed, work = block(channels, width, stride, side, changes)
            parameters += weights + 2 * normed
            adds += work
            channels = expansion * width
        width *= 2
    return parameters + 2 * channels + channels * classes + classes, adds + channels * classes


COUNTS = {
    f"resnetv2_{depth}": count(stages, basic if depth < 50 else bottleneck, small=False)
    for depth, stages in IMAGENET.items()
}
for depth in (20, 32, 44, 56, 110, 1202):
    COUNTS[f"preact_resnet{depth}_cifar"] = count(((depth - 2) // 6,) * 3, basic, small=True)
for depth in (164, 1001):
    COUNTS[f"preact_resnet{depth}_cifar"] = count(((depth - 2) // 9,) * 3, bottleneck, small=True)
