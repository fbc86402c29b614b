"""A home whose event table is a frame: the offline engine alone, without a log."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from davy.features.definition import EventBatch, StreamSpec


class FrameTable:
    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame

    uri = "a frame"

    def scan(self) -> pl.LazyFrame:
        return self.frame.lazy()

    def collect(self, lazy: pl.LazyFrame) -> pl.DataFrame:
        return lazy.collect()

    def committed(self, writer: str) -> int:
        return int(self.frame["_offset"].max() or 0)  # type: ignore[arg-type]


class FrameLog:
    """Stands where a `Home` does: a place for files, and the table."""

    def __init__(self, folder: Path, stream: StreamSpec, batches: list[EventBatch]) -> None:
        self.folder = folder
        self.frame = pl.concat([as_table(stream, batch) for batch in batches])

    def place(self, *parts: str) -> Path:
        path = self.folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def table(self, name: str) -> FrameTable:
        return FrameTable(self.frame)


def as_table(stream: StreamSpec, batch: EventBatch) -> pl.DataFrame:
    """The batch as the event table stores it."""
    columns = {
        "_offset": pl.Series(range(batch.first_offset, batch.last_offset + 1), dtype=pl.Int64),
        "_ingest_time": pl.Series(batch.ingest, dtype=pl.Int64).cast(pl.Datetime("us", "UTC")),
        stream.time: pl.Series(batch.times, dtype=pl.Int64).cast(pl.Datetime("us", "UTC")),
    }
    frame = pl.DataFrame(columns)
    for field in stream.fields:
        stored = pl.Series(field.name, batch.columns[field.name], dtype=pl.String if field.kind == "str" else pl.Int64)
        if field.kind in ("float", "decimal"):
            power = pl.lit(f"0.{'0' * (field.scale - 1)}1" if field.scale else "1").cast(pl.Decimal(38, field.scale))
            frame = frame.with_columns(
                (stored.to_frame().select(pl.col(field.name).cast(pl.Decimal(38, 0)) * power)).to_series().cast(pl.Decimal(18, field.scale)).alias(field.name)
            )
        else:
            frame = frame.with_columns(stored.cast(pl.Boolean) if field.kind == "bool" else stored)
    return frame
