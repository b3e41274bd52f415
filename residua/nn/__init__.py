"""The parts that residual networks are composed of; `Skip` puts them together."""

from residua.nn.blocks import BasicBlock, BottleneckBlock, Preactivation
from residua.nn.init import initialise, zero_last
from residua.nn.merges import Add, KeepBranch, Merge
from residua.nn.norms import NORMS, NormFactory, is_norm, norm_factory
from residua.nn.regularisers import StochasticDepth
from residua.nn.shortcuts import NoShortcut, Projection, ZeroPad, make_shortcut
from residua.nn.skip import Skip

__all__ = [
    "NORMS",
    "Add",
    "BasicBlock",
    "BottleneckBlock",
    "KeepBranch",
    "Merge",
    "NoShortcut",
    "NormFactory",
    "Preactivation",
    "Projection",
    "Skip",
    "StochasticDepth",
    "ZeroPad",
    "initialise",
    "is_norm",
    "make_shortcut",
    "norm_factory",
    "zero_last",
]
