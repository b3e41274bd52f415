"""Additive PyramidNets: depth, widening and blocks of Han, Kim, Kim 2017.

The k-th of N blocks is 16 + alpha k / N wide, rounded to the nearest; a bottleneck is four times as wide
outside. Convolutions have no bias; a norm has two parameters a channel; ten classes.
"""

from fractions import Fraction
from math import floor


def counts(depth, alpha, bottleneck):
    """Return (parameters, multiply-adds) at ten classes and 32 pixels."""
    stage = (depth - 2) // (9 if bottleneck else 6)
    n = 3 * stage
    weights, norms, adds = 27 * 16, 16, 27 * 16 * 1024
    before = 16
    for k in range(1, n + 1):
        w = floor(16 + Fraction(alpha * k, n) + Fraction(1, 2))
        side = 32 >> ((k - 1) // stage)
        enters = 2 * side if k > stage and k % stage == 1 else side  # before the block's stride
        if bottleneck:
            layers = [(before * w, enters), (9 * w * w, side), (4 * w * w, side)]
            norms += before + w + w + 4 * w
            before = 4 * w
        else:
            layers = [(9 * before * w, side), (9 * w * w, side)]
            norms += before + w + w
            before = w
        weights += sum(size for size, _ in layers)
        adds += sum(size * pixels**2 for size, pixels in layers)
    norms += before  # the last one, before the classifier
    head = 10 * before
    return weights + 2 * norms + head + 10, adds + head


COUNTS = {
    "pyramidnet110_a48_cifar": counts(110, 48, bottleneck=False),
    "pyramidnet110_a84_cifar": counts(110, 84, bottleneck=False),
    "pyramidnet110_a270_cifar": counts(110, 270, bottleneck=False),
    "pyramidnet164_a270_cifar": counts(164, 270, bottleneck=True),
    "pyramidnet272_a200_cifar": counts(272, 200, bottleneck=True),
}
