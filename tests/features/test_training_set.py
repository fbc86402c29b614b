"""Training sets from a real log: one row for each row, each as it was known, under a digest of every bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import davy
from davy.core.clock import DrivenClock
from davy.engines.offline.local import LocalEngine
from davy.errors import InvalidInput, InvalidTime
from davy.events import client
from davy.features.define import Resolver, Stream, View, agg, derive
from davy.features.definition import FeatureSet
from davy.features.training_set import TrainingSet, frame_digest, training_set
from davy.home import Home
from davy.registry.signature import Signature
from events_kit import HOUR, NOON, SECOND, driven_home

MINUTE = 60 * SECOND
sales = Stream("sales", time="at", fields={"shop": str, "amount": float, "note": str, "paid": bool, "due": davy.Time}, tolerance="1h")


class Shop(View):
    stream, entity = sales, "shop"
    n_1h = agg.count(window="1h")
    sum_1h = agg.sum("amount", window="1h")
    mean_1h = agg.mean("amount", window="1h")
    note = agg.last("note")
    paid = agg.last("paid")
    due = agg.max("due", window="1h")


@derive
def ratio(mean_1h, price):  # type: ignore[no-untyped-def]
    return price / davy.coalesce(mean_1h, 1.0)


REQUEST: dict[str, Any] = {"price": davy.Decimal(scale=2), "colour": str, "gift": bool, "until": davy.Time}


def features(listed: list[Any] | None = None) -> FeatureSet:
    whole = [Shop, ratio, "price", "colour", "gift", "until", "shop"]
    return Resolver([Shop], [ratio]).feature_set(whole if listed is None else listed, request=REQUEST if listed is None else None)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    opened = driven_home(tmp_path)
    yield opened
    opened.close()


def at(home: Home, moment: int, *rows: dict[str, Any]) -> None:
    """Push these rows when the clock stands at that moment."""
    assert isinstance(home.clock, DrivenClock)
    home.clock.set(moment)
    with client.connect(home) as log:
        log.push(sales.spec, list(rows))


def sale(moment: int, shop: str | None = "a", amount: float | None = 1.0, **values: Any) -> dict[str, Any]:
    return {"at": moment, "shop": shop, "amount": amount} | values


def spine(rows: list[tuple[str | None, int]], **columns: Any) -> pl.DataFrame:
    given = {"price": [9.99], "colour": ["red"], "gift": [True], "until": [NOON]}
    frame = pl.DataFrame({"shop": [shop for shop, _ in rows], "time": [moment for _, moment in rows]}, schema={"shop": pl.String, "time": pl.Int64})
    more = {name: values * len(rows) if len(values) == 1 else values for name, values in (given | columns).items()}
    frame = frame.with_columns(pl.Series(name, values) for name, values in more.items())
    return frame.with_columns(pl.col("time").cast(pl.Datetime("us", "UTC")))


def join(home: Home, frame: pl.DataFrame, listed: list[Any] | None = None, **more: Any) -> TrainingSet:
    return training_set(LocalEngine(home), features(listed), frame, **more)


def some_events(home: Home) -> None:
    at(home, NOON, sale(NOON - 5 * MINUTE, amount=2.5, note="x", paid=False, due=NOON), sale(NOON - MINUTE, "b", None))
    at(home, NOON + 10 * MINUTE, sale(NOON + 9 * MINUTE, amount=4.0, note="y"), sale(NOON - 4 * MINUTE, amount=100.0, note="late"))
    at(home, NOON + 20 * MINUTE, sale(NOON + 15 * MINUTE, "a", None, paid=True))


def test_one_row_for_each_row_in_the_same_order(home: Home) -> None:
    some_events(home)
    later = ("a", NOON + HOUR // 2)
    rows: list[tuple[str | None, int]] = [("b", NOON + 2), later, ("a", NOON + 2), later, ("nobody", NOON), (None, NOON), ("a", 0)]
    frame = spine(rows, extra=[f"row {number}" for number in range(7)])
    data = join(home, frame)
    assert len(data) == 7
    assert data.frame["extra"].to_list() == frame["extra"].to_list()
    assert data.frame.select(frame.columns).equals(frame)
    assert data.columns == ["n_1h", "sum_1h", "mean_1h", "note", "paid", "due", "ratio", "price", "colour", "gift", "until", "shop"]
    assert data.features["n_1h"].to_list() == [1, 4, 1, 4, 0, 0, 0]
    assert data.features["sum_1h"].to_list() == [0.0, 106.5, 2.5, 106.5, 0.0, 0.0, 0.0]
    assert data.features["mean_1h"].to_list() == [None, 35.5, 2.5, 35.5, None, None, None]
    assert data.features["note"].to_list() == [None, "y", "x", "y", None, None, None]
    assert data.features["paid"].to_list() == [None, True, False, True, None, None, None]
    assert data.features["ratio"].to_list() == [9.99, 9.99 / 35.5, 9.99 / 2.5, 9.99 / 35.5, 9.99, 9.99, 9.99]
    assert data.features["shop"].to_list() == [shop for shop, _ in rows]
    assert data.features.columns == data.columns


def test_each_row_saw_what_had_arrived_or_what_had_happened(home: Home) -> None:
    some_events(home)
    frame = spine([("a", NOON + MINUTE), ("a", NOON + 10 * MINUTE), ("a", NOON + 10 * MINUTE + 1), ("a", NOON + 10 * MINUTE + 2)])
    assert join(home, frame).features["sum_1h"].to_list() == [2.5, 2.5, 6.5, 106.5]
    hindsight = join(home, frame, as_known="event")
    assert hindsight.features["sum_1h"].to_list() == [102.5, 106.5, 106.5, 106.5]
    assert hindsight.as_known == "event"
    assert hindsight.digest != join(home, frame).digest
    with pytest.raises(InvalidInput, match="as_known is 'ingested'") as caught:
        join(home, frame, as_known="ingested")
    assert "did you mean 'ingest'" in caught.value.fix


@pytest.mark.parametrize("as_known", ["ingest", "event"])
def test_watermarks_build_an_earlier_set_again(home: Home, as_known: Any) -> None:
    some_events(home)
    frame = spine([("a", NOON + number * MINUTE) for number in range(0, 120, 7)])
    before = join(home, frame, as_known=as_known)
    assert before.watermarks == {"sales": 5}
    at(home, NOON + 3 * HOUR, *(sale(NOON + number * MINUTE, amount=1000.0) for number in range(60)))
    again = join(home, frame, as_known=as_known, watermarks=before.watermarks)
    assert (again.digest, again.spine_digest, again.watermarks) == (before.digest, before.spine_digest, before.watermarks)
    assert again.X.tobytes() == before.X.tobytes()
    now = join(home, frame, as_known=as_known)
    assert now.watermarks == {"sales": 65}
    assert now.digest != before.digest
    assert (now.features["sum_1h"].to_list() == before.features["sum_1h"].to_list()) == (as_known == "ingest")


def test_without_any_event(home: Home) -> None:
    data = join(home, spine([("a", NOON)]))
    assert data.watermarks == {"sales": 0}
    assert data.features.row(0)[:6] == (0, 0.0, None, None, None, None)
    assert np.isnan(data.X[0, 2:6]).all()


def test_without_any_row(home: Home) -> None:
    some_events(home)
    for frame in (spine([]), spine([]).with_columns(pl.lit(None).alias(name) for name in ("shop", "price", "time"))):
        data = join(home, frame.head(0), label=pl.Series("y", [], dtype=pl.Boolean))
        assert (len(data), data.X.shape, data.y.shape) == (0, (0, 12), (0,))


def test_the_digest_is_over_every_bit(home: Home) -> None:
    some_events(home)
    rows: list[tuple[str | None, int]] = [("a", NOON + number * MINUTE) for number in range(30)]
    columns: dict[str, Any] = {"price": [1.0] * 30, "colour": ["red"] * 30, "gift": [True] * 30, "until": [NOON] * 30, "note_to_self": ["-"] * 30}
    label = pl.Series("y", [False] * 30)
    base = join(home, spine(rows, **columns), label=label)
    assert join(home, spine(rows, **columns), label=label).digest == base.digest
    digests = [base.digest]
    for name, value in {"price": 1.01, "colour": "rot", "gift": None, "until": NOON + 1, "note_to_self": ""}.items():
        digests.append(join(home, spine(rows, **(columns | {name: [*columns[name][:-1], value]})), label=label).digest)
    digests.append(join(home, spine([*rows[:-1], ("b", rows[-1][1])], **columns), label=label).digest)
    digests.append(join(home, spine([*rows[:-1], ("a", rows[-1][1] + 1)], **columns), label=label).digest)
    digests.append(join(home, spine(rows, **columns), label=label.scatter(29, True)).digest)
    digests.append(join(home, spine(rows, **columns)).digest)
    digests.append(join(home, spine(rows[::-1], **columns), label=label).digest)
    assert len(set(digests)) == len(digests)


def test_a_label_counts_also_beside_a_column_of_that_name(home: Home) -> None:
    frame = spine([("a", NOON)] * 2, label=["x", "y"])
    digests = {join(home, frame, label=pl.Series("y", values)).digest for values in ([True, False], [True, True])}
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"x": [0.0]}, {"x": [-0.0]}), ({"x": [None, "a"]}, {"x": ["", "a"]}), ({"x": ["ab", "c"]}, {"x": ["a", "bc"]}), ({"x": [1]}, {"x": [1.0]}),
        ({"x": [1]}, {"y": [1]}), ({"x": [1], "y": [2]}, {"y": [2], "x": [1]}), ({"x": [None, 0]}, {"x": [0, None]}), ({"x": [[1, 2]]}, {"x": [[1, 3]]}),
        ({"x": [False]}, {"x": [None]}), ({"x": [{"a": 1}]}, {"x": [{"a": 2}]}), ({"x": [b"a"]}, {"x": [b"b"]}),
    ],
)  # fmt: skip
def test_different_frames_have_different_digests(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert frame_digest(pl.DataFrame(left, strict=False)) != frame_digest(pl.DataFrame(right, strict=False))
    assert frame_digest(pl.DataFrame(left, strict=False)) == frame_digest(pl.concat([pl.DataFrame(left, strict=False)], rechunk=False))


def test_chunks_do_not_change_a_digest() -> None:
    whole = pl.DataFrame({"x": [1, None, 3], "s": ["a", "", None], "b": [True, None, False]})
    assert frame_digest(pl.concat([whole[:1], whole[1:]], rechunk=False)) == frame_digest(whole)
    assert frame_digest(whole.with_columns(pl.col("s").cast(pl.Categorical)).with_columns(pl.col("s").cast(pl.String))) == frame_digest(whole)


def test_the_matrix_is_what_a_request_is_turned_into(home: Home) -> None:
    some_events(home)
    rows: list[tuple[str | None, int]] = [("a", NOON + 2 * MINUTE), ("b", NOON + 5 * MINUTE), (None, NOON), ("nobody", NOON), ("a", NOON + HOUR // 2)]
    columns = {"price": [9.99, None, 0.01, -5.0, 1e9], "colour": ["red", "blue", None, "Zinc", "été"], "gift": [True, False, None, True, False],
               "until": [NOON, None, 0, NOON + 1, NOON]}  # fmt: skip
    data = join(home, spine(rows, **columns), label=pl.Series("y", [1.5, 0.0, -1.0, 2.0, 3.0]))
    assert data.categories == {"note": ["x", "y"], "colour": ["Zinc", "blue", "red", "été"], "shop": ["a", "b", "nobody"]}
    assert [data.columns[index] for index in data.categorical] == ["note", "colour", "shop"]
    signature = Signature.of(data.columns, data.kinds, data.categories)  # type: ignore[arg-type]
    assert data.X.dtype == np.float64
    encoded = np.array([signature.encode(row) for row in data.features.rows()])
    assert data.X.tobytes() == encoded.tobytes()
    assert signature.encode(["new" if kind == "str" else None for kind in data.kinds]) != []
    assert np.isnan(signature.encode(["new" if kind == "str" else None for kind in data.kinds])).all()
    assert data.y.tolist() == [1.5, 0.0, -1.0, 2.0, 3.0]


def test_labels(home: Home) -> None:
    frame = spine([("a", NOON)] * 2)
    assert join(home, frame, label=pl.Series([True, False])).y.tolist() == [1, 0]
    assert join(home, frame, label=pl.Series(["yes", "no"])).y.tolist() == ["yes", "no"]
    with pytest.raises(InvalidInput, match="no labels"):
        _ = join(home, frame).y
    with pytest.raises(InvalidInput, match="1 of 2 labels are null"):
        _ = join(home, frame, label=pl.Series([True, None])).y


def test_times_may_be_zoned_or_micros_and_never_naive(home: Home) -> None:
    some_events(home)
    frame = spine([("a", NOON + 2 * MINUTE)])
    base = join(home, frame, ["n_1h", "sum_1h"])
    for times in (pl.col("time").dt.convert_time_zone("America/New_York"), pl.col("time").dt.epoch("us"), pl.col("time").dt.cast_time_unit("ns"),
                  pl.col("time").dt.to_string("%+")):  # fmt: skip
        assert join(home, frame.with_columns(times.alias("time")), ["n_1h", "sum_1h"]).features.equals(base.features)
    with pytest.raises(InvalidTime, match="'time' holds times without a zone"):
        join(home, frame.with_columns(pl.col("time").dt.replace_time_zone(None)))
    with pytest.raises(InvalidInput, match="1 rows of the spine have no time"):
        join(home, frame.with_columns(pl.lit(None, dtype=pl.Datetime("us", "UTC")).alias("time")))


@pytest.mark.parametrize(("column", "said"), [("shop", "no column 'shop'"), ("time", "no column 'time'"), ("price", "no column 'price'")])
def test_a_missing_column_is_named(home: Home, column: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        join(home, spine([("a", NOON)]).drop(column))
    assert caught.value.fix == f"Add the column {column!r}."


def test_a_mistyped_column_is_named_with_its_row(home: Home) -> None:
    with pytest.raises(InvalidInput, match="Row 0: The field 'shop' got 5"):
        join(home, spine([("a", NOON)]).with_columns(pl.lit(5).alias("shop")))
    with pytest.raises(InvalidInput, match="Row 1: The field 'price' got nan"):
        join(home, spine([("a", NOON)] * 2, price=[1.0, float("nan")]))


def test_narrow_integers_are_taken(home: Home) -> None:
    found = Resolver([Shop]).feature_set(["n_1h", "floor"], request={"floor": int})
    frame = spine([("a", NOON)] * 2).with_columns(pl.Series("floor", [3, -1], dtype=pl.Int8))
    assert training_set(LocalEngine(home), found, frame).features["floor"].to_list() == [3, -1]
