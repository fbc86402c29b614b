"""However points come, the store holds each once: beside it stands a set of tuples, sorted when it is asked."""

from __future__ import annotations

import base64
import math
import struct
import threading
from array import array
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from databases import ON_POSTGRES, open_at
from davy.core.clock import SystemClock
from davy.errors import InvalidInput
from davy.schema.tables import latest_metrics, metric_chunks
from davy.tracking import runs
from davy.tracking.history import FEWEST, histories, history_page, metric_history, metric_keys, sampled_histories
from davy.tracking.points import LARGE, SMALL, Points, add_points, pack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from davy.store.database import Database

Point = tuple[int, int, float]
Plain = tuple[int, int, float, bool]

LARGEST = 2**63 - 1
FEW = SMALL["postgresql" if ON_POSTGRES else "sqlite"]
STEPS = st.integers(-2, 3) | st.sampled_from([-LARGEST - 1, LARGEST])
TIMES = st.integers(0, 3) | st.just(2**53)
VALUES = st.sampled_from([0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan]) | st.floats(width=16)
RAMP = st.builds(lambda start, count, time, every: [(start + index, time + index * every, index % 7 - 3.5) for index in range(count)],
                 st.integers(-100, 300), st.integers(1, FEW + 20), st.integers(0, 500), st.integers(0, 2))
BATCH = st.dictionaries(st.sampled_from(["loss", "auc", "f1 score"]), st.lists(st.tuples(STEPS, TIMES, VALUES), max_size=12) | RAMP, min_size=1)


@pytest.fixture(scope="module")
def writers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Database]]:
    """Two that have the same database open, as two processes have."""
    path = tmp_path_factory.mktemp("points") / "davy.db"
    opened = [open_at(path), open_at(path)]
    yield opened
    for database in opened:
        database.close()


def _run(database: Database) -> str:
    with database.begin() as connection:
        return runs.create_run(connection, clock=SystemClock(), user="ada", experiment_id=0, name="r")


def _points(found: Iterable[Point]) -> Points:
    points = Points(array("q"), array("q"), array("d"))
    for step, time, value in found:
        points.steps.append(step)
        points.times.append(time)
        points.values.append(value)
    return points


def _add(database: Database, run_id: str, batch: dict[str, list[Point]]) -> None:
    with database.begin() as connection:
        add_points(connection, run_id, {key: _points(points) for key, points in batch.items()})


def _plain(points: Points) -> list[Plain]:
    """Points as they can be compared and counted: NaN is 0 with a flag."""
    return [(step, time, 0.0 if math.isnan(value) else value + 0.0, math.isnan(value))
            for step, time, value in zip(points.steps, points.times, points.values, strict=True)]


def _by_time(points: Iterable[Plain]) -> list[Plain]:
    return sorted(points, key=lambda point: (point[1], point[0], *point[2:]))


def _walk(connection: sa.Connection, run_id: str, key: str, limit: int) -> list[Plain]:
    found: list[Plain] = []
    after = None
    while True:
        page = history_page(connection, run_id, key, limit=limit, after=after)
        found += _plain(page.points)
        after = page.next
        if after is None:
            return found
        assert len(page.points) == limit


def _bounds(connection: sa.Connection, run_id: str, key: str) -> Any:
    return connection.execute(sa.select(latest_metrics).where(latest_metrics.c.run_id == run_id, latest_metrics.c.key == key)).one()


@settings(max_examples=80, deadline=None)
@given(batches=st.lists(st.tuples(BATCH, st.integers(0, 1)), min_size=1, max_size=8), again=st.lists(st.integers(0, 7), max_size=4),
       pages=st.integers(1, 8), few=st.integers(1, 20), first=STEPS, last=STEPS)
