"""The parts that residual networks are composed of; `Skip` puts them together."""

from residua.nn.activations import ACTIVATIONS, make_activation
from residua.nn.antialias import ANTIALIASES, Blur, make_antialias
from residua.nn.attention import SqueezeExcitation, make_attention
from residua.nn.blocks import (
    BasicBlock,
    BlockOptions,
    BottleneckBlock,
    DepthwiseBlock,
    Drop,
    EdgeBlock,
)
from residua.nn.init import fixup, initialise, lsuv, zero_last
from residua.nn.merges import MERGES, Add, Concatenate, KeepBranch, Merge, make_merge
from residua.nn.norms import NORMS, Norm, is_norm, make_norm
from residua.nn.orders import ORDERS, Preactivation
from residua.nn.recompute import Recomputed, recompute
from residua.nn.regularisers import StochasticDepth
from residua.nn.shortcuts import SHORTCUTS, NoShortcut, Projection, ZeroPad, make_shortcut
from residua.nn.skip import Skip

__all__ = [
    "ACTIVATIONS",
    "ANTIALIASES",
    "MERGES",
    "NORMS",
    "ORDERS",
    "SHORTCUTS",
    "Add",
    "BasicBlock",
    "BlockOptions",
    "Blur",
    "BottleneckBlock",
    "Concatenate",
    "DepthwiseBlock",
    "Drop",
    "EdgeBlock",
    "KeepBranch",
    "Merge",
    "NoShortcut",
    "Norm",
    "Preactivation",
    "Projection",
    "Recomputed",
    "Skip",
    "SqueezeExcitation",
    "StochasticDepth",
    "ZeroPad",
    "fixup",
    "initialise",
    "is_norm",
    "lsuv",
    "make_activation",
    "make_antialias",
    "make_attention",
    "make_merge",
    "make_norm",
    "make_shortcut",
    "recompute",
    "zero_last",
]
