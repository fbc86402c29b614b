"""The kernels against golden values, ten obvious lines, and the definition of an e-value: its mean under the hypothesis is at most 1."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from davy.release.kernels import NOT_WORSE, WORSE, Bets, log_labels, log_mean, log_pairs, log_rate, log_sample_ratio, rate_bounds


def plainly(events: list[tuple[bool, float]], ratios: tuple[tuple[float, float], ...], null: float = 1.0) -> float:
    """The event-label test as it is defined, one event after another."""
    total = 0.0
    for ratio, weight in ratios:
        product = weight
        for canary, share in events:
            odds = null * share / (1 - share)
            under, other = odds / (1 + odds), share * ratio / (share * ratio + 1 - share)
            product *= other / under if canary else (1 - other) / (1 - under)
        total += product
    return math.log(total)


@pytest.mark.parametrize(("ratios", "null"), [(WORSE, 1.0), (NOT_WORSE, 2.0)])
def test_counts_give_what_the_definition_gives(ratios: tuple[tuple[float, float], ...], null: float) -> None:
    random = np.random.default_rng(1)
    events = [(bool(random.random() < 0.4), float(random.choice([0.05, 0.25, 0.5]))) for _ in range(60)]
    steps = [(share, sum(s == share for _, s in events), sum(c for c, s in events if s == share)) for share in (0.05, 0.25, 0.5)]
    assert log_labels(steps, ratios, null) == pytest.approx(plainly(events, ratios, null), abs=1e-9)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5])
@pytest.mark.parametrize(("ratios", "null"), [(WORSE, 1.0), (NOT_WORSE, 1.5)])
def test_the_mean_over_all_outcomes_is_one_where_the_hypothesis_just_holds(share: float, ratios: tuple[tuple[float, float], ...], null: float) -> None:
    under = null * share / (null * share + 1 - share)
    mean = sum(math.prod(under if canary else 1 - under for canary in labels) * math.exp(log_labels([(share, 8, sum(labels))], ratios, null))
               for labels in itertools.product((0, 1), repeat=8))
    assert mean == pytest.approx(1)


def test_the_rates_mean_is_one_too() -> None:
    mean = sum(math.comb(9, bad) * 0.2**bad * 0.8 ** (9 - bad) * math.exp(log_rate(bad, 9 - bad, 0.2, [0.1, 0.05])) for bad in range(10))
    assert mean == pytest.approx(1)


def test_arrays_give_what_numbers_give() -> None:
    events, canary = np.arange(20), np.arange(20) // 3
    found = log_labels([(0.1, events, canary)])
    assert [log_labels([(0.1, int(n), int(c))]) for n, c in zip(events, canary, strict=True)] == pytest.approx(list(found))
    units = log_sample_ratio([(0.1, events, canary)])
    assert [log_sample_ratio([(0.1, int(n), int(c))]) for n, c in zip(events, canary, strict=True)] == pytest.approx(list(units))


def test_golden_values() -> None:
    assert log_pairs(0, 0) == pytest.approx(0)
    assert log_pairs(12, 3) == log_labels([(0.5, 15, 12)])
    # scipy 1.17: betaln(c·ρ + x, c·(1−ρ) + n − x) − betaln(c·ρ, c·(1−ρ)) − x ln ρ − (n−x) ln(1−ρ)
    assert log_sample_ratio([(0.5, 100, 70)]) == pytest.approx(0.6804172712063945, rel=1e-9)
    assert log_sample_ratio([(0.1, 300, 40)]) == pytest.approx(0.2537895568273463, rel=1e-9)
    assert log_mean([math.log(1), math.log(3), -math.inf]) == pytest.approx(math.log(4 / 3))
    assert log_mean([-2000.0, -2000.0]) == pytest.approx(-2000)
    assert rate_bounds(0, 0, 0.05) == (0.0, 1.0)
    low, high = rate_bounds(0, 300, 0.05)
    assert low == pytest.approx(0, abs=1e-12)
    assert high == pytest.approx(1 - 0.05 ** (1 / 300), rel=1e-6)  # exact where nothing was seen
    low, high = rate_bounds(30, 100, 0.05)
    assert 0.18 < low < 0.3 < high < 0.43


def test_a_share_of_everything_says_nothing_and_huge_counts_do_not_overflow() -> None:
    assert log_sample_ratio([(1.0, 50, 50)]) == 0
    assert math.isfinite(log_labels([(0.5, 10**7, 6 * 10**6)]))
    assert log_labels([(0.5, 10**7, 6 * 10**6)]) > 10**4


@pytest.mark.parametrize(("higher", "times"), [(True, 1.0), (False, 1.0), (True, 0.8), (False, 1.2)])
def test_bets_stay_positive_at_the_worst_score_and_are_fair(higher: bool, times: float) -> None:
    worst = Bets(5.0, higher=higher, times=times)
    for _ in range(2_000):
        worst.add(9.0, not higher, 0.1)
    assert math.isfinite(worst.log_e)
    random = np.random.default_rng(2)
    fair = Bets(5.0, higher=higher, times=times, shape=(4_000,))
    for _ in range(40):
        canary = random.random(4_000) < 0.3
        value = random.exponential(1.0, 4_000).clip(max=5.0) * np.where(canary, times, 1.0)
        fair.add(value, canary, 0.3)
    assert np.exp(fair.log_e).mean() < 1.1
