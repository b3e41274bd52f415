"""Shortcuts by name: "A", "B", "C", "D", with or without dropout after them.

    A   identity; zero-padded where shapes change          C   a projection on every block
    B   identity; a projection where shapes change         D   as B, pooled before it is projected

Dropout on the shortcut (He et al. 2016b, figure 2f) is there to be seen failing: in training
s(x) = m x / (1 - p) with m ~ Bernoulli(1 - p) for every value, in evaluation s(x) = x.

Measured (python benchmarks/parts.py, docs/parts.md): after 200 steps a ResNet-20 recognises 53.1 %; with
shortcut_dropout=0.5 20.3 %, 1.55 (accuracy, time of a step).
"""

from __future__ import annotations

from torch import nn

from residua.nn.names import unknown
from residua.nn.norms import Norm
from residua.nn.shortcuts.projection import Projection
from residua.nn.shortcuts.zero_pad import ZeroPad

SHORTCUTS = ("A", "B", "C", "D")


def make_shortcut(
    kind: str,
    in_channels: int,
    out_channels: int,
    stride: int,
    norm: Norm,
    normalise: bool = True,
) -> nn.Module:
    """Return the shortcut of that kind for a block of the given shape change.

    normalise: whether a projection has a norm. Raises ValueError for an unknown kind.
    """
    if kind not in SHORTCUTS:
        raise ValueError(unknown("shortcut", kind, SHORTCUTS))
    if kind != "C" and stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if kind == "A":
        return ZeroPad(in_channels, out_channels, stride, flat=norm.flat, dims=norm.dims)
    return Projection(in_channels, out_channels, stride, norm, normalise, average=kind == "D")


def with_dropout(shortcut: nn.Module, p: float) -> nn.Module:
    """Return the shortcut with dropout after it; ValueError unless 0 <= p < 1."""
    if not 0.0 <= p < 1.0:
        raise ValueError(f"shortcut_dropout {p} is not in [0, 1)")
    if p == 0.0:
        return shortcut
    if isinstance(shortcut, nn.Identity):
        return nn.Dropout(p)
    if isinstance(shortcut, nn.Sequential):
        shortcut.add_module("drop", nn.Dropout(p))
        return shortcut
    return nn.Sequential(shortcut, nn.Dropout(p))
