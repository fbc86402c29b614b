"""Rows into stored form: the fast path, the vectorised path and `Field.encode` agree on every value, wrong ones too."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from davy.core.fields import Field
from davy.errors import DavyError, InvalidInput, InvalidTime
from davy.events.frames import ContentDigest, batches, stored_frame, typed, untyped
from davy.events.rows import encode_rows, encode_values
from davy.features.columns import encode_column
from davy.features.definition import EventBatch, StreamSpec
from events_kit import FIELDS, ORDERS, order

GOOD: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-(2**62), 2**62), "float": st.floats(-1e11, 1e11) | st.integers(-(10**11), 10**11), "bool": st.booleans(),
    "decimal": st.floats(-1e15, 1e15) | st.decimals(-(10**15), 10**15, places=4), "str": st.text(max_size=5),
    "time": st.integers(-(10**15), 10**16) | st.datetimes(timezones=st.just(UTC) | st.just(timezone(timedelta(hours=-5)))) | st.just("2020-01-01T00:00:00Z"),
}
NAIVE = datetime(2020, 1, 1)  # noqa: DTZ001 - that it has no zone is what is tested
BAD: st.SearchStrategy[Any] = st.sampled_from([math.nan, math.inf, 1e300, -1e300, 2**70, "x", "\ud800", b"x", [], True, 1, 1.5, NAIVE, Decimal("NaN")])


def one_by_one(field: Field, values: list[Any]) -> Any:
    try:
        stored = [field.encode(value) for value in values]
        for value in stored:
            if isinstance(value, str):
                value.encode()
        return stored
    except (DavyError, UnicodeEncodeError) as error:
        return InvalidInput if isinstance(error, UnicodeEncodeError) else type(error)


def attempted(field: Field, values: list[Any]) -> Any:
    try:
        return encode_values(field, values)
    except DavyError as error:
        return type(error)


@given(data=st.data(), field=st.sampled_from(FIELDS))
@settings(max_examples=300, deadline=None)
def test_many_values_are_encoded_as_one(data: st.DataObject, field: Field) -> None:
    values = data.draw(st.lists(GOOD[field.kind] | st.none(), max_size=8) | st.lists(GOOD[field.kind] | st.none() | BAD, max_size=8))
    assert attempted(field, values) == one_by_one(field, values)


@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False, width=64) | st.none(), max_size=20), scale=st.integers(0, 15))
@settings(max_examples=300, deadline=None)
def test_a_column_of_floats_has_the_bits_of_its_values(values: list[float | None], scale: int) -> None:
    field = Field("x", "float", scale)
    try:
        whole: Any = encode_column(pl.Series("x", values, dtype=pl.Float64), field).to_list()
    except InvalidInput:
        whole = InvalidInput
    assert whole == one_by_one(field, values) == attempted(field, values)


@given(data=st.data(), field=st.sampled_from(FIELDS))
@settings(max_examples=100, deadline=None)
def test_a_frame_keeps_every_value(data: st.DataObject, field: Field) -> None:
    stored = data.draw(st.lists(GOOD[field.kind].map(field.encode) | st.none(), min_size=1, max_size=10))
    spec = StreamSpec("x", "at", (field,))
    batch = EventBatch("x", 5, list(range(len(stored))), [7] * len(stored), {field.name: stored})
    frame = stored_frame(spec, [batch])
    back = untyped(spec, typed(spec, frame))
    assert back.equals(frame)
    assert next(batches(spec, back, rows=3)).columns[field.name] == stored[:3]


def test_a_digest_does_not_depend_on_chunks_and_sees_every_change() -> None:
    spec = StreamSpec("x", "at", (Field("a", "int"), Field("s", "str")))
    batch = EventBatch("x", 1, [1, 2, 3], [7, 8, 9], {"a": [1, None, 0], "s": ["a", "", None]})
    frame = stored_frame(spec, [batch])

    def digest(*parts: pl.DataFrame) -> str:
        found = ContentDigest()
        for part in parts:
            found.update(part)
        return found.hexdigest()

    whole = digest(frame)
    assert whole == digest(frame[:1], frame[1:]) == digest(frame[:2], frame[2:])
    assert whole == digest(frame.with_columns(later=pl.lit(None, dtype=pl.Int64)))
    assert whole != digest(frame.with_columns(a=pl.Series([1, 0, 0])))
    assert whole != digest(frame.with_columns(s=pl.Series(["a", None, None])))
    assert whole != digest(frame.with_columns(s=pl.Series(["", "a", None])))


@pytest.mark.parametrize(("row", "kind", "said"), [
    ({"amont": 1.0}, InvalidInput, "Row 1 has the unknown field 'amont'.\ndid you mean 'amount'?"),
    ({"amount": math.nan}, InvalidInput, r"Row 1: The field 'amount' got nan"),
    ({"count": 1.0}, InvalidInput, r"Row 1: The field 'count' got 1.0 \(float\)"),
    ({"at": NAIVE}, InvalidTime, "Row 1: The time '2020-01-01T00:00:00' has no zone"),
    ({"at": None}, InvalidTime, "Row 1 has no 'at'"),
    ({"order": None}, InvalidInput, "Row 1 has no 'order'"),
    ({"user": "\ud800"}, InvalidInput, "not valid text"),
])
def test_a_wrong_row_is_named(row: dict[str, Any], kind: type[DavyError], said: str) -> None:
    with pytest.raises(kind, match=said):
        encode_rows(ORDERS.spec, [order("a"), {**order("b"), **row}])
    with pytest.raises(InvalidInput, match="Row 0 is 3"):
        encode_rows(ORDERS.spec, [3])  # type: ignore[list-item]


def test_an_absent_field_is_null() -> None:
    rows = encode_rows(ORDERS.spec, [{"at": "2020-01-01T00:00:00Z", "order": "a"}])
    assert rows.columns["amount"] == [None]
    assert rows.ids == ["a"]
