"""The gradient by path length of a part of the trunk: the whole, or one stage.

    |g_k|            the norm of the sum over all paths of length k
    w_k              |g_k| / sum_j |g_j|: its share; effective depth = sum_k k w_k
    s_k              <g_k, g> / |g|^2, g = sum_k g_k: the part of the gradient itself that length k makes;
                     may be negative; the s_k sum to exactly 1

Norms and products are taken in double precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from residua.xray.paths.counting import Polynomial
from residua.xray.paths.forward import Kept
from residua.xray.paths.lengths import Lengthen, by_length
from residua.xray.units import Unit


@dataclass
class Part:
    """A run of the trunk's units: the whole trunk or a stage.

    name: "whole", or the stage's number. trunk: its units; units: with those inside. start: the node that
    its first unit reads; end: the one that its last unit makes, or None: the scalar. paths: their number
    by length. lengths: how many lengths are told apart; the last is that and more.
    """

    name: str
    trunk: list[Unit]
    units: list[Unit]
    start: int
    end: int | None
    paths: Polynomial
    lengths: int

    @property
    def grouped(self) -> list[int]:
        """The number of paths of each length that is told apart, the last with all that are longer."""
        return [*self.paths[: self.lengths - 1], sum(self.paths[self.lengths - 1 :])]


@dataclass
class Spectrum:
    """The gradient of one sample by path length: |g_k|, s_k (None where g = 0), |g| and its deviation.

    deviation: |g - a| / |a|, a: the gradient by an ordinary backward pass.
    """

    norms: list[float]
    signed: list[float] | None
    total: float
    deviation: float

    @property
    def shares(self) -> list[float] | None:
        """w_k, or None where no gradient arrives."""
        whole = sum(self.norms)
        return [norm / whole for norm in self.norms] if whole else None


def spectra(kept: Kept, part: Part, samples: int, lengthen: Lengthen) -> list[Spectrum]:
    """Return the spectrum of each sample of a pass whose units are handled by `lengthen`."""
    value = kept.values[part.start]
    output = kept.scalar if part.end is None else kept.values[part.end]
    lengthen.units = ()
    plain = _gradient(kept.scalar, value)
    cotangent = torch.ones_like(kept.scalar)
    if part.end is not None:
        cotangent = _gradient(kept.scalar, output)
    lengthen.units = {unit.index for unit in part.units}
    found = by_length(output, value, cotangent, part.lengths).detach()
    apart = len(value) == samples if value.dim() else False
    rows = range(samples) if apart else [slice(None)]
    return [_spectrum(found[:, i].flatten(1), plain[i].flatten()) for i in rows]


def _gradient(output: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(
        output, value, retain_graph=True, allow_unused=True, materialize_grads=True
    )[0]


def _spectrum(parts: torch.Tensor, plain: torch.Tensor) -> Spectrum:
    """Return norms and products of parts (lengths, D); one at a time, for double precision is large."""
    gradient = torch.zeros_like(plain, dtype=torch.float64)
    for part in parts:
        gradient += part
    square = float(gradient @ gradient)
    size = float(plain.double().norm())
    error = float((gradient - plain).norm())
    return Spectrum(
        norms=[float(part.double().norm()) for part in parts],
        signed=[float(part.double() @ gradient) / square for part in parts] if square else None,
        total=square**0.5,
        deviation=error / size if size else error,
    )


def effective(shares: Sequence[float]) -> float:
    """Return the mean length sum_k k w_k.

    >>> effective([0.25, 0.5, 0.25])
    1.0
    """
    return sum(length * share for length, share in enumerate(shares))


def run_of(shares: Sequence[float], wanted: float) -> tuple[int, int]:
    """Return the shortest run of lengths (first, last) that holds this share or more.

    >>> run_of([0.0, 0.1, 0.5, 0.38, 0.02], 0.8)
    (2, 3)
    """
    best = (0, len(shares) - 1)
    first, held = 0, 0.0
    for last, share in enumerate(shares):
        held += share
        while first < last and held - shares[first] >= wanted:
            held -= shares[first]
            first += 1
        if held >= wanted and last - first < best[1] - best[0]:
            best = first, last
    return best
