"""Initial weights of a network by the name of a scheme; every family calls `initialise` once.

    he, he_uniform, glorot, glorot_uniform      independent draws: `variance.py`
    orthogonal, delta_orthogonal                rotations: `orthogonal.py`

Norms keep the gamma = 1, beta = 0 that they are made with; biases start at 0, those of a gate at their
own start. A convolution that normalises its weight gets the gain that belongs to it (`HasGain`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import nn

from residua.nn.init.layers import Convolution, HasGain, HasStartingBias
from residua.nn.init.orthogonal import delta_orthogonal, orthogonal
from residua.nn.init.variance import glorot, glorot_uniform, he, he_uniform
from residua.nn.names import unknown

Fan = Literal["fan_in", "fan_out"]

# name: (convolution, fan) -> nothing; sets the weight in place
SCHEMES: dict[str, Callable[[Convolution, str], None]] = {
    "he": he,
    "he_uniform": he_uniform,
    "glorot": glorot,
    "glorot_uniform": glorot_uniform,
    "orthogonal": orthogonal,
    "delta_orthogonal": delta_orthogonal,
}


def initialise(module: nn.Module, scheme: str = "he", fan: Fan = "fan_out") -> None:
    """Initialise every convolution in `module` in place, in order, from torch's generator.

    Linear layers keep torch's weights (uniform, bounded by 1 / sqrt(fan_in)) with zero biases.

    Args:
        module: a network, or one layer; its convolutions may be of any dimension, grouped, transposed.
        scheme: one of `SCHEMES`. fan: which fan He's variance divides by; the others do not read it.

    Raises:
        ValueError: a scheme or a fan that is not one of these.
    """
    if scheme not in SCHEMES:
        raise ValueError(unknown("initialisation", scheme, SCHEMES))
    if fan not in ("fan_in", "fan_out"):
        raise ValueError(unknown("fan", fan, ("fan_in", "fan_out")))
    for layer in module.modules():
        if isinstance(layer, Convolution):
            SCHEMES[scheme](layer, fan)
            if isinstance(layer, HasGain):
                layer.reset_gain()
        if isinstance(layer, Convolution | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
            if isinstance(layer, HasStartingBias):
                layer.reset_bias()
