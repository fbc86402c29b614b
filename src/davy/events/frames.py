"""Events between their stored form (integers and text) and the typed columns of a stream's Delta table.

The table has `_offset` (Int64), `_ingest_time` and the event time (microseconds in UTC), then the fields: int as Int64, float and
decimal as Decimal(18, scale), which is exact, bool, str, and time in UTC.
"""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from davy.core.fields import Field
from davy.features.definition import EventBatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from davy.features.definition import StreamSpec

OFFSET, INGEST = "_offset", "_ingest_time"
TIME = pl.Datetime("us", "UTC")


def table_name(stream: str) -> str:
    """Where the stream's table lies below the home's tables."""
    return stream if stream.startswith("outcomes/") else f"events/{stream}"


def stored_type(field: Field) -> Any:
    """The polars type of the field's stored form."""
    return pl.String if field.kind == "str" else pl.Int64


def stored_frame(spec: StreamSpec, batches: Iterable[EventBatch]) -> pl.DataFrame:
    """The batches as one frame of offsets, ingest times, event times and fields, all in stored form."""
    parts = []
    for batch in batches:
        count = len(batch)
        columns = [pl.Series(OFFSET, np.arange(batch.first_offset, batch.first_offset + count, dtype=np.int64)),
                   pl.Series(INGEST, batch.ingest, dtype=pl.Int64), pl.Series(spec.time, batch.times, dtype=pl.Int64)]
        columns += [pl.Series(field.name, batch.columns[field.name], dtype=stored_type(field)) if field.name in batch.columns
                    else pl.Series(field.name, [None] * count, dtype=stored_type(field)) for field in spec.fields]
        parts.append(pl.DataFrame(columns))
    return pl.concat(parts)


def typed(spec: StreamSpec, stored: pl.DataFrame) -> pl.DataFrame:
    """A stored frame in the table's types."""
    return stored.select(pl.col(OFFSET), pl.col(INGEST).cast(TIME), pl.col(spec.time).cast(TIME), *(_typed(field) for field in spec.fields))


def untyped(spec: StreamSpec, frame: pl.DataFrame) -> pl.DataFrame:
    """A frame of the table back in stored form; a declared field that the table lacks is null."""
    present = set(frame.columns)
    fields = [(untyped_field(field) if field.name in present else pl.lit(None, dtype=stored_type(field)).alias(field.name)) for field in spec.fields]
    return frame.select(pl.col(OFFSET), pl.col(INGEST).cast(pl.Int64), pl.col(spec.time).cast(pl.Int64), *fields)


def batches(spec: StreamSpec, stored: pl.DataFrame, *, rows: int = 50_000) -> Iterator[EventBatch]:
    """A stored frame, in the order of its offsets, as batches."""
    for start in range(0, stored.height, rows):
        part = stored.slice(start, rows)
        values = {field.name: part[field.name].to_list() for field in spec.fields}
        ids = None if spec.id is None else part[spec.id].cast(pl.String).to_list()
        yield EventBatch(spec.name, int(part[OFFSET][0]), part[INGEST].to_list(), part[spec.time].to_list(), values, ids)


class ContentDigest:
    """SHA-256 over the events of stored frames, given in the order of the log: independent of how they are cut into chunks."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Any]] = {}
        self._filled: set[str] = set()

    def update(self, stored: pl.DataFrame) -> None:
        """Take in the next events."""
        for column in stored.get_columns():
            if column.name not in self._parts:
                self._parts[column.name] = [hashlib.sha256() for _ in range(3)]
            nulls, values, texts = self._parts[column.name]
            if column.null_count() < len(column):
                self._filled.add(column.name)
            nulls.update(column.is_null().to_numpy().astype(np.uint8).tobytes())
            if column.dtype == pl.String:
                filled = column.fill_null("")
                values.update(filled.str.len_bytes().to_numpy().astype("<u4").tobytes())
                texts.update((filled.str.join("")[0] if len(filled) else "").encode())
            else:
                values.update(column.fill_null(0).to_numpy().astype("<i8").tobytes())

    def hexdigest(self) -> str:
        """64 hex digits. Columns that were null throughout count as absent, so that a field that is declared later changes nothing."""
        whole = hashlib.sha256()
        for name in sorted(self._filled):
            whole.update("\n".join([name, *(part.hexdigest() for part in self._parts[name]), ""]).encode())
        return whole.hexdigest()


def _typed(field: Field) -> pl.Expr:
    column = pl.col(field.name)
    if field.kind in ("float", "decimal"):
        unit = pl.lit(Decimal(1).scaleb(-field.scale), dtype=pl.Decimal(38, field.scale))
        return (column.cast(pl.Decimal(38, 0)) * unit).cast(pl.Decimal(18, field.scale)).alias(field.name)
    if field.kind == "time":
        return column.cast(TIME)
    return column.cast(pl.Boolean) if field.kind == "bool" else column


def untyped_field(field: Field) -> pl.Expr:
    """A column of the table back in stored form."""
    column = pl.col(field.name)
    if field.kind in ("float", "decimal"):
        return column.to_physical().cast(pl.Int64)
    return column if field.kind == "str" else column.cast(pl.Int64)
