"""How a size grows from block to block, which law it follows, and how well.

    constant   m_k = m_0                    a residual trunk times 1/sqrt 2; He's plain layers; a norm
    doubling   m_k = 2^k m_0                a residual trunk without norm
    explosion  m_k = (1.2112^2)^k m_0       the gradient, backward through BN-ReLU layers (large batch)
    linear     m_k = m_0 + g k              a residual trunk with the norm first in the branch
    factor     m_k = b^k m_0                anything else that is exponential: b is fitted
    share      m_(k-1) = (1 + c u_k) m_k    the gradient, backward through a residual trunk; c is fitted,
                                            u_k: the branch's second moment over the trunk's before it

k counts blocks inside a stage, for a change of shape obeys no law. The growth of a network is the mean of
its steps ln(m_k / m_(k-1)), its interval Student's over the steps. Steps are independent where layers are
drawn independently (the values m_k themselves are not). Those of a residual trunk remember, for half of each
value is the one before: they correlate by 2^-j, the variance of their mean is (1 + 1/2) / (1 - 1/2) = 3 times
as large, and n of them count as n / 3.

The law that is named is, of those whose mean misfit has 0 in that interval, the one with the least AIC over
the steps (Akaike 1974); a fitted law must be better by 6 than one without parameter. R^2 is of ln m inside
the stages; of the constant law it is 0 by definition.

The share's law adds the squares of two paths: without norm u = 1 and c = 1, which is the doubling; with the
norm first in the branch u falls like 1/k, and the growth is a power of the depth, not an exponential (Yang &
Schoenholz 2017, "Mean field residual networks").
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from residua.xray.intervals import Estimate, mean_interval

Numbers = npt.NDArray[Any]
LEAST_STEPS = 3  # fewer cannot tell one law from another
NO_LAW = "too few blocks"
MUST_BE_BETTER = (
    6.0  # of AIC: a law that is worse by 4 to 7 has little support (Burnham & Anderson 2002)
)
TRUNK_MEMORY = 0.5
_EXACT = 1e-12  # a mean square misfit below this is rounding


@dataclass(frozen=True)
class LawFit:
    """One law beside the measured curve.

    factor: a block, of the law (None: it changes with depth). gain: g of the linear law,
    c of the share's.
    misfit: root mean square of the steps' ln(measured / law). bias: their mean. r2: of ln m.
    holds: 0 is in the interval of the mean misfit.
    """

    law: str
    factor: float | None
    gain: float | None
    bias: Estimate
    misfit: float
    r2: float | None
    score: float

    @property
    def holds(self) -> bool:
        """Whether the measured mean growth agrees with the law's."""
        return 0.0 in self.bias


@dataclass
class Growth:
    """What a curve does: `rate` is the mean of ln(m_k / m_(k-1)) with its interval over steps.

    one_a_block: what a trunk that gains one unit a block, from one on, grows by in all: the sum of ln(K + 1)
    over stages of K steps.
    """

    rate: Estimate | None = None
    law: str = NO_LAW
    fits: list[LawFit] = field(default_factory=list)
    steps: int = 0
    one_a_block: float = 0.0

    @property
    def fit(self) -> LawFit | None:
        """The fit of the law that was chosen."""
        return next((fit for fit in self.fits if fit.law == self.law), None)

    @property
    def exponential(self) -> bool:
        """Whether the chosen law is a factor a block that is surely not 1."""
        sure = self.rate is not None and 0.0 not in self.rate
        return sure and self.law not in (NO_LAW, "constant", "linear", "share")


def steps_of(curve: Sequence[float], chains: Sequence[Sequence[int]]) -> Numbers:
    """Return ln(m_k / m_(k-1)) along the chains of places, where both are above zero and finite."""
    found = []
    for chain in chains:
        for before, here in pairwise(chain):
            if _sized(curve[before]) and _sized(curve[here]):
                found.append(math.log(curve[here]) - math.log(curve[before]))
    return np.array(found)


