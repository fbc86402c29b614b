"""The two promises, by simulation with the controller's own kernels: a good version is rarely rolled back, a bad one is found soon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from davy.release import simulate

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

RUNS = 1_000


@pytest.mark.parametrize("case", [
    pytest.param(lambda: simulate.errors(0.01, 0.01, 0.1, runs=RUNS, requests=20_000, seed=1), id="constant share of a tenth"),
    pytest.param(lambda: simulate.errors(0.01, 0.01, 0.5, runs=RUNS, requests=20_000, seed=2), id="constant share of a half"),
    pytest.param(lambda: simulate.ramp(0.01, 1.0, runs=RUNS, requests=20_000, seed=3), id="ramp with a daily cycle"),
    pytest.param(lambda: simulate.sticky(1.0, 0.5, runs=RUNS, requests=10_000, seed=4), id="sticky users"),
    pytest.param(lambda: simulate.latency(0.5, runs=RUNS, requests=3_000, seed=5), id="latency"),
    pytest.param(lambda: simulate.latency(0.5, runs=RUNS, requests=3_000, seed=6, load=0.5), id="latency under autocorrelated load"),
    pytest.param(lambda: simulate.shadow(0.01, 0.01, runs=RUNS, requests=5_000, seed=7), id="shadow pairs"),
    pytest.param(lambda: simulate.sample_ratio(0.1, 0.1, runs=RUNS, requests=10_000, seed=8), id="sample ratio"),
    pytest.param(lambda: simulate.revenue(1.0, 0.1, runs=RUNS, requests=3_000, seed=9), id="revenue with a heavy tail"),
])
def test_a_good_version_is_rolled_back_at_most_as_often_as_promised(case: Callable[[], NDArray[np.float64]]) -> None:
    assert np.isfinite(case()).mean() <= simulate.ALPHA


@pytest.mark.parametrize(("case", "most"), [
    pytest.param(lambda: simulate.errors(0.01, 0.02, 0.1, runs=500, requests=60_000, seed=11), 10_000, id="errors 1 to 2 %, a tenth"),
    pytest.param(lambda: simulate.errors(0.01, 0.02, 0.5, runs=500, requests=20_000, seed=12), 4_000, id="errors 1 to 2 %, a half"),
    pytest.param(lambda: simulate.latency(0.5, runs=500, requests=8_000, seed=13, tail=1.5), 3_000, id="slowest hundredth half as slow again"),
    pytest.param(lambda: simulate.latency(0.5, runs=500, requests=1_000, seed=14, shift=1.5), 400, id="all half as slow again"),
    pytest.param(lambda: simulate.shadow(0.01, 0.02, runs=500, requests=8_000, seed=15), 1_900, id="shadow, errors 1 to 2 %"),
])
def test_a_bad_version_is_found_soon(case: Callable[[], NDArray[np.float64]], most: int) -> None:
    found = case()
    assert np.isfinite(found).mean() >= 0.95
    assert np.median(found) <= most


def test_a_bad_version_is_promoted_at_most_as_often_as_promised_and_a_good_one_soon() -> None:
    assert np.isfinite(simulate.errors(0.01, 0.02, 0.5, runs=RUNS, requests=10_000, seed=21, null=2.0)).mean() <= 0.05
    assert np.median(simulate.errors(0.01, 0.01, 0.5, runs=500, requests=20_000, seed=22, null=2.0)) <= 6_000


def test_counting_each_request_of_a_user_would_break_the_promise() -> None:
    """The reason for counting a user's first bad event only; a simulation that can't fail would show nothing."""
    assert np.isfinite(simulate.sticky(1.0, 0.5, runs=RUNS, requests=10_000, seed=4, by_key=False)).mean() > 2 * simulate.ALPHA


def test_a_split_that_is_off_is_noticed_and_a_lower_revenue_found() -> None:
    assert np.isfinite(simulate.sample_ratio(0.5, 0.48, runs=200, requests=20_000, seed=31)).mean() > 0.9
    assert np.isfinite(simulate.revenue(0.5, 0.5, runs=200, requests=4_000, seed=32, sigma=0.7, buyers=0.5)).mean() > 0.9


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_fixed_horizon_that_figures_are_compared_with_has_its_power(share: float) -> None:
    random = np.random.default_rng(41)
    requests, canary, stable = simulate.fixed_horizon(0.01, 0.02, share), 0.02, 0.01
    many = random.binomial(requests, share, 4_000)
    ours, theirs = random.binomial(many, canary) / many, random.binomial(requests - many, stable) / (requests - many)
    pooled = (ours * many + theirs * (requests - many)) / requests
    z = (ours - theirs) / np.sqrt(pooled * (1 - pooled) * (1 / many + 1 / (requests - many)))
    assert abs((z > 1.645).mean() - 0.8) < 0.05
