"""The versions that a result depends on."""

from __future__ import annotations

import platform
from importlib.metadata import version

PACKAGES = ("residua", "torch", "lightning-fabric", "torchmetrics", "numpy", "pillow")


def versions() -> dict[str, str]:
    """Return {package: version} of this installation, Python and the system included."""
    found = {name: version(name) for name in PACKAGES}
    return found | {"python": platform.python_version(), "system": platform.platform(terse=True)}
