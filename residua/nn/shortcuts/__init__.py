"""Shortcuts, one a file: the path around a branch; `make_shortcut` chooses by name."""

from residua.nn.shortcuts.choose import SHORTCUTS, make_shortcut, with_dropout
from residua.nn.shortcuts.none import NoShortcut
from residua.nn.shortcuts.projection import Projection
from residua.nn.shortcuts.zero_pad import ZeroPad

__all__ = ["SHORTCUTS", "NoShortcut", "Projection", "ZeroPad", "make_shortcut", "with_dropout"]
