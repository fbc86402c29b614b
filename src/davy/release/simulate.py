"""Traffic made up from a seed, judged by the same kernels as real traffic: what the promised error budgets and the speed come to.

Time is counted in requests, and every event is looked at. A case returns, for each run, after how many requests its evidence
first reached the limit (infinity: never).
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from davy.release.evidence import QUANTILES
from davy.release.kernels import NOT_WORSE, WORSE, Bets, Ratios, log_labels, log_mean, log_pairs, log_sample_ratio

if TYPE_CHECKING:
    from collections.abc import Callable

ALPHA = 0.05
DAY = 5_000
RAMP = (0.01, 0.05, 0.1, 0.25, 0.5)
MEDIAN_US, SIGMA, SLACK_US = 10_000.0, 0.5, 1_000.0
_CHUNK = 100
Floats = NDArray[np.float64]


def errors(stable: float, canary: float, share: float, *, runs: int, requests: int, seed: int, null: float = 1.0) -> Floats:
    """Independent requests with constant rates and a constant share. With `null` above 1 the search is for harmlessness."""

    def chunk(draws: np.random.Generator, count: int) -> Floats:
        labels = draws.random((count, requests)) < share
        bad = draws.random((count, requests)) < np.where(labels, canary, stable)
        return first_hit(bad, labels, np.full(requests, share), NOT_WORSE if null > 1 else WORSE, null)

    return _in_chunks(chunk, runs, seed)


def ramp(stable: float, ratio: float, *, runs: int, requests: int, seed: int) -> Floats:
    """The share rises in five steps while the rate of errors swings by four fifths over each day."""
    shares = np.repeat(RAMP, math.ceil(requests / len(RAMP)))[:requests]
    rates = stable * (1 + 0.8 * np.sin(2 * np.pi * np.arange(requests) / DAY))

    def chunk(draws: np.random.Generator, count: int) -> Floats:
        labels = draws.random((count, requests)) < shares
        bad = draws.random((count, requests)) < rates * np.where(labels, ratio, 1.0)
        return first_hit(bad, labels, shares)

    return _in_chunks(chunk, runs, seed)


def sticky(ratio: float, share: float, *, runs: int, requests: int, seed: int, by_key: bool = True) -> Floats:
    """Users come twenty times each and keep their arm; one in twenty has errors, a fifth of the time. Only the first counts, unless told otherwise."""

    def chunk(draws: np.random.Generator, count: int) -> Floats:
        users = draws.integers(0, requests // 20, (count, requests))
        arms = draws.random((count, requests // 20)) < share
        prone = draws.random((count, requests // 20)) < 0.05
        labels = np.take_along_axis(arms, users, 1)
        bad = np.take_along_axis(prone, users, 1) & (draws.random((count, requests)) < 0.2 * np.where(labels, ratio, 1.0))
        return first_hit(_first_of_each(bad, users) if by_key else bad, labels, np.full(requests, share))

    return _in_chunks(chunk, runs, seed)


def latency(share: float, *, runs: int, requests: int, seed: int, tail: float = 1.0, shift: float = 1.0, load: float = 0.0) -> Floats:
    """Log-normal latencies, median 10 ms, p99 32 ms, against thresholds from stable's past.

    Args:
        tail: factor of the canary's slowest hundredth; `shift` of all of its latencies.
        load: standard deviation (of the logarithm) of a load that both arms share and that lasts about fifty requests.
    """
    past = np.exp(np.sqrt(SIGMA**2 + load**2) * np.random.default_rng(seed + 1).standard_normal(20_000)) * MEDIAN_US
    limits = np.quantile(past, QUANTILES)
    p99 = MEDIAN_US * math.exp(SIGMA * NormalDist().inv_cdf(0.99))

    def chunk(draws: np.random.Generator, count: int) -> Floats:
        labels = draws.random((count, requests)) < share
        taken = MEDIAN_US * np.exp(SIGMA * draws.standard_normal((count, requests)))
        taken = np.where(labels & (taken > p99), taken * tail, taken) * np.where(labels, shift, 1.0)
        if load:
            taken = taken * np.exp(load * _autocorrelated(draws, count, requests))
        over = (taken - np.where(labels, SLACK_US, 0.0))[:, :, None] > limits
        shares = np.full(requests, share)
        found = [_log_labels_at_requests(over[:, :, index], labels, shares) for index in range(len(QUANTILES))]
        return _first(log_mean(found), np.broadcast_to(np.arange(1, requests + 1), (count, requests)))

    return _in_chunks(chunk, runs, seed, size=20)


def shadow(stable: float, candidate: float, *, runs: int, requests: int, seed: int) -> Floats:
    """Both versions see each request."""

    def chunk(draws: np.random.Generator, count: int) -> Floats:
        one, other = draws.random((count, requests)) < stable, draws.random((count, requests)) < candidate
        log_e = log_pairs(np.cumsum(other & ~one, 1), np.cumsum(one & ~other, 1))
        return _first(log_e, np.broadcast_to(np.arange(1, requests + 1), (count, requests)))

    return _in_chunks(chunk, runs, seed)


def sample_ratio(configured: float, actual: float, *, runs: int, requests: int, seed: int, every: int = 50) -> Floats:
    """Units that get another share than they should."""

    def chunk(draws: np.random.Generator, count: int) -> Floats:
        canary = np.cumsum(draws.random((count, requests)) < actual, 1)[:, every - 1 :: every]
        units = np.broadcast_to(np.arange(every, requests + 1, every), canary.shape)
        return _first(log_sample_ratio([(configured, units, canary)]), units)

    return _in_chunks(chunk, runs, seed)


def revenue(ratio: float, share: float, *, runs: int, requests: int, seed: int, sigma: float = 1.6, buyers: float = 0.1) -> Floats:
    """A zero-inflated log-normal value per request; the search is for a lower mean of the canary's, capped."""
    draws = np.random.default_rng(seed)
    bets, found = Bets(20.0, higher=False, shape=(runs,)), np.full(runs, np.inf)
    for request in range(1, requests + 1):
        canary = draws.random(runs) < share
        value = np.where(draws.random(runs) < buyers, np.exp(sigma * draws.standard_normal(runs)), 0.0) * np.where(canary, ratio, 1.0)
        bets.add(value, canary, share)
        found = np.where((bets.log_e >= math.log(1 / ALPHA)) & np.isinf(found), request, found)
    return found


