"""What a run leaves behind so that it can be trained again and compared: `training.json`, and the training set itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from davy.features.training_set import AsKnown, frame_digest
from davy.registry.signature import Output

if TYPE_CHECKING:
    from davy.features.training_set import TrainingSet

ARTIFACT, ROWS, TEST_ROWS = "training.json", "training_set.parquet", "test_set.parquet"
LARGEST_FRAME, LARGEST_FILE = 4 << 30, 512 << 20


class DataRecord(msgspec.Struct, frozen=True):
    """A training set by its digests.

    Attributes:
        watermarks: per stream the last offset of the log that was looked at.
        columns: name -> digest over all rows, of every column: spine, features, label.
        spine_columns: those that the spine had.
    """

    digest: str
    spine_digest: str
    feature_set: str
    rows: int
    as_known: AsKnown
    start: int | None
    end: int | None
    watermarks: dict[str, int]
    columns: dict[str, str]
    spine_columns: tuple[str, ...]


class TrainingRecord(msgspec.Struct, frozen=True):
    """A training by its inputs and results. `model_digest` is of the model's own file, `predictions` of its answers for every row.

    `test` describes the held-out rows, on which versions are compared later.
    """

    model: str
    parameters: dict[str, Any]
    seed: int
    data: DataRecord
    format: str
    output: Output
    classes: tuple[Any, ...]
    files: dict[str, str]
    model_digest: str
    predictions: str
    capture: str
    test_start: int | None = None
    test_end: int | None = None
    test: DataRecord | None = None

    def to_json(self) -> bytes:
        """The artifact's bytes, indented for people."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic", enc_hook=str), indent=2)

    @staticmethod
    def from_json(data: bytes) -> TrainingRecord:
        """A record as `to_json` wrote it; keys of later versions are passed over."""
        return msgspec.json.decode(data, type=TrainingRecord)


def describe(data: TrainingSet, spine: pl.DataFrame, start: int | None, end: int | None) -> DataRecord:
    """The record of a training set that was built from `spine`."""
    columns = {name: frame_digest(data.frame.select(name)) for name in data.frame.columns}
    return DataRecord(data.digest, data.spine_digest, data.feature_set.digest, len(data), data.as_known, start, end, dict(data.watermarks), columns,
                      tuple(spine.columns))


def write_rows(frame: pl.DataFrame, folder: Path, name: str = ROWS) -> Path | None:
    """The frame as a Parquet file in `folder`, or None when it is too large to be kept with every run, or Parquet has no such type."""
    if frame.estimated_size() > LARGEST_FRAME or any(dtype == pl.Object for dtype in frame.dtypes):
        return None
    path = folder / name
    frame.write_parquet(path, compression="zstd", compression_level=1)
    if path.stat().st_size > LARGEST_FILE:
        path.unlink()
        return None
    return path


def first_difference(before: pl.DataFrame, now: pl.DataFrame) -> str | None:
    """The first row (from 0), and in it the first column, whose values differ, in a sentence; None when all are equal.

    Missing and additional columns, another type and another number of rows are told before any row.
    """
    for name in before.columns:
        if name not in now.columns:
            return f"the column {name!r} is gone"
        if before.schema[name] != now.schema[name]:
            return f"the column {name!r} is {now.schema[name]} and was {before.schema[name]}"
    new = [name for name in now.columns if name not in before.columns]
    if new:
        return f"the column {new[0]!r} is new"
    found: tuple[int, str] | None = None
    rows = min(before.height, now.height)
    for name in before.columns:
        old, other = before[name].head(rows), now[name].head(rows)
        differs = old.ne_missing(other)
        if differs.any():
            row = int(differs.arg_max() or 0)
            if found is None or row < found[0]:
                found = (row, name)
    if found is not None:
        row, name = found
        return f"row {row}, column {name!r}: {now[name][row]!r} now, {before[name][row]!r} then"
    if before.height != now.height:
        return f"{now.height:,} rows now, {before.height:,} then; the first {rows:,} are equal"
    for name in before.columns:
        if frame_digest(before.select(name)) != frame_digest(now.select(name)):
            return f"the column {name!r} has equal values and other bits (such as -0.0 and 0.0)"
    return None
