"""Trace and spectral density of a symmetric matrix from Lanczos runs with random starts.

    tr H = sum_i q_i . H q_i + E[z' . H z'],   z' = z - Q Q^T z,   z = +-1 at random

is Hutchinson's estimate (1989) on what known directions Q leave over. The subspace in which Lanczos sought
the extreme eigenvalues serves as Q: it holds the few large ones, whose share is then exact (the idea of
Hutch++, Meyer, Musco, Musco & Woodruff 2021), and costs no product.

    density(t) = (1 / probes) sum_z sum_j weight_j gaussian(t - theta_j; width)

is stochastic Lanczos quadrature (Ubaru, Chen & Saad 2017; on networks: Ghorbani, Krishnan & Xiao 2019,
Yao, Gholami, Keutzer & Mahoney 2020). Integrates to one. Bars are standard errors over probes.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from residua.xray.intervals import Estimate, mean_interval
from residua.xray.lanczos import Krylov


def trace(probes: Sequence[Krylov], known: Krylov | None = None) -> tuple[Estimate, float]:
    """Return tr H with its 95 % interval, and its standard error.

    probes: runs that began at random signs; known: a run whose subspace is taken out, if any.

    One probe's error follows from the law: its variance is at most 2 |H'|_F^2, and |H' z'|^2 is an
    unbiased estimate of |H'|_F^2, H' being H outside the subspace (Hutchinson 1989).
    """
    exact = 0.0 if known is None else float(known.diagonal.sum())
    draws, left = [], 0.0
    for run in probes:
        z, product = run.length * run.basis[0], run.first_product
        if known is not None:
            z, product = _outside(z, product, known)
        draws.append(exact + float(torch.dot(z, product)))
        left = float(product.norm())
    if len(draws) > 1:
        return mean_interval(draws), statistics.stdev(draws) / math.sqrt(len(draws))
    error, [value] = math.sqrt(2.0) * left, draws
    return Estimate(value, value - 1.96 * error, value + 1.96 * error, 1), error


def _outside(
    z: torch.Tensor, product: torch.Tensor, known: Krylov
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return z' and H' z', with H' = (I - QQ^T) H (I - QQ^T), from z and H z alone."""
    q = known.basis
    inside = q @ z
    # H Q c = Q T c + rest c_m: known from the recurrence; its part in Q falls to the projection
    product = product - inside[-1] * known.rest
    return z - inside @ q, product - (q @ product) @ q


@dataclass(frozen=True)
class Density:
    """grid (G,) in units of the eigenvalues; density (G,) in their inverse; error (G,) or None."""

    grid: torch.Tensor
    density: torch.Tensor
    error: torch.Tensor | None
    width: float


def density(probes: Sequence[Krylov], width: float | None = None, points: int = 201) -> Density:
    """Return the smoothed spectral density. width: of the Gaussian; None: what m nodes can tell apart.

    m nodes resolve about the m-th part of the range; a narrower Gaussian shows nodes, not spectrum.
    """
    low = min(float(run.values[0]) for run in probes)
    high = max(float(run.values[-1]) for run in probes)
    spread = (high - low) or abs(high) or 1.0
    width = width or spread / max(len(run.values) for run in probes)
    grid = torch.linspace(low - 3 * width, high + 3 * width, points, dtype=torch.float64)
    each = torch.stack([_smoothed(run, grid, width) for run in probes])
    error = each.std(0) / math.sqrt(len(probes)) if len(probes) > 1 else None
    return Density(grid, each.mean(0), error, width)


def _smoothed(run: Krylov, grid: torch.Tensor, width: float) -> torch.Tensor:
    distance = (grid[:, None] - run.values) / width
    bells = torch.exp(-0.5 * distance.square()) / (width * math.sqrt(2 * math.pi))
    return bells @ run.weights


def negative_share(probes: Sequence[Krylov]) -> Estimate:
    """Return the share of the spectrum's mass below zero; values within rounding of zero count as zero."""
    shares = []
    for run in probes:
        rounding = torch.finfo(run.basis.dtype).eps * float(run.values.abs().max())
        shares.append(float(run.weights[run.values < -10 * rounding].sum()))
    return mean_interval(shares)
