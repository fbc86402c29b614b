"""A curve of many points is drawn from few without losing its ends, its peaks or its holes."""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curves_kit import put_points
from databases import open_at
from davy.core.clock import SystemClock
from davy.errors import InvalidInput
from davy.tracking import runs
from davy.tracking.history import FEWEST, LONG, metric_history, metric_keys, smoothed_history
from davy.tracking.points import Points, add_points

if TYPE_CHECKING:
    from collections.abc import Iterator

    from davy.store.database import Database
    from davy.tracking.history import History


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    opened = open_at(tmp_path_factory.mktemp("history") / "davy.db")
    yield opened
    opened.close()


def _log(database: Database, values: list[float]) -> str:
    clock = SystemClock()
    with database.begin() as connection:
        run_id = runs.create_run(connection, clock=clock, user="ada", experiment_id=0, name="r")
        put_points(connection, run_id, [("loss", value, step, step) for step, value in enumerate(values)])
    return run_id


def _history(database: Database, run_id: str, points: int | None = None, first: int | None = None, last: int | None = None) -> History:
    with database.read() as connection:
        return metric_history(connection, run_id, "loss", points=points, first_step=first, last_step=last)


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(width=32).map(lambda value: value + 0.0) | st.just(math.nan), min_size=1, max_size=120), points=st.integers(FEWEST, 60))
def test_decimation_keeps_ends_peaks_and_order(database: Database, values: list[float], points: int) -> None:
    run_id = _log(database, values)
    whole, few = _history(database, run_id), _history(database, run_id, points)
    assert str(whole.values) == str(values)
    assert len(few.steps) == len(values) if len(values) <= points else len(few.steps) <= points
    assert few.total == len(values)
    assert few.decimated == (len(values) > len(few.steps))
    pairs = list(zip(few.steps, few.times, map(str, few.values), strict=True))
    stored = list(zip(whole.steps, whole.times, map(str, whole.values), strict=True))
    assert pairs == [pair for pair in stored if pair in set(pairs)]
    assert (pairs[0], pairs[-1]) == (stored[0], stored[-1])
    numbers = [value for value in values if not math.isnan(value)]
    shown = [value for value in few.values if not math.isnan(value)]
    if numbers:
        assert (min(shown), max(shown)) == (min(numbers), max(numbers))
    assert any(map(math.isnan, values)) == any(map(math.isnan, few.values))


def test_each_slice_keeps_its_own_peak(database: Database) -> None:
    values = [float(step in (150, 450, 750)) - float(step in (250, 550)) for step in range(1000)]
    few = _history(database, _log(database, values), 22)
    assert {150, 250, 450, 550, 750} <= set(few.steps)


def test_a_very_long_curve_keeps_the_peak_of_each_slice_too(database: Database) -> None:
    run_id = _log(database, [])
    count, slices = LONG + 200_000, 16
    values = array("d", bytes(8 * count))
    peaks = [count * (2 * index + 1) // (2 * slices) for index in range(slices)]
    for number, step in enumerate(peaks):
        values[step] = (-1.0) ** number * (number + 1)
    values[700_000] = math.nan
    steps = array("q", range(count))
    with database.begin() as connection:
        for part in (slice(0, 400_000), slice(800_000, count), slice(400_000, 800_000)):
            add_points(connection, run_id, {"loss": Points(steps[part], steps[part], values[part])})
    for first, total in ((None, count), (10, count - 10)):
        few = _history(database, run_id, 3 * slices + 2, first)
        assert {first or 0, *peaks, 700_000, count - 1} <= set(few.steps)
        assert (few.total, few.steps) == (total, sorted(few.steps))
        assert len(few.steps) <= 3 * slices + 2
        assert all(str(values[step]) == str(value) for step, value in zip(few.steps, few.values, strict=True))


def test_a_range_of_steps(database: Database) -> None:
    run_id = _log(database, [float(step) for step in range(100)])
    found = _history(database, run_id, first=10, last=19)
    assert (found.steps, found.total) == (list(range(10, 20)), 10)
    assert _history(database, run_id, 5, 10, 89).steps[0] == 10
    with database.read() as connection:
        assert metric_keys(connection, run_id) == {"loss": 100}


def test_a_curve_that_is_not_there_is_empty(database: Database) -> None:
    assert _history(database, "0" * 32, 10).steps == []


def test_too_few_points_are_refused(database: Database) -> None:
    with pytest.raises(InvalidInput, match="at least"):
        _history(database, "0" * 32, FEWEST - 1)


@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf]), min_size=1, max_size=60), weight=st.sampled_from([0.0, 0.6, 0.99]),
       first=st.integers(0, 60), points=st.integers(FEWEST, 70))
def test_smoothing_counts_every_point_whatever_is_drawn(database: Database, values: list[float], weight: float, first: int, points: int) -> None:
    run_id = _log(database, values)
    with database.read() as connection:
        curve, found = smoothed_history(connection, run_id, "loss", weight=weight, points=points, first_step=first)
    assert str(curve) == str(_history(database, run_id, points, first))
    for step, average in zip(curve.steps, found, strict=True):
        before = [value for value in values[:step + 1] if math.isfinite(value)]
        weights = [weight ** (len(before) - 1 - at) for at in range(len(before))]
        wanted = math.fsum(share * value for share, value in zip(weights, before, strict=True)) / math.fsum(weights) if before else math.nan
        assert average == pytest.approx(wanted, rel=1e-9, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize(("weight", "points"), [(1.0, 100), (-0.1, 100), (math.nan, 100), (0.9, FEWEST - 1)])
def test_no_average_weighs_all_points_the_same(database: Database, weight: float, points: int) -> None:
    with database.read() as connection, pytest.raises(InvalidInput, match="weight"):
        smoothed_history(connection, "0" * 32, "loss", weight=weight, points=points)
