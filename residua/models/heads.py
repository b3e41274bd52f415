"""Heads: which of a network's tensors are its last layers, as the network itself declares.

    last_layers = ("head.conv.*", "side_heads.*")                    a U-Net's
    last_layers = ("stacks.*.heatmaps.*", "links.*.heatmaps.*")      a stacked hourglass's

All that has its shape from the number of classes or joints is among them: what another number of them leaves
no place for. A network that declares nothing ends in `head.fc`, as the classification families do.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn

HEAD = "head."
CLASSIFIER = ("head.fc.*",)


def last_layers(model: nn.Module) -> tuple[str, ...]:
    """Return patterns of the names of the tensors of a network's last layers."""
    patterns: tuple[str, ...] = getattr(model, "last_layers", CLASSIFIER)
    return patterns


def is_last(name: str, patterns: Iterable[str]) -> bool:
    """Return whether a tensor's name is among the patterns.

    >>> is_last("links.0.heatmaps.weight", ("stacks.*.heatmaps.*", "links.*.heatmaps.*"))
    True
    """
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def names_of_head(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Return the names that are of the head: the last layers, and a classifier's hidden ones before them."""
    patterns = last_layers(model)
    return [
        name
        for name in names
        if is_last(name, patterns) or (patterns == CLASSIFIER and name.startswith(HEAD))
    ]
