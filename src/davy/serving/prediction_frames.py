"""Predictions as polars frames and back: the vector as a struct of typed columns, so that any engine can read it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from davy.core.time import EPOCH, MICROSECOND
from davy.serving.predictions import OK, PredictionRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from davy.core.fields import Kind
    from davy.features.definition import FeatureSet
    from davy.store.tables import Table

_MISFIT = (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError)
_TIME = pl.Datetime("us", "UTC")
_TYPES: dict[Kind, Any] = {"int": pl.Int64, "float": pl.Float64, "decimal": pl.Float64, "str": pl.String, "bool": pl.Boolean, "time": _TIME}
_PLAIN: dict[str, Any] = {"prediction": pl.String, "time": _TIME, "logged_time": _TIME, "model": pl.String, "version": pl.Int64, "arm": pl.String,
                          "pinned": pl.Boolean, "routing_key": pl.String, "feature_set": pl.String}
_LAST: dict[str, Any] = {"output": pl.Float64, "output_json": pl.String, "latency_us": pl.Int64, "features_us": pl.Int64, "model_us": pl.Int64,
                         "kernel": pl.String, "share": pl.Float64, "status": pl.String, "release": pl.String, "answered": pl.String}
_ADDED: dict[str, Any] = {"share": 1.0, "status": OK, "release": "", "answered": ""}


def to_frame(records: Sequence[PredictionRecord], feature_set: FeatureSet) -> pl.DataFrame:
    """One row for each record, in order, with the columns that `read_predictions` lists."""
    columns: dict[str, pl.Series] = {}
    for name, values in zip(_PLAIN, zip(*((r.id, r.time, r.logged, r.model, r.version, r.arm, r.pinned, r.routing_key, r.feature_set) for r in records),
                                        strict=True), strict=True):
        columns[name] = _series(name, values, _PLAIN[name])
    entities = {field.name: _TYPES[field.kind] for field in feature_set.entities}
    request = {field.name: _TYPES[field.kind] for field in feature_set.request}
    streams = dict.fromkeys(sorted({view.stream for view in feature_set.views}), pl.Int64)
    _add_struct(columns, "entities", entities, [[r.entities.get(name) for name in entities] for r in records])
    _add_struct(columns, "request", request, [[r.request.get(name) for name in request] for r in records])
    _add_struct(columns, "watermarks", streams, [[r.watermarks.get(name) for name in streams] for r in records])
    features = {name: _TYPES[kind] for name, kind in zip(feature_set.outputs, feature_set.kinds, strict=True)}
    _add_struct(columns, "features", features, [r.values for r in records])
    numbers = [_is_number(r.output) for r in records]
    columns["output"] = pl.Series("output", [float(r.output) if number else None for r, number in zip(records, numbers, strict=True)], pl.Float64)
    columns["output_json"] = pl.Series("output_json", [None if number else msgspec.json.encode(r.output).decode()
                                                       for r, number in zip(records, numbers, strict=True)], pl.String)
    for name, values in zip(("latency_us", "features_us", "model_us"), zip(*((r.latency, r.features, r.model_time) for r in records), strict=True),
                            strict=True):
        columns[name] = pl.Series(name, values, pl.Int64)
    for name in ("kernel", *_ADDED):
        columns[name] = pl.Series(name, [getattr(r, name) for r in records], _LAST[name])
    return pl.DataFrame(columns)


def fitting(records: Sequence[PredictionRecord], feature_set: FeatureSet) -> tuple[pl.DataFrame | None, list[int]]:
    """`to_frame` of the records that fit the feature set, None without any, and the positions of those that don't.

    A record doesn't fit when it has another number of values, or one of another kind.
    """
    if not records:
        return None, []
    width = len(feature_set.outputs)
    with suppress(*_MISFIT):
        if all(len(record.values) == width for record in records):
            return to_frame(records, feature_set), []
    misfits = [position for position, record in enumerate(records) if len(record.values) != width or not _fits(record, feature_set)]
    apart = set(misfits)
    fit = [record for position, record in enumerate(records) if position not in apart]
    return to_frame(fit, feature_set) if fit else None, misfits


def _fits(record: PredictionRecord, feature_set: FeatureSet) -> bool:
    try:
        to_frame([record], feature_set)
    except _MISFIT:
        return False
    return True


def gather(table: Table, feature_set: FeatureSet, pending: Sequence[PredictionRecord], *, start: int | None, end: int | None,
           version: int | None) -> pl.DataFrame | None:
    """Stored and pending predictions of one table, each once."""
    wanted = pl.lit(True)
    if start is not None:
        wanted = wanted & (pl.col("time") >= EPOCH + start * MICROSECOND)
    if end is not None:
        wanted = wanted & (pl.col("time") < EPOCH + end * MICROSECOND)
    if version is not None:
        wanted = wanted & (pl.col("version") == version)
    parts = [table.scan().filter(wanted).collect()] if table.exists() else []
    if pending:
        frame, _ = fitting(pending, feature_set)  # the next flush sets the others aside, and says so
        parts += [] if frame is None else [frame.filter(wanted)]
    if not parts:
        return None
    return completed(pl.concat(parts, how="diagonal")).unique("prediction", keep="first").sort("time", "prediction")


def completed(frame: pl.DataFrame) -> pl.DataFrame:
    """With the columns that rows of an older version of Davy lack."""
    return frame.with_columns((pl.col(name).fill_null(value) if name in frame.columns else pl.lit(value)).alias(name) for name, value in _ADDED.items())


def find_row(table: Table, feature_set: FeatureSet, id: str) -> PredictionRecord | None:
    """The stored prediction with this id."""
    if not table.exists():
        return None
    frame = table.scan().filter(pl.col("prediction") == id).head(1).collect()
    return to_records(frame, feature_set)[0] if frame.height else None


def to_records(frame: pl.DataFrame, feature_set: FeatureSet) -> list[PredictionRecord]:
    """The records that these rows were made of; the inverse of `to_frame`, bit for bit."""
    plain = completed(frame).with_columns(pl.col("time", "logged_time").dt.epoch("us"))
    entities, request = [field.name for field in feature_set.entities], [field.name for field in feature_set.request]
    parts = {name: _rows(frame, name) for name in ("entities", "request", "watermarks", "features")}
    found = []
    for index, row in enumerate(plain.drop(name for name in parts if name in plain.columns).iter_rows(named=True)):
        here = {name: rows[index] for name, rows in parts.items()}
        output = row["output"] if row["output_json"] is None else msgspec.json.decode(row["output_json"])
        found.append(PredictionRecord(
            row["prediction"], row["time"], row["logged_time"], row["model"], row["version"], row["arm"], row["pinned"], row["routing_key"], row["feature_set"],
            {name: here["entities"].get(name) for name in entities}, {name: here["request"].get(name) for name in request},
            {name: offset for name, offset in here["watermarks"].items() if offset is not None}, [here["features"].get(name) for name in feature_set.outputs],
            output, row["latency_us"], row["features_us"], row["model_us"], row["kernel"], row["share"], row["status"], row["release"], row["answered"]))
    return found


def _rows(frame: pl.DataFrame, name: str) -> list[dict[str, Any]]:
    """A struct column's rows, times as microseconds."""
    if name not in frame.columns:
        return [{}] * frame.height
    inner = frame[name].struct.unnest()
    times = [column for column, kind in inner.schema.items() if kind == _TIME]
    return inner.with_columns(pl.col(times).dt.epoch("us")).to_dicts() if times else inner.to_dicts()


def _add_struct(columns: dict[str, pl.Series], name: str, types: dict[str, Any], rows: list[list[Any]]) -> None:
    if types:
        series = [_series(field, [row[index] for row in rows], kind) for index, (field, kind) in enumerate(types.items())]
        columns[name] = pl.DataFrame(series).to_struct(name)


def _series(name: str, values: Sequence[Any], kind: Any) -> pl.Series:
    if kind == _TIME:
        return pl.Series(name, values, pl.Int64).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if kind == pl.Float64:
        values = [None if value is None else float(value) for value in values]
    return pl.Series(name, values, kind)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
