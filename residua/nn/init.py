"""Initial weights: He or Glorot for convolutions, zero for what a branch should start without.

    He        w ~ N(0, 2 / fan)                 He, Zhang, Ren, Sun 2015 (rectifiers), eq. 10 and 14
    Glorot    w ~ N(0, 2 / (fan_in + fan_out))  Glorot, Bengio 2010, eq. 12

fan_in = C_in k^2 / groups keeps the second moment of activations, fan_out that of gradients; He's own
ResNet code uses fan_out. Norms start at gamma = 1, beta = 0; biases at 0.

`zero_last` sets the last layer of each branch to zero so that every block starts as its shortcut
(Goyal et al. 2017, section 5.1): gamma of a last norm, or weight and bias of a last convolution.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from residua.nn.norms import is_norm
from residua.nn.skip import Skip

Fan = Literal["fan_in", "fan_out"]


def initialise(module: nn.Module, scheme: str = "he", fan: Fan = "fan_out") -> None:
    """Initialise every convolution and norm in `module` in place.

    Linear layers keep torch's weights (uniform, bounded by 1 / sqrt(fan_in)) with zero biases.
    Raises ValueError for a scheme other than "he" and "glorot".
    """
    if scheme not in ("he", "glorot"):
        raise ValueError(f"initialisation {scheme!r} is unknown: expected he or glorot")
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            if scheme == "he":
                nn.init.kaiming_normal_(layer.weight, mode=fan, nonlinearity="relu")
            else:
                nn.init.xavier_normal_(layer.weight)
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)


def zero_last(module: nn.Module) -> None:
    """Zero the last norm or convolution of every branch in `module`, in place."""
    for skip in module.modules():
        if isinstance(skip, Skip):
            last = [m for m in skip.branch.modules() if isinstance(m, nn.Conv2d) or is_norm(m)][-1]
            for parameter in last.parameters(recurse=False):
                nn.init.zeros_(parameter)
