"""Drift in batches: whether the distribution of a column moved, with a test that is calibrated and a tolerance that is practical.

When nothing moved, PSI / (1/n + 1/m) is a chi-square with one degree of freedom fewer than there are bins, so that a fixed
threshold means something else at every sample size. A column has drifted when that test, corrected for how many columns are
looked at, rejects *and* PSI is above the tolerance.

Source: Yurdakul and Naranjo, "Statistical properties of the population stability index", Journal of Risk Model Validation 14 (2020).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from davy.monitoring.distributions import benjamini_yekutieli, bonferroni, chi2_isf, chi2_sf, poisson_sf, upper_bound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from davy.monitoring.columns import ColumnProfile, ColumnReference, Reference

TOLERANCE, ALPHA = 0.01, 0.01
FEWEST_ROWS, FEWEST_EXPECTED, FEWEST_INDEPENDENT = 50, 10.0, 5.0
FLOOR = 1e-4
_RARE_CONFIDENCE = math.log(1000)
HOUR = 3_600_000_000

Verdict = Literal["same", "drifted", "not enough data"]
Correction = Literal["benjamini-yekutieli", "bonferroni"]


class ColumnDrift(msgspec.Struct, frozen=True):
    """How one column stands against the training set.

    Attributes:
        psi: over the reference's deciles, or its top values, other and unseen, and nulls; shares below 1e-4 count as 1e-4.
        threshold: the PSI that chance alone exceeds with probability alpha, for one column.
        p, adjusted: of the calibrated test; after the correction for all columns.
        ks, w1: the largest distance of the distribution functions; the mean distance in standard deviations, inside the reference's range.
        outside, unseen: the share of values beyond the reference's range; of texts that it has not.
    """

    feature: str
    verdict: Verdict
    rows: int
    psi: float | None
    threshold: float | None
    p: float | None
    adjusted: float | None
    ks: float | None
    w1: float | None
    nulls: float
    reference_nulls: float
    outside: float
    unseen: float


class _Tested(msgspec.Struct, frozen=True):
    psi: float | None = None
    threshold: float | None = None
    p: float | None = None


def drift(reference: Reference, profiles: Mapping[str, ColumnProfile], *, tolerance: float | Mapping[str, float] = TOLERANCE, alpha: float = ALPHA,
          correction: Correction = "benjamini-yekutieli", span: int | None = None) -> list[ColumnDrift]:
    """Every counted column against the reference, the largest PSI first.

    Args:
        tolerance: the PSI that does not matter (0.01 is about a shift of a tenth of a standard deviation), also by feature.
        alpha: the false discovery rate (or with Bonferroni the chance of any false one).
        span: microseconds that the profiles cover, by which rows of one day, that hang together, count for fewer; default: all are independent.
    """
    columns = [column for column in reference.columns if column.kind != "none" and column.name in profiles]
    tested = [_test(column, profiles[column.name], alpha, span) for column in columns]
    known = [index for index, one in enumerate(tested) if one.p is not None]
    correct = bonferroni if correction == "bonferroni" else benjamini_yekutieli
    adjusted = dict(zip(known, correct([tested[index].p or 0.0 for index in known]), strict=True))
    limits = dict.fromkeys(profiles, float(tolerance)) if isinstance(tolerance, (int, float)) else tolerance
    found = [_judged(column, profiles[column.name], one, adjusted.get(index), alpha, limits.get(column.name, TOLERANCE))
             for index, (column, one) in enumerate(zip(columns, tested, strict=True))]
    return sorted(found, key=lambda item: (-(item.psi or 0.0), item.feature))


def _judged(column: ColumnReference, profile: ColumnProfile, tested: _Tested, adjusted: float | None, alpha: float, tolerance: float) -> ColumnDrift:
    verdict: Verdict = "not enough data"
    if adjusted is not None and tested.psi is not None:
        verdict = "drifted" if adjusted <= alpha and tested.psi > tolerance else "same"
    rows, known = max(profile.rows, 1), max(profile.rows - profile.nulls, 1)
    ks, w1 = _distances(column, profile)
    return ColumnDrift(column.name, verdict, profile.rows, tested.psi, tested.threshold, tested.p, adjusted, ks, w1, profile.nulls / rows,
                       column.nulls / max(column.rows, 1), (profile.below + profile.above) / known,
                       float(profile.counts[-1]) / known if column.kind == "category" else 0.0)


def psi(expected: NDArray[np.float64], actual: NDArray[np.float64]) -> float:
    """The population stability index of two sets of shares; those below 1e-4 count as 1e-4, and all are made to sum to 1 again.

    >>> round(psi(np.array([0.5, 0.5]), np.array([0.6, 0.4])), 4)
    0.0405
    """
    p, q = np.maximum(expected, FLOOR), np.maximum(actual, FLOOR)
    p, q = p / p.sum(), q / q.sum()
    return float(((p - q) * np.log(p / q)).sum())


def psi_threshold(n: int, m: int, bins: int, alpha: float) -> float:
    """The PSI of two samples of one distribution that is exceeded with probability alpha.

    >>> round(psi_threshold(100_000, 1_000, 10, 0.01), 5)
    0.02188
    """
    return (1 / n + 1 / m) * chi2_isf(alpha, bins - 1)


def _test(column: ColumnReference, profile: ColumnProfile, alpha: float, span: int | None) -> _Tested:
    """PSI over all bins is the effect; the test merges bins in which few rows are expected, and looks at those that can't be merged apart."""
    n, m = column.rows, profile.rows
    if m < FEWEST_ROWS or n < FEWEST_ROWS or (span is not None and span < _cycle(column)):
        return _Tested()
    then, now = _alike(column, m, span)
    noise = then / n + now / m  # Rao and Scott's first correction, Annals of Statistics 12 (1984)
    before, after = _bins(column, column.counts), _bins(column, profile.counts)
    effect = psi(np.append(_expected(column, before), column.nulls) / max(before.sum() + column.nulls, 1), np.append(after, profile.nulls) / m)
    if m / now < FEWEST_INDEPENDENT:
        return _Tested(effect)
    rare = _rare(column, profile, before, after)
    if column.kind == "category":  # unseen values count as other here
        before, after = _folded(before), _folded(after)
    before, after = np.append(before, column.nulls), np.append(after, profile.nulls)
    before, after = _merged(before, after, m / n, column.nulls * m / n >= FEWEST_EXPECTED)
    used = (before + after) > 0
    degrees = int(used.sum()) - 1
    if degrees < 1:
        if rare is None:
            return _Tested(effect, None, 1.0)
        return _Tested(effect, None, rare)
    statistic = _smoothed(before[used], after[used]) / noise
    p = chi2_sf(statistic, degrees)
    threshold = noise * chi2_isf(alpha, degrees)
    if rare is None or now > 2:  # rare rows that come together are no independent surprises
        return _Tested(effect, threshold, p)
    return _Tested(effect, threshold, min(1.0, 2 * min(p, rare)))


