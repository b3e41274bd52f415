"""Shake-Shake 26 2x32d, 2x64d, 2x96d: three stages of four blocks of two branches (Gastaldi 2017).

Convolutions have no bias; a norm has two parameters a channel; the network has ten classes.
"""


def counts(w):
    """Return (parameters, multiply-adds) of the network whose first stage is w channels wide."""
    # The stem: 3x3, 3 -> 16 on 32 x 32 pixels.
    weights, norms, adds = 27 * 16, 16, 27 * 16 * 1024
    for cin, cout, pixels in ((16, w, 1024), (w, 2 * w, 256), (2 * w, 4 * w, 64)):
        # Two branches a block; in each two 3x3 convolutions and two norms. The first block widens.
        branches = 2 * 9 * (cin * cout + 7 * cout * cout)
        shortcut = cin * cout  # two 1x1 convolutions of half the channels
        weights += branches + shortcut
        norms += 4 * 2 * 2 * cout + cout
        adds += (branches + shortcut) * pixels
    head = 4 * w * 10
    return weights + 2 * norms + head + 10, adds + head


COUNTS = {f"shake_shake26_2x{w}d_cifar": counts(w) for w in (32, 64, 96)}
