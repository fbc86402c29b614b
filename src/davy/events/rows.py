"""Rows as they are pushed, into columns in stored form: `Field.encode` for many values at once, with the same results.

A row is a mapping from field to value. The time, and the id where the stream has one, must be there; another field that is
absent is null. What the stream does not declare is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from davy.core.fields import LARGEST_INT, ONE_PRODUCT, Field, plain
from davy.core.time import LATEST_INT, SOONEST_INT, event_micros
from davy.errors import InvalidInput, InvalidTime, nearest
from davy.events.records import Column, Rows
from davy.features.definition import StreamSpec


def encode_rows(spec: StreamSpec, rows: Sequence[Mapping[str, Any]]) -> Rows:
    """The columns of these rows.

    Raises:
        InvalidInput: an unknown field, a missing time or id, another type, NaN or out of range; names the row (from 0) and the field.
    """
    _refuse_unknown(spec, rows)
    times = _encode_times(spec, rows)
    columns = {field.name: encode_values(field, [row.get(field.name) for row in rows]) for field in spec.fields}
    ids = None
    if spec.id is not None:
        column = columns[spec.id]
        if None in column:
            raise InvalidInput(f"Row {column.index(None)} has no {spec.id!r}.", f"{spec.id!r} is the id of the stream {spec.name!r}.",
                               "Send it with every event.")
        ids = [value if isinstance(value, str) else str(value) for value in column]
    return Rows(times, columns, ids)


def encode_values(field: Field, values: list[Any]) -> Column:
    """`[field.encode(value) for value in values]`, in a fraction of the time where all are of the declared type.

    Raises:
        InvalidInput: names the first wrong row (from 0).
    """
    kinds = set(map(type, values))
    holes = type(None) in kinds
    kinds.discard(type(None))
    encoded: Any = None
    if not kinds:
        return values
    if field.kind == "int" and kinds == {int}:
        encoded = values if _within(values, holes, LARGEST_INT) else None
    elif field.kind in ("float", "decimal") and kinds == {float}:
        encoded = _quantised(values, holes, field.scale)
    elif field.kind == "str" and kinds == {str}:
        encoded = values if _writable(values, holes) else None
    elif field.kind == "bool" and kinds == {bool}:
        encoded = [None if value is None else int(value) for value in values] if holes else list(map(int, values))
    if encoded is None:
        encoded = [_one(field, value, row) for row, value in enumerate(values)]
    column: Column = encoded
    return column


def _quantised(values: list[Any], holes: bool, scale: int) -> list[Any] | None:
    """None where one is NaN, infinite, or so large that `Field.encode` computes it exactly."""
    power = float(10**scale)
    try:
        scaled = [None if value is None else round(value * power) for value in values] if holes else [round(value * power) for value in values]
    except (ValueError, OverflowError):
        return None
    return scaled if _within(scaled, holes, int(ONE_PRODUCT) - 1) else None


def _within(values: list[Any], holes: bool, limit: int) -> bool:
    present: list[int] = [value for value in values if value is not None] if holes else values
    return min(present) >= -limit and max(present) <= limit


def _writable(values: list[Any], holes: bool) -> bool:
    try:
        "".join([value for value in values if value is not None] if holes else values).encode()
    except UnicodeEncodeError:
        return False
    return True


def _one(field: Field, value: Any, row: int) -> Any:
    try:
        stored = field.encode(value)
    except InvalidInput as error:
        raise _in_row(error, row) from None
    if isinstance(stored, str) and not _writable([stored], False):
        raise InvalidInput(f"Row {row}: the field {field.name!r} got {stored!r}, which is not valid text.", "Text is Unicode without lone surrogates.",
                           "Decode the bytes with their right encoding.")
    return stored


def _encode_times(spec: StreamSpec, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    values: list[Any] = [row.get(spec.time) for row in rows]
    if set(map(type, values)) == {int} and min(values) >= SOONEST_INT and max(values) < LATEST_INT:
        return values
    times = []
    for row, value in enumerate(values):
        if value is None:
            raise InvalidTime(f"Row {row} has no {spec.time!r}.", f"{spec.time!r} is the time of the stream {spec.name!r}.", "Send it with every event.")
        try:
            times.append(event_micros(plain(value)))
        except InvalidInput as error:
            raise _in_row(error, row) from None
    return times


def _refuse_unknown(spec: StreamSpec, rows: Sequence[Mapping[str, Any]]) -> None:
    known = {spec.time, *(field.name for field in spec.fields)}
    for row, mapping in enumerate(rows):
        if type(mapping) is not dict and not isinstance(mapping, Mapping):
            raise InvalidInput(f"Row {row} is {mapping!r}.", "A row is an object with the stream's fields.", f"Known fields: {', '.join(sorted(known))}.")
        if not known >= mapping.keys():
            name = sorted(str(key) for key in mapping.keys() - known)[0]
            raise InvalidInput(f"Row {row} has the unknown field {name!r}.", nearest(name, known),
                               f"Rename or remove it, or declare it on the stream {spec.name!r}.")


def _in_row(error: InvalidInput, row: int) -> InvalidInput:
    return type(error)(f"Row {row}: {error.came}", error.allowed, error.fix)