def _cycle(column: ColumnReference) -> float:
    """How long the profiles must be to hold every hour that a column follows: nearly a day, or a week."""
    return 0.9 * len(column.by_hour) * HOUR if column.by_hour is not None else 0.0


def _alike(column: ColumnReference, m: int, span: int | None) -> tuple[float, float]:
    """How many rows of the training set, and of the profiles, count for as much as one independent one would."""
    if span is None or not column.blocks:
        return 1.0, 1.0
    day = max(level.block for level in column.blocks)
    return float(column.inflation()[-1]), float(column.inflation(m / max(span, day))[-1])


def _smoothed(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    """PSI with half a row more in each bin, so that an empty one of a small sample does not count for more than it says."""
    p, q = (before + 0.5) / (before + 0.5).sum(), (after + 0.5) / (after + 0.5).sum()
    return float(((p - q) * np.log(p / q)).sum())


def _bins(column: ColumnReference, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Deciles of numbers; of texts all bins."""
    if column.kind == "category":
        return counts.astype(np.float64)
    edges = column.edges
    total = int(column.counts.sum())
    if not total:
        return counts.astype(np.float64)
    ends = np.cumsum(column.counts)
    places = np.unique(np.concatenate([np.searchsorted(ends, np.arange(1, 10) * total / 10, side="left"), _heavy(column.counts, total)]))
    places = places[places < len(edges)]
    running = np.concatenate([[0], np.cumsum(counts)])
    return np.diff(np.concatenate([[0], running[places + 1], [running[-1]]])).astype(np.float64)


def _heavy(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """The bins that alone hold a tenth of all values, and those before them: a heavy value is not mixed with its neighbours."""
    thick = np.flatnonzero(counts * 10 >= total)
    return np.concatenate([thick, thick[thick > 0] - 1])


def _folded(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.append(counts[:-2], counts[-2] + counts[-1])


def _merged(before: NDArray[np.float64], after: NDArray[np.float64], ratio: float, nulls: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Neighbouring bins in which fewer than ten rows are expected become one. Few nulls are left out; they are tested apart."""
    found: list[list[float]] = []
    for expected, actual in zip(before[:-1].tolist(), after[:-1].tolist(), strict=True):
        if found and found[-1][0] * ratio < FEWEST_EXPECTED:
            found[-1][0] += expected
            found[-1][1] += actual
        else:
            found.append([expected, actual])
    if len(found) > 1 and found[-1][0] * ratio < FEWEST_EXPECTED:
        last = found.pop()
        found[-1][0] += last[0]
        found[-1][1] += last[1]
    if nulls:
        found.append([float(before[-1]), float(after[-1])])
    pairs = np.array(found)
    return pairs[:, 0], pairs[:, 1]


def _expected(column: ColumnReference, before: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts as they may be expected: of texts, so many are unseen, and all others are fewer for it."""
    if column.kind != "category":
        return before
    return np.append(before[:-1] * (1 - column.unseen), column.unseen * before.sum())


def _rare(column: ColumnReference, profile: ColumnProfile, before: NDArray[np.float64], after: NDArray[np.float64]) -> float | None:
    """The p-value of more rows than the most that the reference allows: of nulls, of unseen texts, or in bins where few are expected.

    None where there is nothing of that kind.
    """
    n, m, found = column.rows, profile.rows, list[float]()
    last = len(before) - 1 if column.kind == "category" else len(before)
    few = before[:last] * m / n < FEWEST_EXPECTED
    if after[:last][few].any():
        found.append(_too_many(float(before[:last][few].sum()) / n, n, int(after[:last][few].sum()), m))
    if column.nulls * m / n < FEWEST_EXPECTED and profile.nulls:
        found.append(_too_many(column.nulls / n, n, profile.nulls, m))
    if column.kind == "category" and profile.counts[-1]:
        found.append(_too_many(column.unseen * (1 - column.nulls / n), n, int(profile.counts[-1]), m))
    return min(1.0, len(found) * min(found)) if found else None


def _too_many(share: float, n: int, count: int, m: int) -> float:
    most = float(upper_bound(np.array([share]), float(n), _RARE_CONFIDENCE)[0])
    return poisson_sf(count, most * m)


def _distances(column: ColumnReference, profile: ColumnProfile) -> tuple[float | None, float | None]:
    known, total = profile.rows - profile.nulls, int(column.counts.sum())
    if column.kind != "number" or not known or not total:
        return None, None
    gaps = np.abs(np.cumsum(column.counts)[:-1] / total - np.cumsum(profile.counts)[:-1] / known)
    area = float(((gaps[:-1] + gaps[1:]) / 2 * np.diff(column.edges)).sum())
    return float(gaps.max(initial=0.0)), area / column.sd if column.sd > 0 else None


def drifted(found: Sequence[ColumnDrift]) -> list[str]:
    """The names of the columns that drifted."""
    return [item.feature for item in found if item.verdict == "drifted"]
