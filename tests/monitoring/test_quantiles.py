from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from davy.monitoring.packed import pack, unpack
from davy.monitoring.quantiles import ACCURACY, Quantiles

if TYPE_CHECKING:
    from collections.abc import Sequence

NUMBERS = some.lists(some.floats(-1e12, 1e12, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-6), min_size=1, max_size=200)


@given(NUMBERS, NUMBERS, some.floats(0, 1))
def test_a_quantile_is_within_one_per_cent_of_a_value_however_it_was_merged(one: Sequence[float], other: Sequence[float], q: float) -> None:
    both = Quantiles.of(np.array(one)) + Quantiles.of(np.array(other))
    whole = Quantiles.of(np.array([*other, *one]))
    ordered = sorted([*one, *other])
    exact = ordered[min(int(q * (len(ordered) - 1) + 0.5), len(ordered) - 1)]
    assert both.quantile(q) == whole.quantile(q)
    assert both.quantile(q) == pytest.approx(exact, rel=ACCURACY * 1.0001)
    assert both.count == len(ordered)
    assert both.mean == pytest.approx(sum(ordered) / len(ordered), abs=1e-3, rel=1e-6)


def test_nothing_and_what_is_no_number() -> None:
    assert Quantiles().quantile(0.5) is None
    assert Quantiles().mean is None
    found = Quantiles.of(np.array([np.nan, np.inf, 3.0]))
    assert found.count == 1


def test_above_counts_to_the_bucket() -> None:
    found = Quantiles.of(np.arange(1, 1001))
    assert found.above(500) == pytest.approx(500, abs=10)
    assert found.above(1e9) == 0
    assert found.above(0) == 1000


def test_it_is_stored_in_little() -> None:
    found = Quantiles.of(np.random.default_rng(1).lognormal(7, 1, 100_000))
    data = pack(found)
    assert len(data) < 3000
    assert unpack(data, Quantiles).quantile(0.99) == found.quantile(0.99)
