"""Normalisation, a scheme a file; `make_norm` chooses by name."""

from residua.nn.norms.monte_carlo import (
    MonteCarloStatistics,
    Prediction,
    collect_statistics,
    monte_carlo,
)
from residua.nn.norms.norm import (
    CONVOLUTIONS,
    LAYERS,
    NORMS,
    Convolution,
    Norm,
    is_norm,
    make_norm,
)
from residua.nn.norms.precise import precise_statistics
from residua.nn.norms.statistics import running_norms, tracks_statistics

__all__ = [
    "CONVOLUTIONS",
    "LAYERS",
    "NORMS",
    "Convolution",
    "MonteCarloStatistics",
    "Norm",
    "Prediction",
    "collect_statistics",
    "is_norm",
    "make_norm",
    "monte_carlo",
    "precise_statistics",
    "running_norms",
    "tracks_statistics",
]
