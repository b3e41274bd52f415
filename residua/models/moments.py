"""Second moments of whole networks: what the frame of a family does to them.

    E[y^2] of stem, stages, tail and head in turn; the head averages over positions, then classifies

See `residua.nn.init.moments`; `second_moments(create_model("resnet50"), (3, 224, 224))` is what to call.
"""

from __future__ import annotations

from residua.models.network import Head, Network
from residua.nn.init.moments import Moments, Walk, global_average, rule, second_moments

__all__ = ["second_moments"]


@rule(Network)
def network(module: Network, x: Moments, walk: Walk) -> Moments:
    """The parts in turn."""
    for name, part in module.named_children():
        x = walk.through(name, part, x)
    return x


@rule(Head)
def head(module: Head, x: Moments, walk: Walk) -> Moments:
    """The average over positions, then the linear layer."""
    return walk.through("fc", module.fc, global_average(x))
