"""How alike the gradients of two inputs are in a ReLU network at initialisation, by depth.

R = <g, g'> / (|g| |g'|), where g, g' are the gradients of one output with respect to the activations of two
inputs. Published laws (Balduzzi et al. 2017, "The shattered gradients problem", theorems 1 to 3): after L
layers 2^-L (plain), (3/4)^L (residual), about 1/sqrt L (residual with norm). They hold where two inputs
share an active unit with probability 1/4 at every layer, that is where each layer is centred over the
inputs. A bias-free network makes its inputs more alike as they go, which the arc-cosine recursion follows
(Cho & Saul 2009), exact for infinite width with He initialisation:

    theta = arccos c            c: the correlation of the two inputs' activations, not centred
    p = 1 - theta / pi          the probability that a unit active for one is active for the other
    f = (sin theta + (pi - theta) cos theta) / pi
    plain     R <- R p                        c <- f
    residual  R <- R (1 + p) / 2              c <- (c + f) / 2
    normed    R <- R (1 + p / q) / (1 + 1/q)  q <- q + g, c <- (q c + g f) / (q + g)     (q: the trunk's size)

Centred, each layer's mean over the inputs is taken off: f <- (f - 1/pi) / (1 - 1/pi), and the branch's size
g is 1 - 1/pi in place of 1. Two inputs with c = 0 then keep c = 0 and p = 1/2, so the published laws
2^-L and (3/4)^L are exact at any depth; not centred, they are exact at L = 1 only, c tends to 1, and R of
the plain network falls like 1/L^3 in place of 2^-L. This is why centring, or batch norm, is what shatters:
it drives close inputs apart, 1 - c <- (1 - c) pi / (pi - 1), where without it they close up.
A residual branch here holds one ReLU.
"""

from __future__ import annotations

import math
from typing import Literal

Kind = Literal["plain", "residual", "normed"]

SHARE = 1 / math.pi  # f(0): the part of a ReLU layer's second moment that all inputs share


def arc_cosine(c: float) -> float:
    """Return f: the correlation after a ReLU layer of two inputs with correlation c before it.

    >>> arc_cosine(1.0), round(arc_cosine(0.0) * math.pi, 12), round(arc_cosine(-1.0), 12)
    (1.0, 1.0, 0.0)
    """
    theta = math.acos(min(1.0, max(-1.0, c)))
    return (math.sin(theta) + (math.pi - theta) * math.cos(theta)) / math.pi


def both_active(c: float) -> float:
    """Return p: how likely a unit that is active for one input is active for the other.

    >>> both_active(0.0), both_active(1.0)
    (0.5, 1.0)
    """
    return 1 - math.acos(min(1.0, max(-1.0, c))) / math.pi


def published_correlation(layers: int, kind: Kind = "plain") -> float:
    """Return R after L layers as published: 2^-L, (3/4)^L, 1/sqrt L (1 where there is no layer).

    >>> published_correlation(2), published_correlation(2, "residual"), published_correlation(4, "normed")
    (0.25, 0.5625, 0.5)
    """
    if kind == "normed":
        return 1 / math.sqrt(max(layers, 1))
    return (0.5 if kind == "plain" else 0.75) ** layers


def gradient_correlations(
    layers: int, c: float = 0.0, kind: Kind = "plain", *, centred: bool = False, size: float = 1.0
) -> list[float]:
    """Return R of the gradients at depths 0 (the input), 1, ..., layers (the output, where R = 1).

    c: correlation of the two inputs. size: of the trunk at the input, in units of the branch's
    second moment (kind "normed" only).

    >>> [round(r, 3) for r in gradient_correlations(3, centred=True)]
    [0.125, 0.25, 0.5, 1.0]
    >>> round(gradient_correlations(3)[0], 3) > 0.125
    True
    """
    factors = []
    for _ in range(layers):
        p, f = both_active(c), arc_cosine(c)
        gain = 1 - SHARE if centred else 1.0
        f = (f - SHARE) / (1 - SHARE) if centred else f
        if kind == "plain":
            factors.append(p)
            c = f
        elif kind == "residual":
            factors.append((1 + p) / 2)
            # centred, the branch adds 1 - 1/pi of its second moment to the trunk's variance
            c = (c + gain * f) / (1 + gain)
        else:
            factors.append((1 + p / size) / (1 + 1 / size))
            c, size = (size * c + gain * f) / (size + gain), size + gain
    correlations = [1.0]
    for factor in reversed(factors):
        correlations.append(correlations[-1] * factor)
    return correlations[::-1]
