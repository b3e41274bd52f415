"""A residual unit, as it is found in any network: y = merge(shortcut(x), branch(x))."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from residua.xray.trace import Node

MergeKind = Literal["add", "concatenate", "gate"]
ShortcutKind = Literal[
    "identity", "projection", "zero_pad", "copied", "pooled", "scaled", "dropout", "block"
]


@dataclass
class Unit:
    """One residual unit.

    index: from 0, in the order of the forward pass. name: the module that holds it, "layer1.0".
    source: "file.py:12" of the merge. merge: add, concatenate or gate (a learned factor on the
    shortcut). shortcut: identity; projection (one convolution or linear layer); zero_pad; copied (the
    channels again and again); pooled; scaled (times a constant or learned number); dropout; block (several
    layers).
    order: by name where it is one of He et al. 2016b, figure 4, else "".
    branch, before, after: what is on the branch, before the fork and after the merge, as "norm",
    "relu", "conv". stage: counts from 0, a new one with every change of resolution.
    shape: of the merged value. parent: the unit whose branch holds this one, or None.
    scaled: the branch is multiplied by a constant or learned number before the merge.
    """

    index: int
    name: str
    source: str
    merge: MergeKind
    shortcut: ShortcutKind
    branch: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]
    shape: tuple[int, ...]
    scaled: bool = False
    order: str = ""
    stage: int = 0
    parent: int | None = None
    parameters: tuple[str, ...] = ()  # names of those that the branch reads
    sites: Sites = field(default_factory=lambda: Sites(), repr=False)

    @property
    def text(self) -> str:
        """The unit in one line, as "norm relu conv norm relu conv | add"."""
        sides = [" ".join(part) for part in (self.branch, (self.merge,), self.after) if part]
        return " | ".join(sides)


@dataclass
class Sites:
    """Where in the graph a unit's values are.

    fork: index of the node whose value both sides read. merge: the node that joins them.
    shortcut: which of the merge's tensor arguments are the shortcut. branch: the node (and which of
    its outputs) whose value is the branch's, and the merge's argument that it is.
    gate: the node of the factor on the shortcut, and the factor that lets all of the shortcut pass.
    inside: the nodes of the branch.
    """

    fork: int = -1
    merge: Node | None = None
    shortcut: tuple[int, ...] = ()
    branch: Node | None = None
    branch_argument: int = 0
    gate: Node | None = None
    gate_argument: int = 0
    open_gate: float = 1.0
    inside: frozenset[int] = frozenset()
