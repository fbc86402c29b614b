"""A whole column is encoded and decoded as each of its values is, and an error names the row."""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from davy.core.fields import LARGEST_INT, LARGEST_SCALED, UNSCALED, Field
from davy.core.time import EARLIEST, LATEST
from davy.errors import InvalidInput, InvalidTime
from davy.features.columns import DECODED, decode_column, encode_column, encode_times

SCALES = st.integers(0, 15)


def nullable(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.none() | values, max_size=12)


def outcome(field: Field, values: list[Any]) -> tuple[list[Any] | None, str]:
    """What encoding one by one gives: the stored values, or the first error."""
    found = []
    for row, value in enumerate(values):
        try:
            found.append(field.encode(value))
        except InvalidInput as error:
            return None, f"Row {row}: {error.came}"
    return found, ""


def same(field: Field, series: pl.Series) -> None:
    wanted, message = outcome(field, series.to_list())
    if wanted is None:
        with pytest.raises(InvalidInput) as caught:
            encode_column(series, field)
        assert str(caught.value.came) == message
        return
    stored = encode_column(series, field)
    assert stored.dtype == (pl.String if field.kind == "str" else pl.Int64)
    assert stored.name == field.name
    assert stored.to_list() == wanted
    decoded = decode_column(stored, field)
    assert decoded.dtype == DECODED[field.kind]
    assert [bits(value) for value in decoded.to_list()] == [bits(field.decode(value)) for value in wanted]


def bits(value: Any) -> Any:
    return struct.pack("<d", value) if isinstance(value, float) else (type(value), value)


NEAR = st.sampled_from([0.0, -0.0, 0.5, 1.5, 2.5, 0.1, 1e-7, 5e-324, 1e18, 999999999999.9999995, -1e12, 1e308, math.inf, -math.inf, math.nan, 0.0000005, 2.675])


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["float", "decimal"]), SCALES, nullable(NEAR | st.floats() | st.floats(-1e6, 1e6)))
def test_floats(kind: Any, scale: int, values: list[Any]) -> None:
    same(Field("x", kind, scale), pl.Series("given", values, dtype=pl.Float64))


@settings(max_examples=150, deadline=None)
@given(SCALES, nullable(st.floats(width=32)))
def test_small_floats(scale: int, values: list[Any]) -> None:
    same(Field("x", "float", scale), pl.Series("given", values, dtype=pl.Float32))


WIDTHS = [(pl.Int8, 8), (pl.Int16, 16), (pl.Int32, 32), (pl.Int64, 64), (pl.UInt8, -8), (pl.UInt16, -16), (pl.UInt32, -32), (pl.UInt64, -64)]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(WIDTHS), st.sampled_from(["int", "float", "decimal"]), SCALES, st.data())
def test_integers_of_every_width(width: tuple[Any, int], kind: Any, scale: int, data: st.DataObject) -> None:
    dtype, size = width
    low, high = (0, 2**-size - 1) if size < 0 else (-(2 ** (size - 1)), 2 ** (size - 1) - 1)
    limits = [LARGEST_INT, LARGEST_SCALED // 10**scale]
    edges = [edge for limit in limits for edge in (limit - 1, limit, limit + 1, -limit, -limit - 1) if low <= edge <= high]
    values = data.draw(nullable(st.integers(low, high) | st.sampled_from([low, high, *edges])))
    same(Field("x", kind, 0 if kind == "int" else scale), pl.Series("given", values, dtype=dtype))


@settings(max_examples=150, deadline=None)
@given(SCALES, st.integers(0, 10), nullable(st.integers(-(10**15), 10**15)))
def test_decimals(scale: int, places: int, values: list[Any]) -> None:
    exact = [None if value is None else Decimal(value).scaleb(-places) for value in values]
    same(Field("x", "decimal", scale), pl.Series("given", exact, dtype=pl.Decimal(30, places)))


@settings(max_examples=80, deadline=None)
@given(nullable(st.text(max_size=5)))
def test_texts(values: list[Any]) -> None:
    field = Field("x", "str")
    series = pl.Series("given", values, dtype=pl.String)
    same(field, series)
    same(field, series.cast(pl.Categorical))
    same(field, series.cast(pl.Enum(series.drop_nulls().unique().sort())))


@settings(max_examples=30, deadline=None)
@given(nullable(st.booleans()))
def test_bools(values: list[Any]) -> None:
    same(Field("x", "bool"), pl.Series("given", values, dtype=pl.Boolean))


@settings(max_examples=100, deadline=None)
@given(nullable(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-4))]))), st.sampled_from(["us", "ms", "ns"]))
def test_times(values: list[Any], unit: Any) -> None:
    field = Field("x", "time")
    years = range(1700, 2200) if unit == "ns" else range(2, 9999)
    moments = [value.astimezone(UTC) if value is not None and value.year in years else None for value in values]
    series = pl.Series("given", moments, dtype=pl.Datetime("us", "UTC")).dt.cast_time_unit(unit)
    wanted = [None if value is None else field.encode(value) for value in series.to_list()]
    assert encode_times(series, field).to_list() == wanted
    zoned = series.dt.convert_time_zone("America/New_York")
    assert encode_column(zoned, field).to_list() == wanted
    same(field, pl.Series("given", wanted, dtype=pl.Int64))
    same(field, pl.Series("given", [None if value is None else value.isoformat() for value in moments], dtype=pl.String))


