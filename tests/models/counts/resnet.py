"""ResNet v1: He et al. 2015, table 1 (200 layers: 2016b) and section 4.2; a norm after each convolution.

Convolutions have no bias, a norm has two parameters a channel. Projections (1x1, with a norm) sit where
shapes change; the 32-pixel networks of basic blocks pad with zeros there. A bottleneck strides in its 3x3.
"""

# depth: (blocks of each stage, layers of a block)
IMAGENET = {
    18: ((2, 2, 2, 2), 2),
    34: ((3, 4, 6, 3), 2),
    50: ((3, 4, 6, 3), 3),
    101: ((3, 4, 23, 3), 3),
    152: ((3, 8, 36, 3), 3),
    200: ((3, 24, 36, 3), 3),
}
CIFAR = {20: 2, 32: 2, 44: 2, 56: 2, 110: 2, 164: 3, 1001: 3, 1202: 2}  # layers of a block


def count(stages, layers, small):
    """Return (parameters, multiply-adds) with 10 classes at 32 pixels, or 1000 at 224."""
    if small:
        width, side, classes = 16, 32, 10
        convolutions = [(27 * 16, 16, 32)]  # weights, channels, side of the output
    else:
        width, side, classes = 64, 56, 1000
        convolutions = [(147 * 64, 64, 112)]
    channels = width
    for stage, blocks in enumerate(stages):
        for block in range(blocks):
            before = side
            if stage > 0 and block == 0:
                side //= 2
            outer = width if layers == 2 else 4 * width
            if layers == 2:
                convolutions.append((9 * channels * width, width, side))
                convolutions.append((9 * width * width, width, side))
            else:
                convolutions.append((channels * width, width, before))
                convolutions.append((9 * width * width, width, side))
                convolutions.append((width * outer, outer, side))
            if channels != outer and not (small and layers == 2):
                convolutions.append((channels * outer, outer, side))
            channels = outer
        width *= 2
    head = channels * classes
    parameters = sum(weights + 2 * cout for weights, cout, _ in convolutions) + head + classes
    return parameters, sum(weights * side**2 for weights, _, side in convolutions) + head


COUNTS = {f"resnet{depth}": count(*how, small=False) for depth, how in IMAGENET.items()}
for depth, layers in CIFAR.items():
    stage = (depth - 2) // (3 * layers)
    COUNTS[f"resnet{depth}_cifar"] = count((stage,) * 3, layers, small=True)
