"""How many channels of a fresh layer are dead on a batch, and when one that was silent is surely dead.

    z_ci = sqrt(c) t_c + sqrt(1 - c) e_ci,   t, e ~ N(0, 1):  channel c, sample i, correlation c of samples
    P(dead)      = P(z_c1, ..., z_cn <= 0) = E_t[Phi(sqrt(c / (1 - c)) t)^n]
    P(m <= -k)   = T_(n-1)(-k sqrt((n - 1) (1 - c) / (1 + (n - 1) c))),   m = mean / deviation over n samples

z are the pre-activations of a ReLU; weights are drawn symmetrically about zero, without biases, so that a
channel's values over samples share the part that the samples have in common. c = 0 (a batch norm before):
2^-n. c = 1/2: 1 / (n + 1). c -> 1 (deep without norm, where inputs become parallel): 1/2. Whatever c is,
as many channels are expected dead as always on: given the inputs, weights w and -w are equally likely.
Orthants of equally correlated Gaussians: Steck 1962; here positions of one sample count as one, and more of
them make dead channels rarer, so that the share is an upper one.

Never firing on n independent samples bounds the firing rate by 1 - 0.05^(1/n), about 3/n (Clopper & Pearson
1934, "rule of three"). A channel whose mean is k deviations below zero fires at most with 1 / (1 + k^2)
(Cantelli's inequality), whatever its distribution.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import stats

LEVEL = 0.95
RARELY = 0.05  # a channel that fires more often than this is not called dead
CHANCE = 1e-6  # that a channel of mean zero passes for dead
_MEDIAN = float(stats.chi2.ppf(0.5, 1))  # of t^2
_NODES = 64  # of the quadrature over t


def dead_share(correlation: float, n: int) -> float:
    """Return the share of channels that are zero on all of n samples.

    >>> dead_share(0.0, 3), round(dead_share(0.5, 4), 6), dead_share(1.0, 9)
    (0.125, 0.2, 0.5)
    """
    if correlation >= 1:
        return 0.5
    slope = math.sqrt(correlation / (1 - correlation))
    # over u = Phi(t), uniform: smooth enough for Gauss-Legendre, whatever the slope
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    below = stats.norm.cdf(slope * stats.norm.ppf((nodes + 1) / 2))
    return float((weights / 2 * below**n).sum())


def far_share(correlation: float, margin: float, n: int) -> float:
    """Return the share of channels whose mean over n samples is `margin` deviations or more below zero.

    The mean is N(0, c + (1 - c) / n) over channels, and independent of the deviation, so that their ratio
    is Student's, stretched. Without end of samples it is Phi(-k sqrt((1 - c) / c)).

    >>> far_share(1.0, 4.0, 8), round(far_share(0.5, 1.0, 10**6), 4), round(far_share(0.99, 51.0, 4), 4)
    (0.5, 0.1587, 0.0107)
    """
    if n < 2 or math.isinf(margin):
        return 0.0
    stretched = (n - 1) * (1 - correlation) / (1 + (n - 1) * correlation)
    return float(stats.t.cdf(-margin * math.sqrt(max(stretched, 0.0)), n - 1))


def far_margin(samples: int) -> float:
    """Return how many deviations below zero a channel's mean must be to be surely dead.

    So far that it fires on under 5 % (Cantelli), and that n samples of a channel of mean zero come out
    like this once in a million (Student's t with samples - 1 degrees of freedom).

    >>> [round(far_margin(n), 2) for n in (8, 64)], far_margin(1)
    ([5.04, 4.36], inf)
    """
    if samples < 2:
        return math.inf
    student = -float(stats.t.ppf(CHANCE, samples - 1)) / math.sqrt(samples)
    return max(math.sqrt(1 / RARELY - 1), student)


def shared_correlation(means: npt.NDArray[np.float64], squares: npt.NDArray[np.float64]) -> float:
    """Return c from each channel's mean and mean square over the batch.

    From the median over channels of mean^2 / square, so that channels that were shifted by something
    else do not move it: the median of t^2 c / (t^2 c + 1 - c).
    """
    usable = squares > 0
    if not usable.any():
        return 0.0
    ratio = float(np.median(means[usable] ** 2 / squares[usable]))
    return min(1.0, ratio / (_MEDIAN + (1 - _MEDIAN) * ratio))


def firing_bound(n: int) -> float:
    """Return the 95 % upper bound on the firing rate of what was silent n times.

    >>> round(firing_bound(1), 4), round(firing_bound(300), 4)
    (0.95, 0.0099)
    """
    return float(1 - (1 - LEVEL) ** (1 / n))