def test_the_store_is_a_set_of_points(writers: list[Database], batches: list[tuple[dict[str, list[Point]], int]], again: list[int], pages: int, few: int,
                                      first: int, last: int) -> None:
    run_id = _run(writers[0])
    stored: dict[str, dict[Plain, None]] = {}
    for batch, writer in [*batches, *(batches[index % len(batches)] for index in again)]:
        _add(writers[writer], run_id, batch)
        for key, came in batch.items():
            for point in _plain(_points(came)):
                stored.setdefault(key, {}).setdefault(point)
    with writers[1].read() as connection:
        assert metric_keys(connection, run_id) == {key: len(points) for key, points in sorted(stored.items())}
        for key, points in stored.items():
            row, numbers = _bounds(connection, run_id, key), [value for _, _, value, missing in points if not missing]
            assert (row.step, row.timestamp, row.value, row.is_nan) == max(points)
            assert (row.lowest, row.highest) == (min(numbers, default=None), max(numbers, default=None))
            assert (row.last, row.last_is_nan) == list(points)[-1][2:]
            whole = metric_history(connection, run_id, key)
            assert whole.times == [time * 1000 for _, time, _, _ in sorted(points)]
            assert _plain(_points(zip(whole.steps, (time // 1000 for time in whole.times), whole.values, strict=True))) == sorted(points)
            part = metric_history(connection, run_id, key, first_step=first, last_step=last)
            inside = [step for step, *_ in sorted(points) if first <= step <= last]
            assert (part.steps, part.total) == (inside, len(inside))
            assert _walk(connection, run_id, key, max(1, len(points) // pages)) == _by_time(points)
            assert _plain(history_page(connection, run_id, key).points) == _by_time(points)
            _check_sample(connection, run_id, key, few, sorted(points))


def _check_sample(connection: sa.Connection, run_id: str, key: str, few: int, points: Sequence[Plain]) -> None:
    """A sample is part of the curve, in its order, with its ends; from `FEWEST` points on it has the lowest, the highest and a hole."""
    ((_, sample),) = sampled_histories(connection, [run_id], key, points=few)
    shown = _plain(sample)
    assert len(shown) <= few
    assert shown == [point for point in points if point in set(shown)]
    assert shown[-1] == points[-1]
    if few > 1:
        assert shown[0] == points[0]
    if few >= FEWEST:
        numbers, kept = ([value for _, _, value, missing in found if not missing] for found in (points, shown))
        assert (min(kept, default=None), max(kept, default=None)) == (min(numbers, default=None), max(numbers, default=None))
        assert any(point[3] for point in shown) == any(point[3] for point in points)


def _chunks(database: Database, run_id: str) -> list[int]:
    with database.read() as connection:
        return list(connection.scalars(sa.select(metric_chunks.c.count).where(metric_chunks.c.run_id == run_id).order_by(metric_chunks.c.number)))


@pytest.mark.parametrize("size", [1, 3, FEW - 1, FEW, FEW + 1, 1000, LARGE + 1])
def test_a_curve_has_few_chunks_however_it_came(writers: list[Database], size: int) -> None:
    run_id, count = _run(writers[0]), max(1000 // size, 1) * size
    with writers[0].begin() as connection:
        for start in range(0, count, size):
            add_points(connection, run_id, {"loss": _points((step, 5, 0.5) for step in range(start, start + size))})
    counts = _chunks(writers[0], run_id)
    assert sum(counts) == count
    assert len(counts) <= 2 * count / FEW + 1
    assert max(counts) <= LARGE
    with writers[0].read() as connection:
        assert metric_history(connection, run_id, "loss").steps == list(range(count))


def test_a_repeated_request_changes_nothing(writers: list[Database]) -> None:
    run_id = _run(writers[0])
    batches = [[(step, 5, float(step)) for step in range(start, start + FEW)] for start in range(0, 3 * FEW, FEW)]
    for batch in (*batches, *batches):
        _add(writers[0], run_id, {"loss": batch})
    assert _chunks(writers[0], run_id) == [FEW] * 3
    with writers[0].read() as connection:
        assert _bounds(connection, run_id, "loss").last == 3 * FEW - 1


def test_writers_at_once_lose_and_double_nothing(writers: list[Database]) -> None:
    run_id = _run(writers[0])

    def write(database: Database, own: str) -> None:
        for step in range(150):
            _add(database, run_id, {"loss": [(step, 7, 0.5), (step, 7, float(own == "a"))], own: [(step, 7, 1.0)]})

    threads = [threading.Thread(target=write, args=(database, own)) for database, own in zip(writers, "ab", strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with writers[0].read() as connection:
        assert metric_keys(connection, run_id) == {"a": 150, "b": 150, "loss": 450}
        assert metric_history(connection, run_id, "loss").values == [0.0, 0.5, 1.0] * 150


def test_every_nan_is_the_same_and_zero_has_no_sign(writers: list[Database]) -> None:
    run_id = _run(writers[0])
    odd = array("d", array("q", [0x7FF8000000000001, -1, 0x7FF0000000000001]).tobytes())
    for value in (*odd, math.nan, -math.nan):
        _add(writers[0], run_id, {"loss": [(1, 1, value), (2, 1, -0.0), (2, 1, 0.0)]})
    with writers[0].read() as connection:
        found = metric_history(connection, run_id, "loss")
        row = _bounds(connection, run_id, "loss")
    assert str(found.values) == "[nan, 0.0]"
    assert [str(value) for value in (row.value, row.lowest, row.highest, row.last)] == ["0.0"] * 4


def test_a_curve_of_nan_alone_has_no_bounds_until_a_number_comes(writers: list[Database]) -> None:
    run_id = _run(writers[0])
    rows = []
    for point in ((1, 1, math.nan), (1, 2, math.nan), (0, 0, -math.inf)):
        _add(writers[0], run_id, {"loss": [point]})
        with writers[0].read() as connection:
            row = _bounds(connection, run_id, "loss")
        rows.append((row.is_nan, row.lowest, row.highest, row.last, row.last_is_nan))
    assert rows == [(True, None, None, 0.0, True), (True, None, None, 0.0, True), (True, -math.inf, -math.inf, -math.inf, False)]


def test_many_keys_at_once(writers: list[Database]) -> None:
    run_id = _run(writers[0])
    for step in range(2):
        _add(writers[0], run_id, {f"m{number}": [(step, 1, float(number))] for number in range(1300)} | {"none": []})
    with writers[0].read() as connection:
        assert metric_keys(connection, run_id) == {f"m{number}": 2 for number in range(1300)}


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 1, 0)])
@pytest.mark.parametrize("limit", [FEW // 4, FEW, FEW + 50, 3 * FEW])
def test_pages_that_end_with_a_chunk_and_chunks_out_of_order(writers: list[Database], order: tuple[int, ...], limit: int) -> None:
    run_id = _run(writers[0])
    for part in order:
        _add(writers[0], run_id, {"loss": [(0, time, 0.5) for time in range(part * FEW, (part + 1) * FEW)]})
    with writers[0].read() as connection:
        assert [time for _, time, *_ in _walk(connection, run_id, "loss", limit)] == list(range(3 * FEW))


def test_points_added_meanwhile_neither_hide_nor_repeat_others(writers: list[Database]) -> None:
    run_id = _run(writers[0])
    _add(writers[0], run_id, {"loss": [(step, step, 0.0) for step in range(0, 100, 2)]})
    with writers[1].read() as connection:
        page = history_page(connection, run_id, "loss", limit=20)
    _add(writers[0], run_id, {"loss": [(step, step, 0.0) for step in range(1, 100, 2)]})
    with writers[1].read() as connection:
        rest = history_page(connection, run_id, "loss", after=page.next)
    assert rest.points.steps.tolist() == list(range(39, 100))


def test_a_page_belongs_to_its_curve(writers: list[Database]) -> None:
    run_id = _run(writers[0])
    _add(writers[0], run_id, {key: [(step, step, math.nan) for step in range(3)] for key in ("loss", "auc")})
    with writers[0].read() as connection:
        token = history_page(connection, run_id, "loss", limit=1).next
        assert token is not None
        assert history_page(connection, run_id, "loss", limit=1, after=token).points.steps.tolist() == [1]
        beyond = base64.urlsafe_b64encode(base64.urlsafe_b64decode(token).replace(b",0,", b",9223372036854775808,", 1)).decode()
        for key, given_token in (("auc", token), ("loss", "nonsense"), ("loss", ""), ("loss", token[:-4]), ("loss", "ü"), ("loss", beyond)):
            with pytest.raises(InvalidInput, match="page of this curve"):
                history_page(connection, run_id, key, limit=1, after=given_token)
        with pytest.raises(InvalidInput, match="limit"):
            history_page(connection, run_id, "loss", limit=0)
        with pytest.raises(InvalidInput, match="points"):
            sampled_histories(connection, [run_id], "loss", points=0)


@pytest.mark.parametrize(("first", "last", "wanted"), [(LARGEST, None, [LARGEST]), (LARGEST + 1, None, []), (None, -LARGEST - 1, [-LARGEST - 1]),
                                                       (None, -LARGEST - 2, []), (-(10**30), 10**30, [-LARGEST - 1, 0, LARGEST]), (1, 0, [])])
def test_a_range_may_end_anywhere(writers: list[Database], first: int | None, last: int | None, wanted: list[int]) -> None:
    run_id = _run(writers[0])
    _add(writers[0], run_id, {"loss": [(step, LARGEST, 0.0) for step in (0, LARGEST, -LARGEST - 1)]})
    with writers[0].read() as connection:
        found = metric_history(connection, run_id, "loss", first_step=first, last_step=last)
    assert (found.steps, found.times) == (wanted, [LARGEST * 1000] * len(wanted))


def test_several_runs_share_one_limit(writers: list[Database]) -> None:
    made = [_run(writers[0]) for _ in range(4)]
    for run_id, steps in zip(made, (5, 0, 7, 3), strict=True):
        _add(writers[0], run_id, {"loss": [(step, 9 - step, 0.5) for step in range(steps)]})
    with writers[0].read() as connection:
        found = histories(connection, [*made[::-1], made[0]], "loss", limit=11)
        sampled = sampled_histories(connection, made[::-1], "loss", points=2, first_step=1, last_step=3)
    lengths = dict(zip(made, (5, 0, 7, 3), strict=True))
    wanted: list[tuple[str, list[int]]] = []
    for run_id in sorted(made):
        left = min(lengths[run_id], 11 - sum(len(steps) for _, steps in wanted))
        wanted += [(run_id, list(range(lengths[run_id]))[::-1][:left])] if left else []
    assert [(run_id, points.steps.tolist()) for run_id, points in found] == wanted
    assert [(run_id, points.steps.tolist()) for run_id, points in sampled] == [(made[3], [1, 2]), (made[2], [1, 3]), (made[0], [1, 3])]


@given(st.lists(st.tuples(st.integers(-LARGEST - 1, LARGEST), st.integers(0, LARGEST), st.floats())))
def test_packing_is_exact_and_the_same_on_every_machine(points: list[Point]) -> None:
    assert pack(_points(points)) == b"".join(struct.pack("<qqd", *point) for point in points)
