"""Second moments of whole networks: what the frame and the odd parts of families do to them.

    E[y^2] of stem, stages, tail and head in turn; most heads average over positions, then classify

See `residua.nn.init.moments`; `second_moments(create_model("resnet50"), (3, 224, 224))` is what to call.
"""

from __future__ import annotations

import torch
from torch import nn

from residua.models.alexnet import AtLeast
from residua.models.classifiers import Attention, Hidden, Wide
from residua.models.densenet import DenseStage
from residua.models.ensemble import Ensemble
from residua.models.network import Head, Network
from residua.models.resnet9 import SCORE_SCALE, MaxHead
from residua.models.shake_shake import TwoPaths
from residua.models.straight import DropoutHead, Perceptron
from residua.nn.init.moments import Moments, Walk, global_average, rule, second_moments
from residua.nn.init.moments.activations import relu
from residua.nn.init.moments.containers import identity, sequence
from residua.nn.init.moments.pooling import adaptive_average, flatten, max_pool

__all__ = ["second_moments"]

rule(AtLeast)(identity)
rule(DenseStage)(sequence)


@rule(Network)
def network(module: Network, x: Moments, walk: Walk) -> Moments:
    """The parts in turn."""
    for name, part in module.named_children():
        x = walk.through(name, part, x)
    return x


@rule(Ensemble)
def ensemble(module: Ensemble, x: Moments, walk: Walk) -> None:
    """Every member by itself; what the log of their mean probability is, nothing here predicts."""
    for number, member in enumerate(module.members):
        walk.through(f"members.{number}", member, x)


@rule(Head)
def head(module: Head, x: Moments, walk: Walk) -> Moments:
    """The average over positions, then the linear layer."""
    return walk.through("fc", module.fc, global_average(x))


@rule(Wide)
def wide_head(module: Wide, x: Moments, walk: Walk) -> Moments:
    """The 1x1 convolution with what follows it, the average, the linear layer."""
    x = walk.through("features", module.features, x)
    return walk.through("fc", module.fc, global_average(x))


@rule(Hidden)
def hidden_head(module: Hidden, x: Moments, walk: Walk) -> Moments:
    """The average over positions, the norm, two linear layers with an activation between them."""
    x = global_average(x)
    for name, layer in module.named_children():  # fc is the first one
        x = x if name == "fc" else walk.through(name, layer, x)
    return walk.through("fc", module.fc, x)


@rule(Attention)
def attention_head(module: Attention, x: Moments, walk: Walk) -> Moments:
    """Even attention, as it nearly is at the start: the mean of the values is the value of the mean."""
    return walk.through("fc", module.fc, walk.through("v", module.v, global_average(x)))


@rule(DropoutHead)
def dropout_head(module: DropoutHead, x: Moments, walk: Walk) -> Moments:
    """The average over positions, dropout, then the linear layer."""
    return walk.through("fc", module.fc, walk.through("drop", module.drop, global_average(x)))


@rule(MaxHead)
def max_head(module: MaxHead, x: Moments, walk: Walk) -> Moments:
    """The largest of all positions, then the linear layer, scaled; needs the shape."""
    if x.endless:
        raise ValueError(f"{walk.at}: what the largest of all positions is depends on the shape")
    x = max_pool(nn.MaxPool2d((x.mean.shape[2], x.mean.shape[3])), x, walk)
    return walk.through("fc", module.fc, x).scaled(SCORE_SCALE, SCORE_SCALE**2)


@rule(Perceptron)
def perceptron(module: Perceptron, x: Moments, walk: Walk) -> Moments:
    """The average over cells, flattened, then linear layers; needs the shape."""
    x = flatten(nn.Flatten(), adaptive_average(nn.AdaptiveAvgPool2d(module.side), x, walk), walk)
    for name, layer in (("fc1", module.fc1), ("fc2", module.fc2)):
        if module.dropout_first:
            x = walk.through("drop", module.drop, x)
        x = relu(module, walk.through(name, layer, x), walk)
        if not module.dropout_first:
            x = walk.through("drop", module.drop, x)
    return walk.through("fc", module.fc, x)


@rule(TwoPaths)
def two_paths(module: TwoPaths, x: Moments, walk: Walk) -> Moments:
    """Two convolutions of every other pixel, the average over the channels of both; then the norm."""
    x, step = relu(module, x, walk), slice(None, None, module.stride)

    def strided(shifted: bool) -> Moments:
        maps = []
        for values in (x.mean, x.second, x.shared):
            moved = torch.nn.functional.pad(values, (1, -1, 1, -1)) if shifted else values
            maps.append((values if x.endless else moved)[..., step, step])
        return x.but(*maps)

    f = walk.through("conv1", module.conv1, strided(False))
    g = walk.through("conv2", module.conv2, strided(True))
    channels = module.conv1.out_channels + module.conv2.out_channels
    part = module.conv1.out_channels / channels
    y = f.but(
        part * f.mean + (1 - part) * g.mean,
        part * f.second + (1 - part) * g.second,
        part * f.shared + (1 - part) * g.shared,
        channels=channels,
    )
    return walk.through("norm", module.norm, y) if module.normalises else y
