"""NF-ResNets: He et al. 2015, table 1, without norms; Brock, De, Smith 2021 for what stands in their place.

A convolution from c to d channels has k^2 c d weights, d gains and, but for the stem's, d biases. The first
block of each stage projects, unless it keeps the shape, as the first one for 32 pixels does.
"""


def large(blocks):
    """Bottlenecks at 224 pixels: a stage of n blocks of inner width w reads c and puts out 4 w."""
    weights, filters, biased, adds = 147 * 64, 64, 0, 147 * 64 * 112**2
    c, side = 64, 56
    for n, w in zip(blocks, (64, 128, 256, 512), strict=True):
        out = 56 * 64 // w
        # The first 1x1 runs before the stride, the projection after it.
        adds += c * w * side**2 + (9 * w * w + 4 * w * w + 4 * w * c) * out**2
        adds += (n - 1) * 17 * w * w * out**2
        weights += c * w + 13 * w * w + 4 * w * c + (n - 1) * 17 * w * w
        biased += n * (w + w + 4 * w) + 4 * w
        c, side = 4 * w, out
    scalars = sum(blocks)
    head = 2048 * 1000
    return weights + filters + 2 * biased + scalars + head + 1000, adds + head


def small(n):
    """Basic blocks at 32 pixels, 6 n + 2 layers: stages of n blocks of 16, 32, 64 channels."""
    weights = 27 * 16 + 9 * ((2 * n) * 16**2 + 16 * 32 + (2 * n - 1) * 32**2)
    weights += 9 * (32 * 64 + (2 * n - 1) * 64**2) + 16 * 32 + 32 * 64
    biased = 2 * n * (16 + 32 + 64) + 32 + 64
    adds = 32**2 * (27 * 16 + 9 * 2 * n * 16**2)
    adds += 16**2 * (9 * (16 * 32 + (2 * n - 1) * 32**2) + 16 * 32)
    adds += 8**2 * (9 * (32 * 64 + (2 * n - 1) * 64**2) + 32 * 64)
    return weights + 16 + 2 * biased + 3 * n + 640 + 10, adds + 640


COUNTS = {
    "nf_resnet26": large((2, 2, 2, 2)),
    "nf_resnet50": large((3, 4, 6, 3)),
    "nf_resnet101": large((3, 4, 23, 3)),
    "nf_resnet152": large((3, 8, 36, 3)),
    "nf_resnet20_cifar": small(3),
    "nf_resnet56_cifar": small(9),
    "nf_resnet110_cifar": small(18),
}
