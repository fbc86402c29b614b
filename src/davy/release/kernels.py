"""Tests that stay valid however often one looks: e-values, as logarithms, from counts that anybody can add up.

An e-value is a non-negative number whose mean is at most 1 while the hypothesis holds, whatever happens meanwhile; so by
Ville's inequality it ever reaches 1/α with probability at most α, and the one who looks may look after each request.
Every function takes numbers or numpy arrays (simulations give arrays of runs and looks) and returns the same shape.

ρ is the canary's share that was in force when a request was routed. It is known exactly, so under equal rates the arm of an
event is a coin of probability ρ, whatever the rate does over the day and however the share moves.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Numbers = Any
"""A number, or a numpy array of them."""

Ratios = tuple[tuple[float, float], ...]
WORSE: Ratios = ((1.15, 0.05), (1.4, 0.15), (1.8, 0.28), (2.3, 0.24), (4.0, 0.12), (10.0, 0.12), (30.0, 0.04))
"""Rate ratios, canary to stable, that the search for harm bets on, each with its part of the money."""
NOT_WORSE: Ratios = ((1.0, 0.55), (0.85, 0.15), (0.7, 0.1), (0.5, 0.1), (0.25, 0.05), (0.05, 0.05))
"""Rate ratios that the search for harmlessness bets on."""
STAKES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Parts of what may be staked at most on one score."""
_SURELY = 1e-9


def log_labels(steps: Iterable[tuple[float, Numbers, Numbers]], ratios: Ratios = WORSE, null: float = 1.0) -> Numbers:
    """ln E of the event-label test: are events of the canary more (or, with `ratios` below `null`, less) frequent than `null` times stable's?

    E = Σ_r w_r Π_events (r/null)^c / (ρ'·r/null + 1 − ρ') with c = 1 for an event of the canary and ρ' = null·ρ / (null·ρ + 1 − ρ), the
    chance that an event is the canary's when its rate is `null` times stable's. The product needs, for each
    share, the number of events and how many of them were the canary's. H0 is a ratio of at most `null` when all ratios lie above
    it, at least `null` when all lie below. (Lindon & Malek 2022, with a share that may move; Howard, Ramdas et al. 2021 for the mixture.)

    Args:
        steps: (share, events, those of the canary) for each share that was in force.

    >>> round(log_labels([(0.5, 10, 10)]), 2)
    4.61
    """
    sums: list[Numbers] = [0.0] * len(ratios)
    for share, events, canary in steps:
        under = null * share / (null * share + 1 - share)
        for index, (ratio, _) in enumerate(ratios):
            relative = ratio / null
            sums[index] = sums[index] + canary * math.log(relative) - events * math.log(under * relative + 1 - under)
    return log_mean([math.log(weight) + math.log(len(ratios)) + part for (_, weight), part in zip(ratios, sums, strict=True)])


def log_pairs(only_shadow: Numbers, only_stable: Numbers, ratios: Ratios = WORSE) -> Numbers:
    """ln E of McNemar's test, sequentially: among requests that one version failed and the other didn't, is it the shadow more often?

    Each discordant pair is an event with share ½. (McNemar 1947; the mixture as in `log_labels`.)
    """
    return log_labels([(0.5, only_shadow + only_stable, only_shadow)], ratios)


def log_rate(bad: Numbers, good: Numbers, null: float, alternatives: Sequence[float]) -> Numbers:
    """ln E of a Bernoulli rate against `null`: E = Σ_p w_p (p/null)^bad ((1−p)/(1−null))^good.

    H0 is a rate of at most `null` when all alternatives lie above it, at least `null` when all lie below (Wald 1945, as a mixture). Each
    trial's chance, given the past, must be on H0's side.
    """
    return log_mean([bad * math.log(p / null) + good * math.log((1 - p) / (1 - null)) for p in (min(max(p, _SURELY), 1 - _SURELY) for p in alternatives)])


