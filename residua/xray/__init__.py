"""Look into a network: what is wrong, where, how that is known, how sure, what to change.

    report = residua.xray(model, batch, targets)

The package is its own function: called, it is `residua.xray.examine.xray`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from torch import nn

from residua.xray.examine import xray
from residua.xray.findings import Change, Evidence, Finding
from residua.xray.report import XrayReport
from residua.xray.result import Column, Result, Table
from residua.xray.subject import Loss, Subject

__all__ = [
    "Change",
    "Column",
    "Evidence",
    "Finding",
    "Result",
    "Subject",
    "Table",
    "XrayReport",
    "xray",
]


class _Callable(ModuleType):
    """A module that can be called (the Python data model: a module's `__class__` may be set)."""

    def __call__(
        self,
        model: nn.Module,
        batch: Any,
        targets: Any = None,
        loss: Loss | None = None,
        **options: Any,
    ) -> XrayReport:
        return xray(model, batch, targets, loss, **options)


sys.modules[__name__].__class__ = _Callable