def growth(
    curve: Sequence[float],
    chains: Sequence[Sequence[int]],
    laws: Mapping[str, float],
    shares: Sequence[float] | None = None,
    memory: float = 0.0,
) -> Growth:
    """Fit the laws to a curve.

    Args:
        curve: a second moment or variance at each place.
        chains: places in the order in which the curve is followed, a chain a stage.
        laws: the factor a block of each law that has no parameter; "linear" and "factor" are always tried.
        shares: u at each place, for a gradient that is followed backward.
        memory: the correlation of neighbouring steps.
    """
    kept = [part for chain in chains for part in _measured(curve, chain)]
    logs = [np.log([curve[i] for i in chain]) for chain in kept]
    steps = np.concatenate([np.diff(part) for part in logs]) if logs else np.array([])
    if not len(steps):
        return Growth()
    found = Growth(
        _mean(steps, memory),
        steps=len(steps),
        one_a_block=sum(math.log(len(part)) for part in logs),
    )
    if len(steps) < LEAST_STEPS:
        return found
    assert found.rate is not None
    for name, factor in {**laws, "factor": math.exp(found.rate.value)}.items():
        line = [np.arange(len(part)) * math.log(factor) for part in logs]
        fitted = name == "factor"
        found.fits.append(_fit(name, (logs, line), fitted, memory, factor=factor))
    linear = _linear(logs)
    if linear is not None:
        found.fits.append(_fit("linear", (logs, linear[0]), True, memory, gain=linear[1]))
    shared = None if shares is None else _shared(logs, [[shares[i] for i in c[:-1]] for c in kept])
    if shared is not None:
        found.fits.append(_fit("share", (logs, shared[0]), True, memory, gain=shared[1]))
    able = [fit for fit in found.fits if fit.holds]
    found.law = min(able, key=lambda fit: fit.score).law if able else "factor"
    return found


def _measured(curve: Sequence[float], chain: Sequence[int]) -> list[list[int]]:
    """Split a chain where a value is zero or not finite; a single place makes no step."""
    parts: list[list[int]] = [[]]
    for place in chain:
        if _sized(curve[place]):
            parts[-1].append(place)
        else:
            parts.append([])
    return [part for part in parts if len(part) > 1]


def _sized(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _fit(
    law: str,
    curves: tuple[list[Numbers], list[Numbers]],
    fitted: bool,
    memory: float,
    *,
    factor: float | None = None,
    gain: float | None = None,
) -> LawFit:
    """Compare a law with what was measured; curves: ln m, measured and predicted, by chain."""
    off = [m - p for m, p in zip(*curves, strict=True)]
    steps = np.concatenate([np.diff(part) for part in off])
    n = len(steps) * (1 - memory) / (1 + memory)
    square = float((steps**2).mean())
    score = n * math.log(max(square, _EXACT)) + fitted * (2 + MUST_BE_BETTER)
    residual = float((np.concatenate([_centred(part) for part in off]) ** 2).sum())
    total = float((np.concatenate([_centred(m) for m in curves[0]]) ** 2).sum())
    r2 = 1 - residual / total if total > _EXACT else None
    return LawFit(law, factor, gain, _mean(steps, memory), math.sqrt(square), r2, score)


def _mean(steps: Numbers, memory: float) -> Estimate:
    """Return the mean of steps whose neighbours correlate by `memory`, the next but one by its square."""
    found = mean_interval(steps)
    half = (found.high - found.value) * math.sqrt((1 + memory) / (1 - memory))
    return Estimate(found.value, found.value - half, found.value + half, found.n)


def _centred(values: Numbers) -> Numbers:
    centred: Numbers = values - values.mean()
    return centred


def _linear(logs: list[Numbers]) -> tuple[list[Numbers], float] | None:
    """Fit m_0 + g k, with one g and a start for every chain, by relative least squares.

    None where it would fall below zero.
    """
    m = np.exp(np.concatenate(logs))
    design = np.zeros((len(m), len(logs) + 1))
    row = 0
    for chain, part in enumerate(logs):
        design[row : row + len(part), chain] = 1
        design[row : row + len(part), -1] = np.arange(len(part))
        row += len(part)
    best = np.linalg.lstsq(design / m[:, None], np.ones(len(m)), rcond=None)[0]
    line = design @ best
    if not (line > 0).all():
        return None
    return np.split(np.log(line), np.cumsum([len(part) for part in logs])[:-1]), float(best[-1])


def _shared(logs: list[Numbers], shares: list[list[float]]) -> tuple[list[Numbers], float] | None:
    """Fit c of steps ln(1 + c u); None where a share is not known."""
    if not all(_sized(u) for part in shares for u in part):
        return None
    u = np.concatenate([np.array(part) for part in shares])
    steps = np.concatenate([np.diff(part) for part in logs])

    def misfit(log_c: float) -> float:
        return float(((steps - np.log1p(math.exp(log_c) * u)) ** 2).sum())

    c = math.exp(minimize_scalar(misfit, bounds=(-12, 12), method="bounded").x)
    return [np.r_[0.0, np.cumsum(np.log1p(c * np.array(part)))] for part in shares], c


def more_blocks(found: Growth, now: float, bound: float) -> float:
    """Return after how many more blocks the law that `found` names takes a size from `now` to `bound`.

    Infinite where it never does. bound above now: overflow; below: underflow.
    """
    fit = found.fit
    if fit is None or found.rate is None or not (_sized(now) and _sized(bound)):
        return math.inf
    if fit.law == "linear":
        return (bound - now) / fit.gain if fit.gain and (bound - now) / fit.gain > 0 else math.inf
    if not found.exponential:
        return math.inf
    blocks = (math.log(bound) - math.log(now)) / found.rate.value
    return blocks if blocks > 0 else math.inf
