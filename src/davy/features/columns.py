"""Whole columns into stored form and back: `Field.encode` and `Field.decode` for a million values, with the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from davy.core.fields import LARGEST_INT, LARGEST_SCALED, ONE_PRODUCT, UNSCALED, Field
from davy.core.time import EARLIEST, LATEST, LATEST_INT, SOONEST_INT, implausible
from davy.errors import InvalidInput, InvalidTime
from davy.features.kernel import divide_many

STORED: dict[str, Any] = {"str": pl.String}
DECODED: dict[str, Any] = {"int": pl.Int64, "float": pl.Float64, "decimal": pl.Float64, "bool": pl.Boolean, "str": pl.String, "time": pl.Int64}


def encode_column(values: pl.Series, field: Field) -> pl.Series:
    """The stored form of a column: Int64 (String for text, Float64 for unscaled floats), null where it was null.

    Raises:
        InvalidInput: another type, NaN, infinity or out of range; names the first row (from 0) and its value.
    """
    if values.dtype == pl.Null:
        return pl.Series(field.name, [None] * len(values), dtype=pl.Float64 if field.scale == UNSCALED else STORED.get(field.kind, pl.Int64))
    if field.scale == UNSCALED:
        return _unscaled(values, field)
    if field.kind in ("float", "decimal") and values.dtype.is_float():
        return _quantised(values.cast(pl.Float64), field)
    if field.kind in ("float", "decimal") and values.dtype.is_integer():
        return _scaled(values, field)
    if field.kind == "int" and values.dtype.is_integer():
        _refuse(values, _beyond(values, LARGEST_INT), field)
        return values.cast(pl.Int64).alias(field.name)
    if field.kind == "str" and values.dtype in (pl.String, pl.Categorical, pl.Enum):
        return values.cast(pl.String).alias(field.name)
    if field.kind == "bool" and values.dtype == pl.Boolean:
        return values.cast(pl.Int64).alias(field.name)
    if field.kind == "time":
        return encode_times(values, field)
    return pl.Series(field.name, [_encoded(field, value, row) for row, value in enumerate(values.to_list())], dtype=STORED.get(field.kind, pl.Int64))


def encode_times(values: pl.Series, field: Field, *, events: bool = False) -> pl.Series:
    """Microseconds in UTC of a column of zoned times, ISO texts with zones, or int microseconds.

    Args:
        events: they are the moments of events or questions, of which an int lies in 1990 to 2100; see `event_micros`.

    Raises:
        InvalidTime: without a zone, or out of range.
    """
    dtype = values.dtype
    if isinstance(dtype, pl.Datetime):
        if dtype.time_zone is None:
            raise InvalidTime(
                f"The column {values.name!r} holds times without a zone.",
                "Davy never guesses a zone.",
                f'Say which: frame.with_columns(pl.col("{values.name}").dt.replace_time_zone("UTC"))',
            )
        micros = values.dt.cast_time_unit("us").cast(pl.Int64)
    elif dtype.is_integer():
        micros = values.cast(pl.Int64)
        strange = (micros < SOONEST_INT) | (micros >= LATEST_INT)
        if events and strange.any():
            row = int(strange.fill_null(False).arg_max() or 0)
            error = implausible(int(micros[row]))
            raise InvalidTime(f"Row {row}: {error.came}", error.allowed, error.fix)
    else:
        micros = pl.Series([_encoded(field, value, row) for row, value in enumerate(values.to_list())], dtype=pl.Int64)
    _refuse(values, (micros < EARLIEST) | (micros > LATEST), field)
    return micros.alias(field.name)


def decode_column(stored: pl.Series, field: Field) -> pl.Series:
    """The values that features and models see: Int64, Float64, Boolean, String, or Int64 microseconds for times."""
    if field.kind in ("float", "decimal") and field.scale != UNSCALED:
        valid = stored.is_not_null()
        values = divide_many(stored.fill_null(0).to_numpy(), np.full(len(stored), 10**field.scale, dtype=np.int64))
        decoded = pl.Series(stored.name, values)
        return decoded if valid.all() else decoded.set(~valid, None)
    decoded_column: pl.Series = stored.cast(DECODED[field.kind])
    return decoded_column


def _unscaled(values: pl.Series, field: Field) -> pl.Series:
    if values.dtype.is_float():
        wide = values.cast(pl.Float64).alias(field.name)
        _refuse(values, ~wide.is_finite(), field)
        return wide
    return pl.Series(field.name, [_encoded(field, value, row) for row, value in enumerate(values.to_list())], dtype=pl.Float64)


def _quantised(values: pl.Series, field: Field) -> pl.Series:
    valid = values.is_not_null()
    with np.errstate(over="ignore"):
        product = values.fill_null(0.0).to_numpy() * float(10**field.scale)
    plain = np.abs(product) < ONE_PRODUCT
    rounded = np.rint(np.where(plain, product, 0.0)).astype(np.int64)
    for row in np.flatnonzero(~plain).tolist():
        rounded[row] = _encoded(field, values[row], row)
    quantised = pl.Series(field.name, rounded)
    return quantised if valid.all() else quantised.set(~valid, None)


def _scaled(values: pl.Series, field: Field) -> pl.Series:
    _refuse(values, _beyond(values, LARGEST_SCALED // 10**field.scale), field)
    scaled: pl.Series = values.cast(pl.Int64) * 10**field.scale
    return scaled.alias(field.name)


def _beyond(values: pl.Series, limit: int) -> pl.Series:
    """Which integers lie beyond -limit to limit, whatever their width."""
    if values.dtype in (pl.UInt64, pl.UInt128):
        return values > limit
    wide = values if values.dtype == pl.Int128 else values.cast(pl.Int64)
    return (wide > limit) | (wide < -limit)


def _refuse(values: pl.Series, wrong: pl.Series, field: Field) -> None:
    """Raise what `Field.encode` says of the first wrong value."""
    if wrong.any():
        row = int(wrong.fill_null(False).arg_max() or 0)
        _encoded(field, values[row], row)
        raise InvalidInput(f"Row {row}: the field {field.name!r} got {values[row]!r}, out of range.", "", "Check the unit, or declare fewer decimals.")


def _encoded(field: Field, value: Any, row: int) -> Any:
    try:
        return field.encode(value)
    except InvalidInput as error:
        raise type(error)(f"Row {row}: {error.came}", error.allowed, error.fix) from None
