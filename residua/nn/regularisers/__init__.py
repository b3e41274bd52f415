"""Regularisers, one a file: they act on a branch in training and are its expectation in evaluation."""

from residua.nn.regularisers.decay import constant_decay, linear_decay
from residua.nn.regularisers.drop import DROPS, make_drop
from residua.nn.regularisers.random_drop import RandomDrop, ResDrop
from residua.nn.regularisers.separated_drop import SeparatedDrop
from residua.nn.regularisers.shake_drop import ShakeDrop
from residua.nn.regularisers.shake_shake import ShakeShake
from residua.nn.regularisers.stochastic_depth import StochasticDepth

__all__ = [
    "DROPS",
    "RandomDrop",
    "ResDrop",
    "SeparatedDrop",
    "ShakeDrop",
    "ShakeShake",
    "StochasticDepth",
    "constant_decay",
    "linear_decay",
    "make_drop",
]