def log_sample_ratio(steps: Iterable[tuple[float, Numbers, Numbers]], concentration: float = 1000.0) -> Numbers:
    """ln E of the sample ratio: did the versions get the share of the units that they were given?

    For each share the Dirichlet-multinomial mixture with c = `concentration`:
    ln Γ(c) − ln Γ(c+n) + Σ_i [ln Γ(cρ_i + x_i) − ln Γ(cρ_i) − x_i ln ρ_i] over the two arms (Lindon & Malek 2022).

    Args:
        steps: (share, units, those of the canary).
    """
    total: Numbers = 0.0
    for share, units, canary in steps:
        if not 0 < share < 1:
            continue
        total = total + math.lgamma(concentration) - _lgamma(concentration + units)
        for part, count in ((share, canary), (1 - share, units - canary)):
            total = total + _lgamma(concentration * part + count) - math.lgamma(concentration * part) - count * math.log(part)
    return total


class Bets:
    """A bet on the mean of a capped score, for KPIs with heavy tails: constant memory, any shape of runs.

    H0: the canary's mean of min(y, cap) is at most `times` stable's (`higher`: the bet is that it is higher), or at least that. The score of
    a request is z = min(y, cap) · (c/ρ − times·(1−c)/(1−ρ)), whose mean is the difference; E = Σ_λ w_λ Π (1 ± λ z), each λ a part of the
    largest that keeps every factor positive (Waudby-Smith & Ramdas 2024, inverse-probability weighted). y must not be negative.
    """

    def __init__(self, cap: float, *, higher: bool, times: float = 1.0, shape: tuple[int, ...] = ()) -> None:
        self._cap, self._higher, self._times = cap, higher, times
        self._sums = np.zeros((*shape, len(STAKES)))
        self._stakes = np.array(STAKES)

    def add(self, value: Numbers, canary: Numbers, share: Numbers) -> None:
        """One request of each run: its value, whether the canary answered, and the share in force (strictly between 0 and 1)."""
        capped = np.minimum(value, self._cap)
        score = np.where(canary, capped / share, -self._times * capped / (1 - share))
        bet = score * (1 - share) / (self._times * self._cap) if self._higher else -score * share / self._cap
        self._sums += np.log1p(np.multiply.outer(bet, self._stakes))

    @property
    def log_e(self) -> Numbers:
        """ln E now."""
        return log_mean(np.moveaxis(self._sums, -1, 0))


def rate_bounds(bad: int, total: int, alpha: float) -> tuple[float, float]:
    """Where the rate lies behind `bad` of `total`, each side wrong with probability at most α: total·KL(bad/total ‖ p) <= ln 1/α (Chernoff)."""
    if total == 0:
        return 0.0, 1.0
    seen, limit = bad / total, math.log(1 / alpha) / total

    def side(inner: float, outer: float) -> float:
        for _ in range(60):
            middle = (inner + outer) / 2
            inner, outer = (middle, outer) if _divergence(seen, middle) <= limit else (inner, middle)
        return outer

    return side(seen, 0.0), side(seen, 1.0)


def log_mean(logs: Numbers | Sequence[Numbers]) -> Numbers:
    """ln of the mean of numbers that are given as logarithms. A mean of e-values is an e-value."""
    stacked = np.asarray(logs)
    top = stacked.max(axis=0)
    safe = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        found = safe + np.log(np.exp(stacked - safe).mean(axis=0))
    return float(found) if found.ndim == 0 else found


def _divergence(p: float, q: float) -> float:
    if (p > 0 and q <= 0) or (p < 1 and q >= 1):
        return math.inf
    return (p * math.log(p / q) if p > 0 else 0.0) + ((1 - p) * math.log((1 - p) / (1 - q)) if p < 1 else 0.0)


def _lgamma(values: Numbers) -> Numbers:
    if np.ndim(values) == 0:
        return math.lgamma(values)
    return np.fromiter((math.lgamma(value) for value in np.ravel(values)), float, np.size(values)).reshape(np.shape(values))
