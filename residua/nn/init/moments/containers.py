"""What holds other layers, or nothing: Sequential, Identity, no shortcut.

    y = f_n(... f_1(x))

Shapes: maps of moments, (1, 1, H, W).
"""

from __future__ import annotations

from torch import nn

from residua.nn.init.moments.walk import Moments, Walk, rule
from residua.nn.recompute import Recomputed
from residua.nn.shortcuts import NoShortcut


@rule(nn.Identity)
def identity(module: nn.Module, x: Moments, walk: Walk) -> Moments:
    """Nothing changes."""
    return x


@rule(NoShortcut)
def nothing(module: nn.Module, x: Moments, walk: Walk) -> None:
    """There is no output."""
    return


@rule(nn.Sequential, Recomputed)
def sequence(module: nn.Sequential, x: Moments, walk: Walk) -> Moments:
    """One after the other."""
    for name, child in module._modules.items():
        if child is not None:
            x = walk.through(name, child, x)
    return x
