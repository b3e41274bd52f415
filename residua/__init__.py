"""Residual networks: build, train, x-ray, ship them, and check the claims about them.

`import residua` costs nothing: a name is imported from its own module when it is first used
(PEP 562), so that the command line can print its help without importing torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from residua.models import create_model, list_models
    from residua.models.weights import (
        load_weights,
        timm_state_dict,
        torchvision_state_dict,
    )
    from residua.training.api import open_run, train
    from residua.xray.anatomy import anatomy
    from residua.xray.examine import xray
    from residua.xray.prescribe import prescribe

    __version__: str

__all__ = [
    "__version__",
    "anatomy",
    "create_model",
    "list_models",
    "load_weights",
    "open_run",
    "prescribe",
    "timm_state_dict",
    "torchvision_state_dict",
    "train",
    "xray",
]

_HOMES = {
    "anatomy": "residua.xray.anatomy",
    "create_model": "residua.models",
    "list_models": "residua.models",
    "load_weights": "residua.models.weights",
    "timm_state_dict": "residua.models.weights",
    "torchvision_state_dict": "residua.models.weights",
    "open_run": "residua.training.api",
    "prescribe": "residua.xray.prescribe",
    "train": "residua.training.api",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("residua")
    elif name == "xray":  # a package that can be called, see there
        value = import_module("residua.xray")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # the next use does not come through here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