def fixed_horizon(stable: float, canary: float, share: float, *, power: float = 0.8) -> int:
    """Requests that a one-sided z-test of two proportions needs, planned with the true effect and looked at once."""
    normal = NormalDist()
    mean = share * canary + (1 - share) * stable
    under = normal.inv_cdf(1 - ALPHA) * math.sqrt(mean * (1 - mean) * (1 / share + 1 / (1 - share)))
    beyond = normal.inv_cdf(power) * math.sqrt(canary * (1 - canary) / share + stable * (1 - stable) / (1 - share))
    return math.ceil(((under + beyond) / (canary - stable)) ** 2)


def first_hit(bad: NDArray[np.bool_], canary: NDArray[np.bool_], shares: Floats, ratios: Ratios = WORSE, null: float = 1.0) -> Floats:
    """After how many requests the label test of these events first reaches the limit; the arrays are runs × requests."""
    rows, columns = np.nonzero(bad)
    counts = bad.sum(1)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (len(bad), max(1, int(counts.max(initial=0))))
    at, valid, labels, share = np.full(shape, np.inf), np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape)
    at[rows, places], valid[rows, places] = columns + 1, True
    labels[rows, places], share[rows, places] = canary[rows, columns], shares[columns]
    steps = [(float(one), np.cumsum(valid & (share == one), 1), np.cumsum(labels & (share == one), 1)) for one in np.unique(shares)]
    return _first(log_labels(steps, ratios, null), at)


def _log_labels_at_requests(bad: NDArray[np.bool_], canary: NDArray[np.bool_], shares: Floats) -> Floats:
    return np.asarray(log_labels([(float(shares[0]), np.cumsum(bad, 1), np.cumsum(bad & canary, 1))]))


def _first(log_e: Floats, at: NDArray[Any]) -> Floats:
    reached = log_e >= math.log(1 / ALPHA)
    where = reached.argmax(1)
    return np.where(reached.any(1), np.take_along_axis(at, where[:, None], 1)[:, 0], np.inf)


def _first_of_each(bad: NDArray[np.bool_], users: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Only the first bad event of each user in each run."""
    rows, columns = np.nonzero(bad)
    _, first = np.unique(rows * (users.max() + 1) + users[rows, columns], return_index=True)
    found = np.zeros_like(bad)
    found[rows[first], columns[first]] = True
    return found


def _autocorrelated(draws: np.random.Generator, count: int, requests: int) -> Floats:
    """A load of standard deviation 1 that forgets over about fifty requests."""
    found, keep = np.empty((count, requests)), math.exp(-1 / 50)
    now = draws.standard_normal(count)
    steps = draws.standard_normal((requests, count)) * math.sqrt(1 - keep**2)
    for index in range(requests):
        now = keep * now + steps[index]
        found[:, index] = now
    return found


def _in_chunks(chunk: Callable[[np.random.Generator, int], Floats], runs: int, seed: int, size: int = _CHUNK) -> Floats:
    draws = np.random.default_rng(seed)
    return np.concatenate([chunk(draws, min(size, runs - begin)) for begin in range(0, runs, size)])
