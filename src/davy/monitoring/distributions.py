"""The few distribution functions that tests of drift need, exact to ten digits: no statistics package is installed for them."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_NORMAL = NormalDist()
_TINY, _ROUNDS = 1e-300, 100_000


def gamma_q(a: float, x: float) -> float:
    """The regularised upper incomplete gamma function Q(a, x): a series below a + 1, Lentz's continued fraction above.

    Source: Press et al., Numerical Recipes, 3rd edition, section 6.2.

    >>> round(gamma_q(0.5, 0.5 * 1.96**2), 6)
    0.049996
    """
    if a <= 0 or x < 0 or math.isnan(x):
        raise ValueError(f"Q({a}, {x}) is not defined")
    if x == 0:
        return 1.0
    if math.isinf(x):
        return 0.0
    scale = a * math.log(x) - x - math.lgamma(a)
    return 1.0 - _series(a, x, scale) if x < a + 1 else _fraction(a, x, scale)


def gamma_p(a: float, x: float) -> float:
    """The lower one, P(a, x) = 1 - Q(a, x), without cancellation where it is small."""
    if 0 < x < a + 1:
        return _series(a, x, a * math.log(x) - x - math.lgamma(a))
    return 1.0 - gamma_q(a, x)


def _series(a: float, x: float, scale: float) -> float:
    term = total = 1 / a
    for step in range(1, _ROUNDS):
        term *= x / (a + step)
        total += term
        if term < total * 1e-17:
            break
    return math.exp(scale) * total


def _fraction(a: float, x: float, scale: float) -> float:
    b = x + 1 - a
    c, d = 1 / _TINY, 1 / b
    value = d
    for step in range(1, _ROUNDS):
        factor = -step * (step - a)
        b += 2
        d = factor * d + b
        c = b + factor / c
        d = 1 / (d if abs(d) > _TINY else _TINY)
        c = c if abs(c) > _TINY else _TINY
        value *= d * c
        if abs(d * c - 1) < 1e-16:
            break
    return math.exp(scale) * value


def chi2_sf(x: float, degrees: int) -> float:
    """P(chi-square of so many degrees of freedom > x).

    >>> round(chi2_sf(16.918977604620448, 9), 10)
    0.05
    """
    return gamma_q(degrees / 2, max(x, 0.0) / 2)


def chi2_isf(p: float, degrees: int) -> float:
    """The x that is exceeded with probability p, by bisection.

    >>> round(chi2_isf(0.05, 9), 6)
    16.918978
    """
    low, high = 0.0, degrees + 10.0
    while chi2_sf(high, degrees) > p:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if chi2_sf(middle, degrees) > p else (low, middle)
    return (low + high) / 2


def poisson_sf(count: int, mean: float) -> float:
    """P(Poisson(mean) >= count)."""
    return 1.0 if count <= 0 else gamma_p(count, mean)


def normal_cdf(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The standard normal distribution function, element by element."""
    return np.array([_NORMAL.cdf(value) if math.isfinite(value) else float(value > 0) for value in np.ravel(x)]).reshape(np.shape(x))


def normal_quantile(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Its inverse; 0 and 1 give the infinities."""
    return np.array([_NORMAL.inv_cdf(value) if 0 < value < 1 else (-math.inf if value <= 0 else math.inf) for value in np.ravel(p)]).reshape(np.shape(p))


def upper_bound(share: NDArray[np.float64], rows: NDArray[np.float64] | float, log_odds: float) -> NDArray[np.float64]:
    """The largest probability that is not refuted by an observed share: n KL(share, p) <= log_odds, Chernoff's bound, by bisection."""
    low = np.asarray(share, dtype=np.float64)
    high = np.ones_like(low)
    start = low
    reach = log_odds / np.maximum(np.asarray(rows, dtype=np.float64), 1e-9)
    for _ in range(60):
        middle = (low + high) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = np.where(start > 0, start * np.log(start / middle), 0.0) + np.where(start < 1, (1 - start) * np.log((1 - start) / (1 - middle)), 0.0)
        inside = distance <= reach
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return high


def benjamini_yekutieli(p: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the false discovery rate under any dependence between the tests.

    Source: Benjamini and Yekutieli, Annals of Statistics 29 (2001).

    >>> benjamini_yekutieli([0.01, 0.5])
    [0.03, 0.75]
    """
    count = len(p)
    harmonic = sum(1 / rank for rank in range(1, count + 1))
    adjusted, least = [1.0] * count, 1.0
    for rank, index in zip(range(count, 0, -1), sorted(range(count), key=p.__getitem__, reverse=True), strict=True):
        least = min(least, p[index] * count * harmonic / rank)
        adjusted[index] = least
    return adjusted


def bonferroni(p: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the chance of any false one."""
    return [min(1.0, value * len(p)) for value in p]
