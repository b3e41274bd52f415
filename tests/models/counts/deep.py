"""Networks without norms: three stages of basic blocks at 16, 32, 64 channels for 32 pixels; Fixup-ResNets.

Stable and SkipInit networks have a bias in every convolution but a projection's. Fixup's convolutions have
none; each block has a scalar bias before and after every convolution and one multiplier, the stem one bias,
the head one. Sources: Hayou et al. 2021; De, Smith 2020; Zhang, Dauphin, Ma 2019, figure 1.
"""

STAGES = {20: (3, 3, 3), 56: (9, 9, 9), 110: (18, 18, 18), 2002: (333, 334, 333)}


def small(depth, *, projections, biases, scalars):
    """Return (parameters, multiply-adds) for basic blocks."""
    parameters = 27 * 16 + (16 if biases else 0)
    adds = 27 * 16 * 32**2
    channels = 16
    for stage, blocks in enumerate(STAGES[depth]):
        width, pixels = 16 * 2**stage, (32 // 2**stage) ** 2
        weights = 9 * channels * width + (2 * blocks - 1) * 9 * width * width
        if projections and width != channels:
            weights += channels * width
        parameters += weights + blocks * scalars + (2 * blocks * width if biases else 0)
        adds += weights * pixels
        channels = width
    return parameters + 64 * 10 + 10, adds + 64 * 10


def fixup_small(depth):
    parameters, adds = small(depth, projections=False, biases=False, scalars=4 + 1)
    return parameters + 2, adds


def fixup_large(blocks):
    """Bottlenecks at 224 pixels: six biases and a multiplier a block."""
    parameters, adds = 49 * 3 * 64 + 1, 49 * 3 * 64 * 112**2
    channels, before = 64, 56
    for stage, n in enumerate(blocks):
        width, side = 64 * 2**stage, 56 // 2**stage
        for _ in range(n):
            first, rest = channels * width, 9 * width**2 + 4 * width**2
            projection = channels * 4 * width if channels != 4 * width else 0
            parameters += first + rest + projection + 6 + 1
            adds += first * before**2 + (rest + projection) * side**2
            channels, before = 4 * width, side
    return parameters + 1 + channels * 1000 + 1000, adds + channels * 1000


COUNTS = {
    f"stable_resnet{d}_cifar": small(d, projections=False, biases=True, scalars=0) for d in STAGES
}
COUNTS |= {
    f"skipinit_resnet{d}_cifar": small(d, projections=True, biases=True, scalars=1) for d in STAGES
}
COUNTS |= {f"fixup_resnet{d}_cifar": fixup_small(d) for d in STAGES}
COUNTS["fixup_resnet50"] = fixup_large((3, 4, 6, 3))
COUNTS["fixup_resnet101"] = fixup_large((3, 4, 23, 3))