@pytest.mark.parametrize("micros", [EARLIEST - 1, LATEST + 1])
def test_a_time_out_of_range_is_refused(micros: int) -> None:
    with pytest.raises(InvalidTime, match=r"Row 1: .*outside the years 1 to 9999"):
        encode_times(pl.Series("t", [0, micros]), Field("x", "time"))
    assert encode_times(pl.Series("t", [EARLIEST, LATEST]), Field("x", "time")).to_list() == [EARLIEST, LATEST]


def test_naive_times_are_refused() -> None:
    field = Field("x", "time")
    naive = pl.Series("when", [datetime(2013, 5, 1)])  # noqa: DTZ001 - the mistake itself
    with pytest.raises(InvalidTime, match="'when' holds times without a zone") as caught:
        encode_column(naive, field)
    assert "replace_time_zone" in caught.value.fix
    with pytest.raises(InvalidTime, match=r"Row 1: .* has no zone"):
        encode_column(pl.Series("when", ["2013-05-01T12:00:00Z", "2013-05-01T12:00:00"]), field)
    with pytest.raises(InvalidTime, match=r"Row 0: .* is not a time"):
        encode_column(naive.dt.date(), field)


@pytest.mark.parametrize("kind", ["int", "float", "decimal", "str", "bool", "time"])
@pytest.mark.parametrize("values", [[], [None, None]])
def test_nothing_but_nulls(kind: Any, values: list[Any]) -> None:
    field = Field("x", kind, 2 if kind in ("float", "decimal") else 0)
    stored = encode_column(pl.Series("given", values, dtype=pl.Null), field)
    assert stored.dtype == (pl.String if kind == "str" else pl.Int64)
    assert stored.to_list() == values
    assert decode_column(stored, field).to_list() == values


WRONG = [
    ("int", [1, None, 2.5], pl.Float64, "Row 0: the field 'x' got 1.0 (float)"),
    ("int", ["1"], pl.String, "Row 0: the field 'x' got '1' (str)"),
    ("int", [1, True], pl.Object, "Row 1: the field 'x' got True (bool)"),
    ("float", [None, "1.5"], pl.String, "Row 1: the field 'x' got '1.5' (str)"),
    ("float", [None, True], pl.Boolean, "Row 1: the field 'x' got True (bool)"),
    ("float", [1.0, None, math.nan], pl.Float64, "Row 2: the field 'x' got nan (float)"),
    ("decimal", [1.0, 1e17], pl.Float64, "Row 1: the field 'x' got 1e+17 (float)"),
    ("str", [None, 5], pl.Int64, "Row 1: the field 'x' got 5 (int)"),
    ("bool", [None, 1], pl.Int64, "Row 1: the field 'x' got 1 (int)"),
    ("time", [True], pl.Boolean, "Row 0: True is not a time"),
    ("time", [1.5], pl.Float64, "Row 0: 1.5 is not a time"),
]


@pytest.mark.parametrize(("kind", "values", "dtype", "message"), WRONG)
def test_another_type_is_refused_with_its_row(kind: Any, values: list[Any], dtype: Any, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        encode_column(pl.Series("given", values, dtype=dtype), Field("x", kind, 2 if kind in ("float", "decimal") else 0))
    assert caught.value.came.lower().startswith(message.lower())


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70) | st.none(), max_size=20))
def test_unscaled_floats_are_kept_as_they_came(values: list[Any]) -> None:
    field = Field("amount", "float", UNSCALED)
    stored = [field.encode(value) for value in values]
    assert stored == [None if value is None else float(value) for value in values]
    assert [field.decode(value) for value in stored] == stored
    floats = pl.Series("amount", stored, dtype=pl.Float64)
    assert encode_column(floats, field).to_list() == stored
    assert decode_column(encode_column(floats, field), field).to_list() == stored


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, True, "1"])
def test_an_unscaled_float_is_a_finite_number(value: Any) -> None:
    with pytest.raises(InvalidInput, match="amount"):
        Field("amount", "float", UNSCALED).encode(value)
