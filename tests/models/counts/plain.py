"""Plain networks: He et al. 2015, figure 3 middle and section 4.2; basic blocks without their shortcuts.

Every 3x3 convolution has a norm of two parameters a channel after it, and no bias.
"""


def count(width, blocks, side, first, classes):
    """Return (parameters, multiply-adds); first: weights of the first convolution and side of its map."""
    weights, stem = first
    parameters, adds = weights + 2 * width, weights * stem**2
    channels = width
    for n in blocks:
        # 2 n convolutions, of which the first reads the stage before
        of_stage = 9 * channels * width + (2 * n - 1) * 9 * width**2
        parameters += of_stage + 2 * n * 2 * width
        adds += of_stage * side**2
        channels, width, side = width, 2 * width, side // 2
    return parameters + channels * classes + classes, adds + channels * classes


COUNTS = {
    "plain18": count(64, (2, 2, 2, 2), 56, (3 * 49 * 64, 112), 1000),
    "plain34": count(64, (3, 4, 6, 3), 56, (3 * 49 * 64, 112), 1000),
}
for depth in (20, 32, 44, 56, 110):
    COUNTS[f"plain{depth}_cifar"] = count(16, ((depth - 2) // 6,) * 3, 32, (27 * 16, 32), 10)
