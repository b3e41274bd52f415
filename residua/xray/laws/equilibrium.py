"""What L2 does to scale-free weights: it sets how fast they turn, not how large the function is.

    f(a w) = f(w), a > 0    =>    <w, g> = 0,    g(a w) = g(w) / a               van Laarhoven 2017, section 2
    |w'|^2 = (1 - eta lambda)^2 |w|^2 + eta^2 |g|^2                              one step; Pythagoras

With G = |w| |g|, the gradient's length at |w| = 1, and momentum m (torch's, without dampening):

    lambda > 0   |w|^4 -> eta G^2 / (2 lambda (1 - m)), within about (1 - m) / (4 eta lambda) steps
                 angle a step -> sqrt(2 eta lambda / (1 + m))                    Wan et al. 2021
    lambda = 0   |w|^4 = |w_0|^4 + 2 eta^2 G^2 t: the effective rate eta / |w|^2 falls as 1 / sqrt t

G is taken as constant, gradients of different steps as independent: stochastic gradients of one batch.
"""

from __future__ import annotations

import math


def effective_rate(rate: float, length: float) -> float:
    """Return eta / |w|^2, the learning rate of the direction w / |w| (van Laarhoven 2017)."""
    return rate / length**2 if length else math.inf


def equilibrium_length(rate: float, decay: float, pull: float, momentum: float = 0.0) -> float:
    """Return |w| at which growth by the gradient and shrinking by L2 cancel; pull: G = |w| |g|.

    >>> round(equilibrium_length(0.1, 0.05, 1.0), 12)
    1.0
    """
    return float((rate * pull**2 / (2 * decay * (1 - momentum))) ** 0.25)


def equilibrium_angle(rate: float, decay: float, momentum: float = 0.0) -> float:
    """Return by how many radians a step turns the weights at equilibrium."""
    return math.sqrt(2 * rate * decay / (1 + momentum))


def steps_until_half(rate: float, length: float, gradient: float, momentum: float = 0.0) -> float:
    """Return after how many steps without L2 the effective rate has halved: |w|^4 is four times as large.

    >>> round(steps_until_half(0.1, 1.0, 1.0), 9)
    150.0
    """
    pull = (rate / (1 - momentum)) ** 2 * gradient**2
    return 3 * length**2 / (2 * pull) if pull else math.inf
