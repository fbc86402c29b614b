"""Our few distribution functions against golden values and, where it is installed, against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from davy.monitoring.distributions import (
    benjamini_yekutieli,
    bonferroni,
    chi2_isf,
    chi2_sf,
    gamma_p,
    gamma_q,
    normal_cdf,
    normal_quantile,
    poisson_sf,
    upper_bound,
)


@pytest.mark.parametrize(("x", "degrees", "p"), [
    (3.841458820694124, 1, 0.05), (16.918977604620448, 9, 0.05), (21.665994333461924, 9, 0.01), (67.50480654954122, 50, 0.05), (0.0, 4, 1.0),
    (1000.0, 9, 1.5787505555701868e-209)])
def test_chi_square_tails(x: float, degrees: int, p: float) -> None:
    assert chi2_sf(x, degrees) == pytest.approx(p, rel=1e-10)
    if 0 < p < 1 and p > 1e-100:
        assert chi2_isf(p, degrees) == pytest.approx(x, rel=1e-10)


def test_the_incomplete_gamma_function_over_its_whole_range() -> None:
    special = pytest.importorskip("scipy.special")
    for a in (0.5, 1.0, 4.5, 25.5, 250.0, 2500.0):
        for x in (1e-12, 0.01, a / 3, a * 0.99, a, a + 1, a * 1.01 + 2, 3 * a + 10):
            assert gamma_q(a, x) == pytest.approx(special.gammaincc(a, x), rel=2e-11, abs=1e-290)
            assert gamma_p(a, x) == pytest.approx(special.gammainc(a, x), rel=2e-11, abs=1e-290)


def test_the_ends_of_the_incomplete_gamma_function() -> None:
    assert gamma_q(1, 0) == 1.0
    assert gamma_q(2, math.inf) == 0.0
    assert gamma_q(1, 2.5) == pytest.approx(math.exp(-2.5))
    for wrong in ((0.0, 1.0), (1.0, -1.0), (1.0, math.nan)):
        with pytest.raises(ValueError, match="not defined"):
            gamma_q(*wrong)


def test_poisson_tails_are_sums() -> None:
    for mean in (0.01, 1.0, 7.5):
        for count in (0, 1, 3, 12):
            below = sum(math.exp(-mean) * mean**k / math.factorial(k) for k in range(count))
            assert poisson_sf(count, mean) == pytest.approx(1 - below, rel=1e-6, abs=1e-12)


def test_the_normal_distribution_and_its_inverse() -> None:
    assert normal_cdf(np.array([-math.inf, 0.0, 1.959963984540054, math.inf])) == pytest.approx([0, 0.5, 0.975, 1])
    p = np.array([1e-6, 0.3, 0.999])
    assert normal_cdf(normal_quantile(p)) == pytest.approx(p, rel=1e-8)
    assert normal_quantile(np.array([0.0, 1.0])).tolist() == [-math.inf, math.inf]


def test_the_bound_of_a_share_is_reached_by_what_would_just_give_it() -> None:
    share, rows, reach = np.array([0.0, 0.02, 0.5, 1.0]), 1000.0, 5.0
    bound = upper_bound(share, rows, reach)
    assert bound[0] == pytest.approx(1 - math.exp(-reach / rows), rel=1e-9)
    for p, u in zip(share[1:3], bound[1:3], strict=True):
        assert rows * (p * math.log(p / u) + (1 - p) * math.log((1 - p) / (1 - u))) == pytest.approx(reach, rel=1e-6)
    assert bound[3] == 1.0


def test_corrections_for_many_tests() -> None:
    p = [0.001, 0.2, 0.03, 0.04]
    harmonic = 1 + 1 / 2 + 1 / 3 + 1 / 4
    assert bonferroni(p) == pytest.approx([0.004, 0.8, 0.12, 0.16])
    assert benjamini_yekutieli(p) == pytest.approx([0.004 * harmonic, 0.2 * harmonic, 0.04 * 4 / 3 * harmonic, 0.04 * 4 / 3 * harmonic])
    assert benjamini_yekutieli([]) == []
    statistics = pytest.importorskip("scipy.stats")
    assert benjamini_yekutieli(p) == pytest.approx(statistics.false_discovery_control(p, method="by"))
