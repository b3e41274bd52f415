"""How the trunk of a residual network grows with each block, at initialisation.

    y = a (x + f(x)),  E[f(x)^2] = E[x^2]  (He initialisation, no norm):  E[y^2] = 2 a^2 E[x^2]
    y = x + f(norm(x)),  E[f^2] = 1  (norm first in the branch):          E[y^2] = E[x^2] + 1

Two ways of measuring, which differ: the second moment E[y^2] over units and inputs, and the variance of a
unit over a batch of inputs. The first doubles with each block (a = 1) or stays (a = 1/sqrt 2). The second
grows more slowly, because He's branch makes inputs more alike: with the correlation c of two inputs it is
E[y^2] (1 - c), and c follows the arc-cosine recursion, c <- (c + f(c)) / 2 (see correlation.py).

Prince, Understanding Deep Learning, section 11.4; He et al. 2015; Cho & Saul 2009 for f.
"""

from __future__ import annotations

import math

from residua.xray.laws.correlation import arc_cosine

CONSTANT_SCALE = 1 / math.sqrt(2)  # after each addition, keeps the second moment


def residual_second_moment(blocks: int, start: float = 1.0, scale: float = 1.0) -> float:
    """Return E[y^2] after `blocks` blocks y = scale (x + f(x)), He initialisation, no norm.

    >>> residual_second_moment(10), round(residual_second_moment(10, scale=CONSTANT_SCALE), 12)
    (1024.0, 1.0)
    """
    return start * (2 * scale**2) ** blocks


def normed_second_moment(blocks: int, start: float = 1.0, gain: float = 1.0) -> float:
    """Return E[y^2] after `blocks` blocks y = x + f(norm(x)) with E[f^2] = gain: it grows linearly.

    >>> normed_second_moment(10)
    11.0
    """
    return start + blocks * gain


def residual_batch_variance(
    blocks: int, start: float = 1.0, c: float = 0.0, scale: float = 1.0
) -> float:
    """Return a unit's variance over a large batch of inputs after `blocks` blocks without norm.

    start: E[x^2] at the first block. c: the correlation of two inputs of the batch, not centred.

    >>> 2**5 * 0.4 < residual_batch_variance(5) < 2**5
    True
    """
    moment = residual_second_moment(blocks, start, scale)
    for _ in range(blocks):
        c = (c + arc_cosine(c)) / 2
    return moment * (1 - c)


def overflow_depth(growth: float, now: float, largest: float) -> float:
    """Return after how many more blocks a second moment `now` reaches the square of `largest`.

    growth: factor a block; largest: the largest value that the number type holds. Infinite where
    nothing grows.

    >>> round(overflow_depth(2.0, 1.0, 65504.0), 1)
    32.0
    """
    if growth <= 1 or now <= 0:
        return math.inf
    return (2 * math.log(largest) - math.log(now)) / math.log(growth)
