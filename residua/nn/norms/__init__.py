"""Normalisation, a scheme a file; `make_norm` chooses by name."""

from residua.nn.norms.norm import CONVOLUTIONS, LAYERS, NORMS, Norm, is_norm, make_norm
from residua.nn.norms.statistics import running_norms, tracks_statistics

__all__ = [
    "CONVOLUTIONS",
    "LAYERS",
    "NORMS",
    "Norm",
    "is_norm",
    "make_norm",
    "running_norms",
    "tracks_statistics",
]
