"""Merges, one a file: how a shortcut and a branch become one output; `make_merge` chooses by name."""

from residua.nn.merges.add import Add
from residua.nn.merges.choose import MERGES, make_merge
from residua.nn.merges.concatenate import Concatenate
from residua.nn.merges.gates import Gate, GatedAdd, ShortcutGate
from residua.nn.merges.keep_branch import KeepBranch
from residua.nn.merges.layer_scale import LayerScale
from residua.nn.merges.merge import Merge, Place
from residua.nn.merges.scaled_add import ScaledAdd
from residua.nn.merges.skip_init import SkipInit

__all__ = [
    "MERGES",
    "Add",
    "Concatenate",
    "Gate",
    "GatedAdd",
    "KeepBranch",
    "LayerScale",
    "Merge",
    "Place",
    "ScaledAdd",
    "ShortcutGate",
    "SkipInit",
    "make_merge",
]
