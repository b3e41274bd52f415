"""How the probability of surviving changes from block to block, when the last is dropped at `rate`.

    linear     p_l = 1 - (l / L) rate      Huang, Sun, Liu, Sedra, Weinberger 2016, eq. 4
    constant   p_l = 1 - rate              the paper's "uniform" rule, its section 3

Blocks l count from 1 to L. The paper finds the linear rule better, because early blocks extract what
all later ones need.

Measured (python benchmarks/parts.py, docs/parts.md): after 200 steps a ResNet-20 recognises 53.1 %; with
optimiser.decay_norms_and_biases=True 53.1 %, 0.98 (accuracy, time of a step).
"""

from __future__ import annotations


def linear_decay(rate: float, block: int, blocks: int) -> float:
    """Return the survival probability of block 1..L when the last one is dropped at `rate`.

    >>> [linear_decay(0.5, block, 4) for block in (1, 2, 3, 4)]
    [0.875, 0.75, 0.625, 0.5]
    """
    return 1.0 - rate * block / blocks


def constant_decay(rate: float, block: int, blocks: int) -> float:
    """Return the survival probability of every block when each is dropped at `rate`.

    >>> [constant_decay(0.5, block, 4) for block in (1, 2, 3, 4)]
    [0.5, 0.5, 0.5, 0.5]
    """
    return 1.0 - rate


DECAYS = {"linear": linear_decay, "constant": constant_decay}
