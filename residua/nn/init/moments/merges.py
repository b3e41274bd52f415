"""What each merge does to the moments of a shortcut s and a branch f; then its activation follows.

    add            E[y^2] = E[s^2] + E[f^2] + 2 E[s] E[f]         a branch that ends in weights is
    scaled add     the same of a s and b f                        uncorrelated with its shortcut
    skip init, layer scale   the same of s and gamma f
    gates          y = g f + (1 - g) s with g = sigmoid(z), z Gaussian and independent of s and f
    concatenate    the average, weighted by the channels

Shapes: every tensor here is a map of moments, (1, 1, H, W), float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from residua.nn.init.moments.activations import pointwise
from residua.nn.init.moments.walk import Moments, Walk, rule
from residua.nn.init.moments.weights import convolve
from residua.nn.merges import Add, KeepBranch, Merge
from residua.nn.merges.concatenate import Concatenate
from residua.nn.merges.gates import Gate, GatedAdd, ShortcutGate
from residua.nn.merges.layer_scale import LayerScale
from residua.nn.merges.scaled_add import ScaledAdd
from residua.nn.merges.skip_init import SkipInit
from residua.nn.skip import Skip

MergeRule = Callable[[Any, Moments, Moments], Moments]

# type of merge: (merge, moments of the shortcut, of the branch) -> of what the activation gets
MERGE_RULES: dict[type[Merge], MergeRule] = {}


def merge_rule(kind: type[Merge]) -> Callable[[MergeRule], MergeRule]:
    """Register the decorated function as the rule of this type of merge."""

    def register(function: MergeRule) -> MergeRule:
        MERGE_RULES[kind] = function
        return function

    return register


@rule(Skip)
def skip(module: Skip, x: Moments, walk: Walk) -> Moments:
    """y = merge(shortcut(x), branch(x)); ValueError names a merge that has no rule."""
    merge: Any = module.merge
    if type(merge) not in MERGE_RULES:
        raise ValueError(
            f"no rule says what {type(merge).__name__} at {walk.at} does to a second moment:"
            " register one with residua.nn.init.moments.merge_rule"
        )
    s = walk("shortcut", module.shortcut, x)
    f = walk.through("branch", module.branch, x)
    y = MERGE_RULES[type(merge)](merge, s if s is not None else f, f)
    y = walk.through("merge.activation", merge.activation, y)
    walk.note("merge", y)
    return y


def total(s: Moments, f: Moments) -> Moments:
    """Return the moments of s + f, uncorrelated: E[s f] = E[s] E[f]; of s as it is where f is zero."""
    if not f.second.any() and f.second.shape == s.second.shape:
        return s
    cross = 2 * s.mean * f.mean
    return f.but(s.mean + f.mean, s.second + f.second + cross, s.shared + f.shared + cross)


@merge_rule(KeepBranch)
def keep_branch(merge: KeepBranch, s: Moments, f: Moments) -> Moments:
    """The branch alone."""
    return f


@merge_rule(Add)
def add(merge: Add, s: Moments, f: Moments) -> Moments:
    """The sum."""
    return total(s, f)


@merge_rule(ScaledAdd)
def scaled_add(merge: ScaledAdd, s: Moments, f: Moments) -> Moments:
    """The sum with constant weights."""
    a, b = merge.shortcut_scale, merge.branch_scale
    return total(s.scaled(a, a * a), f.scaled(b, b * b))


@merge_rule(SkipInit)
def skip_init(merge: SkipInit, s: Moments, f: Moments) -> Moments:
    """The sum with the scalar as it is now."""
    return total(s, f.affine(merge.scale, torch.zeros(())))


@merge_rule(LayerScale)
def layer_scale(merge: LayerScale, s: Moments, f: Moments) -> Moments:
    """The sum with the gains as they are now."""
    return total(s, f.affine(merge.gamma, torch.zeros(())))


def share(gate: nn.Module, s: Moments) -> Moments:
    """Return the moments of g = sigmoid(w * s + b), of maps of two dimensions."""
    assert isinstance(gate, Gate)
    return pointwise(torch.sigmoid, convolve(gate, gate.weight, s))


def rest(g: Moments) -> Moments:
    """Return the moments of 1 - g."""
    return g.affine(torch.tensor(-1.0), torch.ones(()))


def product(g: Moments, x: Moments) -> Moments:
    """Return the moments of g x, independent of each other."""
    return x.but(g.mean * x.mean, g.second * x.second, g.shared * x.shared)


@merge_rule(GatedAdd)
def gated_add(merge: GatedAdd, s: Moments, f: Moments) -> Moments:
    """g f + (1 - g) s: the two weights are one draw."""
    g = share(merge.gate, s)
    sides = product(g, f), product(rest(g), s)
    means = 2 * s.mean * f.mean
    return f.but(
        sides[0].mean + sides[1].mean,
        sides[0].second + sides[1].second + means * (g.mean - g.second),
        sides[0].shared + sides[1].shared + means * (g.mean - g.shared),
    )


@merge_rule(ShortcutGate)
def shortcut_gate(merge: ShortcutGate, s: Moments, f: Moments) -> Moments:
    """f + (1 - g) s."""
    return total(product(rest(share(merge.gate, s)), s), f)


@merge_rule(Concatenate)
def concatenate(merge: Concatenate, s: Moments, f: Moments) -> Moments:
    """The average over the channels of both, weighted by their number; the shortcut's centre."""
    if s.channels is None or f.channels is None:
        raise ValueError(
            "what a concatenation averages depends on the number of channels: give shape"
        )
    channels = s.channels + f.channels
    part = s.channels / channels
    (h, w), (height, width) = f.mean.shape[2:], s.mean.shape[2:]
    top, left = (height - h) // 2, (width - w) // 2

    def both(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return part * first[..., top : top + h, left : left + w] + (1 - part) * second

    return f.but(
        both(s.mean, f.mean),
        both(s.second, f.second),
        both(s.shared, f.shared),
        channels=channels,
    )
