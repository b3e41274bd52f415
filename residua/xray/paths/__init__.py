"""The paths through a network's residual units: how many of each length, and which carry the gradient."""

from residua.xray.paths.measure import paths

__all__ = ["paths"]
