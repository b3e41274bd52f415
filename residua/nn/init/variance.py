"""He's and Glorot's weights: independent draws whose variance keeps a second moment.

    He        Var w = 2 / fan                   He, Zhang, Ren, Sun 2015 (rectifiers), eq. 10 and 14
    Glorot    Var w = 2 / (fan_in + fan_out)    Glorot, Bengio 2010, eq. 12
    normal    w ~ N(0, Var w)                   uniform   w ~ U(-a, a), a = sqrt(3 Var w)   (their eq. 16)

With ReLUs between, fan_in keeps the second moment of activations, fan_out that of gradients; He's own
ResNet code uses fan_out. Glorot's is the compromise of the two for activations that are linear around 0.
"""

from __future__ import annotations

import math

from torch import nn

from residua.nn.init.layers import Convolution, fans


def he_std(conv: Convolution, fan: str) -> float:
    """Return sqrt(2 / fan) for `fan` "fan_in" or "fan_out"."""
    into, out = fans(conv)
    return math.sqrt(2.0) / math.sqrt(into if fan == "fan_in" else out)


def glorot_std(conv: Convolution, fan: str) -> float:
    """Return sqrt(2 / (fan_in + fan_out)), whatever `fan` is."""
    return math.sqrt(2.0 / sum(fans(conv)))


def he(conv: Convolution, fan: str) -> None:
    """Draw the weight from N(0, 2 / fan), in place."""
    nn.init.normal_(conv.weight, 0.0, he_std(conv, fan))


def he_uniform(conv: Convolution, fan: str) -> None:
    """Draw the weight from U(-a, a) with a = sqrt(6 / fan), in place."""
    bound = math.sqrt(3.0) * he_std(conv, fan)
    nn.init.uniform_(conv.weight, -bound, bound)


def glorot(conv: Convolution, fan: str) -> None:
    """Draw the weight from N(0, 2 / (fan_in + fan_out)), in place."""
    nn.init.normal_(conv.weight, 0.0, glorot_std(conv, fan))


def glorot_uniform(conv: Convolution, fan: str) -> None:
    """Draw the weight from U(-a, a) with a = sqrt(6 / (fan_in + fan_out)), in place."""
    bound = math.sqrt(3.0) * glorot_std(conv, fan)
    nn.init.uniform_(conv.weight, -bound, bound)
