"""Stacked hourglasses: Newell et al. 2016, figures 3 and 4, in sums over residual modules of 256 channels.

A module of c -> d channels has norms of c, d/2 and d/2 channels and convolutions c d/2 + 9 (d/2)^2 + d/2 d,
and where c is not d another of c d. Convolutions have no bias, those of the heatmaps excepted.
"""

JOINTS = 16


def module(c, d):
    """Return (weights, norms' parameters) of a residual module."""
    h = d // 2
    return c * h + 9 * h * h + h * d + (c * d if c != d else 0), 2 * (c + h + h)


def count(stacks):
    layers = [(7 * 7 * 3 * 64, 2 * 64, 128)]  # weights, norms' parameters, side of the output
    layers += [(*module(64, 128), 128), (*module(128, 128), 64), (*module(128, 256), 64)]
    for stack in range(stacks):
        # At sides 64, 32, 16, 8: a module on the shortcut, and one before and one after the coarser
        # hourglass, at half the side; at side 4 one more, which is the innermost hourglass.
        for side in (64, 32, 16, 8):
            layers += [(*module(256, 256), side), *[(*module(256, 256), side // 2)] * 2]
        layers.append((*module(256, 256), 4))
        layers.append((256 * 256, 2 * 256, 64))  # features
        layers.append((256 * JOINTS, JOINTS, 64))  # heatmaps, with a bias each
        if stack < stacks - 1:
            layers += [(256 * 256, 0, 64), (JOINTS * 256, 0, 64)]
    return sum(w + n for w, n, _ in layers), sum(w * side**2 for w, _, side in layers)


COUNTS = {f"hourglass{stacks}": count(stacks) for stacks in (1, 2, 4, 8)}
