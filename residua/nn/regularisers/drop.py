"""The module at the end of a branch that drops or shakes it, by name.

    stochastic_depth   b f / p, in evaluation f               one draw a sample or a mini-batch
    random_drop        b f, in evaluation p f                 one draw a sample or a mini-batch
    res_drop           the same                               always one draw a mini-batch
    separated_drop     the same, shortcut's channels and padding separately    for zero-padded shortcuts
    shake_drop         (b + alpha - b alpha) f, p f           also a draw a channel or a value ("pixel")

Sources and equations are in the files of each.
"""

from __future__ import annotations

from torch import nn

from residua.nn.names import unknown
from residua.nn.regularisers.decay import DECAYS
from residua.nn.regularisers.random_drop import RandomDrop, ResDrop
from residua.nn.regularisers.separated_drop import SeparatedDrop
from residua.nn.regularisers.shake_drop import LEVELS, ShakeDrop
from residua.nn.regularisers.stochastic_depth import SAMPLE_OR_BATCH, StochasticDepth

DROPS = ("stochastic_depth", "random_drop", "res_drop", "separated_drop", "shake_drop")


def make_drop(
    kind: str,
    rate: float,
    block: int,
    blocks: int,
    decay: str = "linear",
    per: str = "sample",
    shortcut_channels: int | None = None,
) -> nn.Module | None:
    """Return what ends the branch of block 1..blocks, or None where it would do nothing.

    Args:
        kind: one of DROPS. rate: the probability that the last block is dropped, in [0, 1).
        block, blocks: which block of how many, counted from 1.
        decay: how the probability of surviving gets there, "linear" or "constant".
        per: what has a draw of its own, "sample" or "batch"; shake_drop also takes "channel" and "pixel".
        shortcut_channels: of a zero-padded shortcut before the padding; separated_drop needs them.

    Raises:
        ValueError: an unknown name (the message lists those there are), or a rate out of range.
    """
    levels = tuple(LEVELS) if kind == "shake_drop" else SAMPLE_OR_BATCH
    for what, given, known in (("drop", kind, DROPS), ("drop_decay", decay, tuple(DECAYS))):
        if given not in known:
            raise ValueError(unknown(what, given, known))
    if per not in levels:
        raise ValueError(f"{unknown('drop_per', per, levels)} with {kind}")
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"stochastic_depth {rate} is not in [0, 1)")
    survival = DECAYS[decay](rate, block, blocks)
    if survival == 1.0:
        return None
    if kind == "res_drop":
        return ResDrop(survival)
    if kind == "separated_drop":
        if shortcut_channels is None:
            raise ValueError("separated_drop is for networks whose shortcuts are zero-padded")
        return SeparatedDrop(survival, shortcut_channels, per)
    makers = {"stochastic_depth": StochasticDepth, "random_drop": RandomDrop}
    return (makers | {"shake_drop": ShakeDrop})[kind](survival, per)
