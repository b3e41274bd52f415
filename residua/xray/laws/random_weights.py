"""What the weights of a layer look like where chance alone made them: n units with d Gaussian weights each.

    length     |w|^2 / s^2 ~ chi^2(d): the shortest of n lies at its quantile 1 - (1 - p)^(1/n)
    overlap    cos^2 of two units ~ Beta(1/2, (d-1)/2):  P(|cos| > c) = I_(1-c^2)((d-1)/2, 1/2)
    dependence the smallest singular value over sqrt(max(n, d)) tends to 1 - sqrt(min / max) (Marchenko &
               Pastur 1967), and with a = min(n, d), b = max(n, d), k = b - a + 1 it is bounded at any size by
               P(smallest^2 <= x) <= 2^((k-2)/2) Gamma((b+1)/2) / (Gamma(a/2) Gamma(k)) (2/k) x^(k/2)
               (Edelman 1988: the density of the smallest eigenvalue, its factor e^(-ax/2) left out)

Weights drawn from a uniform or truncated normal law scatter less, orthogonal ones not at all: a bound that
Gaussian weights keep is kept by all usual initialisations. Lengths are relative to the median unit's;
units of length one are compared with Gaussian ones by the longest length that these reach.
"""

from __future__ import annotations

import math

from scipy import special, stats

MEDIAN = 0.5


def shortest(units: int, weights: int, chance: float = MEDIAN) -> float:
    """Return the length, relative to the median unit's, below which the shortest of n lies with `chance`.

    >>> round(shortest(64, 576), 2), shortest(64, 576, 1e-6) < shortest(64, 576)
    (0.93, True)
    """
    one = -math.expm1(math.log1p(-chance) / units)
    return math.sqrt(float(stats.chi2.ppf(one, weights)) / float(stats.chi2.median(weights)))


def overlap(units: int, weights: int, chance: float = MEDIAN) -> float:
    """Return the |cos| that the most alike pair of n units exceeds with `chance`; 1 where all are parallel.

    >>> overlap(10, 1), overlap(1, 10)
    (1.0, 0.0)
    """
    pairs = units * (units - 1) // 2
    if weights < 2:
        return 1.0
    if pairs == 0:
        return 0.0
    one = -math.expm1(math.log1p(-chance) / pairs)
    return math.sqrt(1.0 - float(special.betaincinv((weights - 1) / 2, 0.5, one)))


def smallest_typical(units: int, weights: int) -> float:
    """Return Marchenko and Pastur's edge, 1 - sqrt(min / max): zero for as many units as weights."""
    low, high = sorted((units, weights))
    return 1.0 - math.sqrt(low / high)


def smallest_bound(units: int, weights: int, chance: float) -> float:
    """Return a singular value, over sqrt(max(n, d)), below which the smallest lies with at most `chance`.

    Of n units of length one (times sqrt d): half of the chance is for a Gaussian unit so long that
    bringing it to length one costs more than is allowed for here.
    """
    low, high = sorted((units, weights))
    k = high - low + 1
    constant = (k - 2) / 2 * math.log(2) + float(special.gammaln((high + 1) / 2))
    constant -= float(special.gammaln(low / 2)) + float(special.gammaln(k))
    gaussian = math.exp((math.log(chance / 2 * k / 2) - constant) / k) / math.sqrt(high)
    longest = math.sqrt(float(stats.chi2.isf(chance / 2 / units, weights)) / weights)
    return gaussian / longest
