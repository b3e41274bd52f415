"""What scales a map by a number that it does not depend on: drops, attention, zeros in place of channels.

    y = g x, g independent of x  ->  E[y] = E[g] E[x],  E[y^2] = E[g^2] E[x^2]

Shapes: maps of moments, (1, 1, H, W), float64.
"""

from __future__ import annotations

import torch
from torch import nn

from residua.nn.attention import SqueezeExcitation
from residua.nn.init.moments.activations import pointwise
from residua.nn.init.moments.pooling import global_average
from residua.nn.init.moments.walk import Map, Moments, Walk, rule
from residua.nn.regularisers import (
    RandomDrop,
    ResDrop,
    SeparatedDrop,
    ShakeDrop,
    ShakeShake,
    StochasticDepth,
)
from residua.nn.shortcuts import ZeroPad


@rule(ZeroPad)
def zero_pad(pad: ZeroPad, x: Moments, walk: Walk) -> Moments:
    """New channels are zero: the average over all falls. Needs the number of channels."""
    if x.channels is None:
        raise ValueError(f"{walk.at}: what zero channels take away depends on the shape")
    part = x.channels / (x.channels + pad.extra)
    every = slice(None, None, pad.stride)
    mean, second, shared = (part * v[..., every, every] for v in (x.mean, x.second, x.shared))
    before = None if x.before is None else zero_pad(pad, x.before, walk)  # it commutes with a ReLU
    return x.but(mean, second, shared, channels=x.channels + pad.extra, before=before)


@rule(SqueezeExcitation)
def squeeze_excitation(module: SqueezeExcitation, x: Moments, walk: Walk) -> Moments:
    """The gain of a channel is independent of what it scales, and the same at every position."""
    gain = global_average(x)
    for name, layer in module.named_children():  # fc1, act, fc2
        gain = walk.through(name, layer, gain)
    gain = pointwise(torch.sigmoid, gain)
    return x.scaled(gain.mean.item(), gain.second.item())


@rule(nn.Dropout, nn.Dropout2d)
def dropout(module: nn.Dropout, x: Moments, walk: Walk) -> Moments:
    """Training: kept with probability q and divided by it; a draw for every value, or channel."""
    if not module.training or module.p == 0:
        return x
    second = x.second / (1 - module.p)
    whole = isinstance(module, nn.Dropout2d)
    return x.but(x.mean, second, x.shared / (1 - module.p) if whole else x.shared)


@rule(StochasticDepth)
def stochastic_depth(module: StochasticDepth, x: Moments, walk: Walk) -> Moments:
    """Training: the whole map is kept with probability p and divided by it."""
    return x.scaled(1.0, 1 / module.survival) if module.training else x


@rule(RandomDrop, ResDrop, SeparatedDrop)
def random_drop(module: RandomDrop, x: Moments, walk: Walk) -> Moments:
    """Training: the whole map is kept with probability p; evaluation: multiplied by p."""
    p = module.survival
    return x.scaled(p, p if module.training else p * p)


@rule(ShakeDrop)
def shake_drop(module: ShakeDrop, x: Moments, walk: Walk) -> Moments:
    """Training: kept with probability p, else multiplied by alpha, uniform, one draw a picture."""
    (low, high), p = module.alpha, module.survival
    first = p + (1 - p) * (low + high) / 2
    square = p + (1 - p) * (low * low + low * high + high * high) / 3
    return x.scaled(first, square if module.training else first**2)


@rule(ShakeShake)
def shake_shake(module: ShakeShake, x: Moments, walk: Walk) -> Moments:
    """Two independent branches; training: alpha uniform or one half, evaluation: one half."""
    f, g = (walk.through(f"paths.{i}", path, x) for i, path in enumerate(module.paths))
    square = 1 / 3 if module.training and module.names[0] == "shake" else 1 / 4  # E[alpha^2]
    cross = 2 * (1 / 2 - square)  # 2 E[alpha (1 - alpha)]

    def mixed(first: Map, second: Map) -> Map:
        return square * (first + second) + cross * f.mean * g.mean

    return f.but((f.mean + g.mean) / 2, mixed(f.second, g.second), mixed(f.shared, g.shared))
