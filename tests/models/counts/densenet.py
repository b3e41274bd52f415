"""DenseNet: Huang et al. 2017, table 1 and section 4.2, in sums over the layers of each block.

Layer l of a block reads c = c0 + l k channels. A bottleneck layer has norms of c and 4 k channels and
convolutions of 4 k c and 9 * 4 k * k weights; a basic layer a norm of c and a convolution of 9 c k.
"""


def block(c0, k, layers, bottleneck):
    """Return (norms' parameters, convolutions' weights) of a dense block."""
    read = layers * c0 + k * layers * (layers - 1) // 2  # sum of c over the layers
    if bottleneck:
        return 2 * (read + layers * 4 * k), 4 * k * read + layers * 36 * k * k
    return 2 * read, 9 * k * read


def count(blocks, k, bottleneck, large, deep=False):
    """deep: a stem of three 3x3 convolutions of k, k and 2 k channels, each with a norm, as in timm's."""
    c = 2 * k if bottleneck else 16
    side, kernel, classes = (56, 7, 1000) if large else (32, 3, 10)
    weights = 9 * (3 * k + k * k + k * 2 * k) if deep else kernel**2 * 3 * c
    adds = weights * (112 if large else 32) ** 2
    parameters = weights + (2 * c if large else 0) + (2 * 2 * k if deep else 0)
    for i, layers in enumerate(blocks):
        if i > 0:  # the transition convolves before it pools
            smaller = c // 2 if bottleneck else c
            parameters += 2 * c + c * smaller
            adds += c * smaller * side**2
            c, side = smaller, side // 2
        norms, weights = block(c, k, layers, bottleneck)
        parameters += norms + weights
        adds += weights * side**2
        c += layers * k
    return parameters + 2 * c + c * classes + classes, adds + c * classes


COUNTS = {
    "densenet121": count((6, 12, 24, 16), 32, True, True),
    "densenet161": count((6, 12, 36, 24), 48, True, True),
    "densenet169": count((6, 12, 32, 32), 32, True, True),
    "densenet201": count((6, 12, 48, 32), 32, True, True),
    "densenet264": count((6, 12, 64, 48), 32, True, True),
    "densenet264d": count((6, 12, 64, 48), 48, True, True, deep=True),
    "densenetblur121d": count((6, 12, 24, 16), 32, True, True, deep=True),
    "densenet40_12_cifar": count((12, 12, 12), 12, False, False),
    "densenet100_12_cifar": count((32, 32, 32), 12, False, False),
    "densenet100_24_cifar": count((32, 32, 32), 24, False, False),
    "densenet_bc100_12_cifar": count((16, 16, 16), 12, True, False),
    "densenet_bc190_40_cifar": count((31, 31, 31), 40, True, False),
    "densenet_bc250_24_cifar": count((41, 41, 41), 24, True, False),
    "densenet_bc40_36_cifar": count((6, 6, 6), 36, True, False),
    "densenet_bc40_48_cifar": count((6, 6, 6), 48, True, False),
    "densenet_bc40_60_cifar": count((6, 6, 6), 60, True, False),
}
