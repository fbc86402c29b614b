"""What every offline engine must do, as tests that anyone can run over an engine of their own.

Subclass `OfflineEngineContract`, say how an engine over given events is made, and let pytest collect the class:

    class TestMyEngine(OfflineEngineContract):
        def engine(self, folder, stream, events): ...
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from davy.core.fields import Field
from davy.engines.offline.base import OfflineEngine, Spine
from davy.errors import InvalidInput
from davy.features.definition import EventBatch, FeatureSpec, StreamSpec, ViewSpec

MINUTE = 60_000_000
HOUR = 60 * MINUTE
NOON = 1_367_409_600_000_000
TENTH = 10**5
"""A tenth in the stored form of a float with 6 decimals."""

SALES = StreamSpec(
    "sales",
    "at",
    (
        Field("shop", "str"),
        Field("till", "int"),
        Field("amount", "float", 6),
        Field("price", "decimal", 2),
        Field("items", "int"),
        Field("note", "str"),
        Field("paid", "bool"),
        Field("due", "time"),
        Field("keys", "str"),
        Field("starts", "int"),
    ),
)
_WINDOW = {"window": HOUR, "hop": 10 * MINUTE}
SHOP = ViewSpec(
    "Shop",
    "sales",
    ("shop",),
    (
        FeatureSpec("n", "count", None, **_WINDOW),
        FeatureSpec("n_items", "count", "items", **_WINDOW),
        FeatureSpec("sum_items", "sum", "items", **_WINDOW),
        FeatureSpec("sum_amount", "sum", "amount", **_WINDOW),
        FeatureSpec("mean_amount", "mean", "amount", **_WINDOW),
        FeatureSpec("mean_paid", "mean", "paid", **_WINDOW),
        FeatureSpec("std_items", "std", "items", **_WINDOW),
        FeatureSpec("std_price", "std", "price", **_WINDOW),
        FeatureSpec("min_price", "min", "price", **_WINDOW),
        FeatureSpec("max_items", "max", "items", **_WINDOW),
        FeatureSpec("max_due", "max", "due", **_WINDOW),
        FeatureSpec("last_note", "last", "note", **_WINDOW),
        FeatureSpec("ever_items", "last", "items"),
        FeatureSpec("ever_keys", "last", "keys"),
        FeatureSpec("sum_starts", "sum", "starts", **_WINDOW),
        FeatureSpec("fresh_paid", "last", "paid", ttl=5 * MINUTE),
        FeatureSpec("exact", "count", None, 7 * MINUTE, 1),
        FeatureSpec("long_sum", "sum", "amount", 30 * 24 * HOUR, 6 * HOUR),
    ),
).sealed(SALES)
TILL = ViewSpec(
    "Till", "sales", ("shop", "till"), (FeatureSpec("n", "count", None, **_WINDOW), FeatureSpec("last_note", "last", "note")),
).sealed(SALES)  # fmt: skip

Event = tuple[int, int, Mapping[str, Any]]
Question = tuple[Mapping[str, Any], int, int]


class OfflineEngineContract:
    """Holds for every engine. An event is (event time, ingest time, stored values); offsets count from 1."""

    def engine(self, folder: Path, stream: StreamSpec, events: Sequence[EventBatch]) -> OfflineEngine:
        """An engine over a log with these events. Called again with the same folder and more events, the log has grown."""
        raise NotImplementedError

    def test_an_empty_log(self, tmp_path: Path) -> None:
        engine = self.engine(tmp_path, SALES, [])
        assert engine.last_offset(SALES) == 0
        assert engine.known_at(SALES, np.array([0, NOON])).tolist() == [0, 0]
        assert ask(engine, SHOP, [({"shop": "a"}, NOON, 0)])[0] == obvious(SHOP, [], {"shop": "a"}, NOON, 0)

    def test_no_question(self, tmp_path: Path) -> None:
        engine = self.engine(tmp_path, SALES, batches([sale(NOON)]))
        assert ask(engine, SHOP, []) == []
        assert engine.known_at(SALES, np.array([], dtype=np.int64)).tolist() == []

    def test_what_was_known_at_a_time_is_what_came_strictly_before(self, tmp_path: Path) -> None:
        engine = self.engine(tmp_path, SALES, batches([sale(NOON, ingest=NOON + 5), sale(NOON, ingest=NOON + 9), sale(NOON - HOUR, ingest=NOON + 10)]))
        assert engine.last_offset(SALES) == 3
        times = np.array([0, NOON + 5, NOON + 6, NOON + 9, NOON + 10, NOON + 11, NOON + HOUR])
        known = engine.known_at(SALES, times)
        assert known.dtype == np.int64
        assert known.tolist() == [0, 0, 1, 1, 2, 3, 3]

    def test_an_event_at_the_asked_time_is_not_known(self, tmp_path: Path) -> None:
        engine = self.engine(tmp_path, SALES, batches([sale(NOON, note="x", items=4)]))
        before, after = ask(engine, SHOP, [({"shop": "a"}, NOON, 9), ({"shop": "a"}, NOON + 1, 9)], "n", "exact", "last_note", "ever_items")
        assert before == [0, 0, None, None]
        assert after == [1, 1, "x", 4]

    def test_the_far_edge_is_floored_to_the_hop(self, tmp_path: Path) -> None:
        engine = self.engine(tmp_path, SALES, batches([sale(NOON, note="x")]))
        edge = NOON + HOUR + 10 * MINUTE
        times = [edge - 1, edge, edge + MINUTE, NOON + 7 * MINUTE, NOON + 7 * MINUTE + 1]
        found = ask(engine, SHOP, [({"shop": "a"}, t, 1) for t in times], "n", "last_note", "exact")
        assert found == [[1, "x", 0], [0, None, 0], [0, None, 0], [1, "x", 1], [1, "x", 0]]

    def test_times_before_1970_floor_downwards(self, tmp_path: Path) -> None:
        engine = self.engine(tmp_path, SALES, batches([sale(-HOUR - 1, ingest=1), sale(-HOUR, ingest=2)]))
        found = ask(engine, SHOP, [({"shop": "a"}, t, 2) for t in (-1, 0, 9 * MINUTE, 10 * MINUTE)], "n", "exact")
        assert found == [[2, 0], [1, 0], [1, 0], [0, 0]]

    def test_a_time_to_live_is_exact(self, tmp_path: Path) -> None:
        engine = self.engine(tmp_path, SALES, batches([sale(NOON, paid=1)]))
        times = [NOON + 5 * MINUTE, NOON + 5 * MINUTE + 1]
        assert ask(engine, SHOP, [({"shop": "a"}, t, 1) for t in times], "fresh_paid") == [[True], [None]]

    def test_ties_are_broken_by_offset(self, tmp_path: Path) -> None:
        notes = ["first", "second", "after", "third"]
        times = [NOON, NOON, NOON + MINUTE, NOON]
        engine = self.engine(tmp_path, SALES, batches([sale(time, note=note) for time, note in zip(times, notes, strict=True)]))
        asked = [(NOON + 1, 1), (NOON + 1, 2), (NOON + 1, 3), (NOON + 1, 4), (NOON + HOUR, 4)]
        found = ask(engine, SHOP, [({"shop": "a"}, t, mark) for t, mark in asked], "last_note")
        assert [value for [value] in found] == ["first", "second", "second", "third", "after"]

    def test_nothing_beyond_the_watermark_is_seen(self, tmp_path: Path) -> None:
        engine = self.engine(tmp_path, SALES, batches([sale(NOON, items=2**number) for number in range(10)]))
        found = ask(engine, SHOP, [({"shop": "a"}, NOON + 1, mark) for mark in (0, 1, 7, 10, 99)], "n", "sum_items", "ever_items")
        assert found == [[0, 0, None], [1, 1, 1], [7, 127, 64], [10, 1023, 512], [10, 1023, 512]]

    def test_an_unknown_entity_and_a_null_one_have_no_events(self, tmp_path: Path) -> None:
        engine = self.engine(tmp_path, SALES, batches([sale(NOON), sale(NOON, shop=None), sale(NOON, shop="", items=3), sale(NOON, shop="b", till=None)]))
        keys: list[Any] = ["a", None, "", "nobody", "b"]
        found = ask(engine, SHOP, [({"shop": key}, NOON + 1, 9) for key in keys], "n", "n_items", "sum_items", "mean_amount", "ever_items")
        assert found == [[1, 0, 0, None, None], [0, 0, 0, None, None], [1, 1, 3, None, 3], [0, 0, 0, None, None], [1, 0, 0, None, None]]

    def test_keys_of_two_columns(self, tmp_path: Path) -> None:
        shops: list[Any] = [("a", 1), ("a", 2), ("b", 1), ("a", None), (None, 1), ("a", -1), ("a", 1)]
        engine = self.engine(tmp_path, SALES, batches([sale(NOON, shop=shop, till=till, note=f"{shop}{till}") for shop, till in shops]))
        keys: list[Any] = [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", None), (None, 1), (None, None), ("a", -1)]
        found = ask(engine, TILL, [({"shop": shop, "till": till}, NOON + 1, 9) for shop, till in keys])
        assert found == [[2, "a1"], [1, "b1"], [1, "a2"], [0, None], [0, None], [0, None], [0, None], [1, "a-1"]]

    def test_the_spine_keeps_its_order_and_its_duplicates(self, tmp_path: Path) -> None:
        events = [sale(NOON + number * MINUTE, shop="ab"[number % 2], items=number) for number in range(20)]
        engine = self.engine(tmp_path, SALES, batches(events))
        asked: list[Question] = [({"shop": shop}, NOON + minute * MINUTE, 20) for minute in (19, 3, 3, 11, 0, 19) for shop in ("b", "a", "b")]
        self.agrees(engine, events, asked)

    def test_nulls_are_skipped(self, tmp_path: Path) -> None:
        events = [sale(NOON + number, items=value, note=note) for number, (value, note) in enumerate([(5, "x"), (None, None), (0, ""), (None, None)])]
        engine = self.engine(tmp_path, SALES, batches(events))
        found = ask(engine, SHOP, [({"shop": "a"}, NOON + MINUTE, 4)], "n", "n_items", "sum_items", "max_items", "last_note", "ever_items", "mean_amount")
        assert found == [[4, 2, 5, 5, "", 0, None]]

    def test_a_log_that_grows_in_steps(self, tmp_path: Path) -> None:
        events = [sale(NOON + number * 37 * MINUTE % (5 * HOUR), shop="abc"[number % 3], items=number, note=str(number % 5)) for number in range(260)]
        for size in (1, 2, 60, 61, 100, 130, 133, 260):
            engine = self.engine(tmp_path, SALES, batches(events[:size]))
            assert engine.last_offset(SALES) == size
            asked: list[Question] = [({"shop": shop}, NOON + hour * HOUR, mark) for shop in "abc" for hour in (1, 4, 6) for mark in (size // 2, size)]
            self.agrees(engine, events[:size], asked)

    def test_events_that_come_in_the_worst_order(self, tmp_path: Path) -> None:
        """Each is later than all before it: no two are in order."""
        events = [sale(NOON - number * MINUTE, items=number, amount=number * TENTH, note=f"n{number}", paid=number % 2) for number in range(40)]
        engine = self.engine(tmp_path, SALES, batches(events))
        self.agrees(engine, events, [({"shop": "a"}, NOON - minute * MINUTE, mark) for minute in (-1, 0, 5, 30) for mark in range(0, 41, 4)])

    def test_a_hot_key(self, tmp_path: Path) -> None:
        events = [sale(NOON + number * 1000, shop="a" if number % 50 else "b", items=number % 7, amount=number * TENTH) for number in range(3000)]
        engine = self.engine(tmp_path, SALES, batches(events))
        asked: list[Question] = [({"shop": shop}, NOON + number * 10_000, number * 9) for shop in "ab" for number in range(0, 400, 40)]
        self.agrees(engine, events, asked)

    def test_sums_and_squares_beyond_64_bits(self, tmp_path: Path) -> None:
        huge = 10**18 - 1
        events = [sale(NOON + number, amount=huge - number, price=huge - 3 * number, items=2**62 - number) for number in range(30)]
        engine = self.engine(tmp_path, SALES, batches(events))
        self.agrees(engine, events, [({"shop": "a"}, NOON + 60, mark) for mark in (1, 2, 15, 30)], without="sum_items")
        assert ask(engine, SHOP, [({"shop": "a"}, NOON + 60, 1)], "sum_items") == [[2**62]]
        refused = ""
        try:
            ask(engine, SHOP, [({"shop": "a"}, NOON + 60, 3)])
        except InvalidInput as error:
            refused = error.came
        assert "beyond 64 bits" in refused

    def test_parts_that_are_small_and_a_whole_that_is_not(self, tmp_path: Path) -> None:
        """Where an engine adds up parts, none of them may need more than 64 bits and their sum may."""
        large, amount = 2**60 - 1, 10**18 - 1
        first = [sale(NOON - number, items=large, amount=amount) for number in range(7)] + [sale(NOON + number, shop="b") for number in range(14)]
        events = [*first, *(sale(NOON + 100 - number, items=large, amount=amount) for number in range(7))]
        self.agrees(self.engine(tmp_path, SALES, batches(first)), first, [({"shop": "a"}, NOON + MINUTE, len(first))])
        engine = self.engine(tmp_path, SALES, batches(events))
        self.agrees(engine, events, [({"shop": "a"}, NOON + MINUTE, len(events))], without="sum_items")

    def agrees(self, engine: OfflineEngine, events: Sequence[Event], asked: Sequence[Question], without: str = "") -> None:
        """Every bit is what the definition says."""
        view = msgspec.structs.replace(SHOP, features=tuple(feature for feature in SHOP.features if feature.name != without))
        for question, found in zip(asked, ask(engine, view, asked), strict=True):
            wanted = obvious(view, events, *question)
            assert {feature.name: bits(value) for feature, value in zip(view.features, found, strict=True)} == {
                feature.name: bits(value) for feature, value in zip(view.features, wanted, strict=True)
            }, question


def sale(at: int, *, ingest: int = 0, **values: Any) -> Event:
    """One event of shop a, unless told otherwise; fields that are left out are null."""
    return at, ingest, {"shop": "a", "till": 1} | values


def batches(events: Sequence[Event], rows: int = 1000) -> list[EventBatch]:
    """The events as the log holds them. Without an ingest time, an event came right after the latest before it."""
    found, latest = [], 0
    for start in range(0, len(events), rows):
        part = events[start : start + rows]
        ingest = []
        for at, given, _ in part:
            latest = given or max(latest, at) + 1
            ingest.append(latest)
        columns = {field.name: [values.get(field.name) for _, _, values in part] for field in SALES.fields}
        found.append(EventBatch("sales", start + 1, ingest, [at for at, _, _ in part], columns))
    return found


def ask(engine: OfflineEngine, view: ViewSpec, asked: Sequence[Question], *names: str) -> list[list[Any]]:
    """One row of values for each question; of these features only, where some are named."""
    view = msgspec.structs.replace(view, features=tuple(feature for feature in view.features if not names or feature.name in names))
    types = {"str": pl.String, "int": pl.Int64}
    keys = pl.DataFrame({key: pl.Series([given[key] for given, _, _ in asked], dtype=types[SALES.field(key).kind]) for key in view.entity})
    times, marks = (np.array([question[place] for question in asked], dtype=np.int64) for place in (1, 2))
    columns = engine.aggregate(SALES, view, Spine(keys, times, marks))
    assert [series.name for series in columns] == [feature.name for feature in view.features]
    assert all(len(series) == len(asked) for series in columns)
    by_name = {series.name: series.to_list() for series in columns}
    order = names or tuple(feature.name for feature in view.features)
    return [[by_name[name][row] for name in order] for row in range(len(asked))]


def obvious(view: ViewSpec, events: Sequence[Event], key: Mapping[str, Any], t: int, watermark: int) -> list[Any]:
    """The definition itself."""
    mine = [
        (at, offset, values)
        for offset, (at, _, values) in enumerate(events, 1)
        if offset <= watermark and at < t and all(values.get(name) is not None and values[name] == key[name] for name in view.entity)
    ]
    return [_value(feature, sorted(mine, key=lambda event: event[:2]), t) for feature in view.features]


def _value(feature: FeatureSpec, mine: Sequence[Event], t: int) -> Any:
    start = -math.inf if feature.window is None else (t - feature.window) // feature.hop * feature.hop
    start = start if feature.ttl is None else t - feature.ttl
    if feature.field is None:
        return sum(at >= start for at, _, _ in mine)
    field = SALES.field(feature.field)
    stored = [values[field.name] for at, _, values in mine if at >= start and values.get(field.name) is not None]
    total, power = (0, 1) if field.kind == "str" else (sum(stored), 10**field.scale)
    if feature.aggregate == "count":
        return len(stored)
    if feature.aggregate == "sum":
        return total / power if field.kind in ("float", "decimal") else total
    if len(stored) < (2 if feature.aggregate == "std" else 1):
        return None
    if feature.aggregate == "mean":
        return float(Fraction(total, len(stored) * power))
    if feature.aggregate == "std":
        spread = sum((value - Fraction(total, len(stored))) ** 2 for value in stored)
        return math.sqrt(float(spread / (len(stored) - 1) / power**2))
    return field.decode(stored[-1] if feature.aggregate == "last" else min(stored) if feature.aggregate == "min" else max(stored))


def bits(value: Any) -> Any:
    """Something that is equal only for equal bits of the same type."""
    return struct.pack("<d", value) if isinstance(value, float) else (type(value), value)
