"""The offline engine of one machine: binary search and slices over sorted runs.

For each row of a spine and each layer of each run, the events seen are one slice: from the floored start of the window
to the first event that is not before t or lies beyond the watermark. Totals of slices are exact integers: 64-bit where
the bounds of the column promise that nothing can overflow, Python's where not.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import field as attribute
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from davy.engines.offline.base import Spine
from davy.engines.offline.runs import Layer, Run, Runs, exclusive
from davy.engines.offline.slices import Slices, bisect
from davy.events.frames import INGEST, OFFSET, table_name
from davy.events.streams import WRITER, Registry, merged
from davy.features import kernel
from davy.features.tiles import NONE_YET as NULL

if TYPE_CHECKING:
    from davy.features.definition import FeatureSpec, StreamSpec, ViewSpec
    from davy.home import Home

DTYPES: dict[str, Any] = {"int": pl.Int64, "float": pl.Float64, "bool": pl.Boolean, "str": pl.String, "time": pl.Int64}


class LocalEngine:
    """Computes views in this process from the event tables of a home."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def last_offset(self, stream: StreamSpec) -> int:
        """What has moved into the table: an event that is newer can't be looked at yet."""
        return max(self.home.table(table_name(stream.name)).committed(WRITER), 0)

    def known_at(self, stream: StreamSpec, times: np.ndarray) -> np.ndarray:
        ingest = self._ingest_times(stream)
        return np.searchsorted(ingest, times, side="left").astype(np.int64)

    def aggregate(self, stream: StreamSpec, view: ViewSpec, spine: Spine) -> list[pl.Series]:
        last = self.last_offset(stream)
        totals = [_Total(feature, len(spine.times)) for feature in view.features]
        if last:
            folder = self.home.place("sorted", stream.name.replace("/", "+"), "+".join(view.entity), "lock").parent
            with Runs(folder, self._whole(stream), view.entity, self.home.table(table_name(stream.name))).upto(last) as runs:
                for run in runs:
                    _add_run(run, view, spine, totals)
        return [_finish(total, stream) for total in totals]

    def forget(self, stream: StreamSpec) -> None:
        """Delete what was derived from the stream's table; the next question builds it anew."""
        folder = self.home.path / "sorted" / stream.name.replace("/", "+")
        for lock in folder.glob("*/lock"):
            with exclusive(lock):
                for run in lock.parent.iterdir():
                    if run.is_dir():
                        shutil.rmtree(run)
        with suppress(FileNotFoundError), exclusive(folder / "ingest.lock"):
            (folder / "ingest.i64").unlink()

    def _whole(self, stream: StreamSpec) -> StreamSpec:
        """The stream with every field that was ever declared, so that two views of different fields share their runs."""
        declared = next((spec for spec in Registry(self.home).load() if spec.name == stream.name), stream)
        return merged(declared, stream)

    def _ingest_times(self, stream: StreamSpec) -> np.ndarray:
        """The ingest time of each offset from 1: int64, shape (events,); kept in a file that grows with the log."""
        path = self.home.place("sorted", stream.name.replace("/", "+"), "ingest.i64")
        last = self.last_offset(stream)
        with exclusive(path.with_suffix(".lock")), path.open("ab") as file:
            have = file.tell() // 8
            if have * 8 != file.tell():
                file.truncate(have * 8)
            if have < last:
                table = self.home.table(table_name(stream.name))
                chosen = table.scan().filter(pl.col(OFFSET).is_between(have + 1, last))
                new = table.collect(chosen.select(OFFSET, pl.col(INGEST).cast(pl.Int64))).sort(OFFSET)
                file.write(np.ascontiguousarray(new[INGEST].to_numpy()).tobytes())
                file.flush()
                os.fsync(file.fileno())
        return np.fromfile(path, dtype=np.int64) if last else np.empty(0, dtype=np.int64)


@dataclass
class _Total:
    """What one feature has gathered so far, one entry per row of the spine."""

    feature: FeatureSpec
    rows: int
    count: np.ndarray = attribute(init=False)
    total: np.ndarray = attribute(init=False)
    squares: np.ndarray = attribute(init=False)
    extreme: np.ndarray = attribute(init=False)
    last: tuple[np.ndarray, np.ndarray, np.ndarray] = attribute(init=False)
    texts: list[pl.Series] = attribute(default_factory=list)

    def __post_init__(self) -> None:
        self.count = np.zeros(self.rows, dtype=np.int64)
        self.total = np.zeros(self.rows, dtype=np.int64)
        self.squares = np.zeros(self.rows, dtype=np.int64)
        self.extreme = np.full(self.rows, NULL, dtype=np.int64)
        self.last = (np.full(self.rows, NULL, dtype=np.int64), np.zeros(self.rows, dtype=np.int64), np.full(self.rows, NULL, dtype=np.int64))


def _add_run(run: Run, view: ViewSpec, spine: Spine, totals: list[_Total]) -> None:
    found = spine.keys.join(run.keys.with_row_index("_code"), on=run.keys.columns, how="left", maintain_order="left")["_code"]
    rows = np.flatnonzero(found.is_not_null().to_numpy())
    if not len(rows):
        return
    codes = found.cast(pl.Int64).fill_null(-1).to_numpy()[rows]
    order = np.lexsort((spine.times[rows], codes))
    rows, codes = rows[order], codes[order]
    times, watermarks = spine.times[rows], spine.watermarks[rows]
    for layer in run.layers:
        _add_layer(run, layer, (rows, codes, times, watermarks), totals)


def _add_layer(run: Run, layer: Layer, queries: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], totals: list[_Total]) -> None:
    rows, codes, times, watermarks = queries
    start, end = layer.starts[codes], layer.starts[codes + 1]
    clock, offsets = layer.column("_time"), layer.column("_offset")
    upper = bisect(clock, start, end, times)
    if not layer.loose:
        upper = np.minimum(upper, bisect(offsets, start, end, watermarks + 1))
    lowers: dict[tuple[int, int], np.ndarray] = {}
    by_field: dict[str | None, list[_Total]] = {}
    for total in totals:
        by_field.setdefault(total.feature.field, []).append(total)
        feature = total.feature
        key = (feature.window or 0, feature.hop)
        if feature.window is not None and key not in lowers:
            lowers[key] = bisect(clock, start, upper, (times - feature.window) // feature.hop * feature.hop)
    visible = (offsets, watermarks) if layer.loose else None
    for name, group in by_field.items():
        values = Slices(layer, name, run.manifest.columns[name] if name else None, visible)
        for total in group:
            feature = total.feature
            lower = start if feature.window is None else lowers[feature.window, feature.hop]
            if feature.aggregate == "last":
                text = name is not None and (run.folder / f"{name}.arrow").exists()
                _add_last(total, rows, times, values.last(lower, upper), clock, offsets, run.texts(name) if text and name else None)
            else:
                _add_slices(total, rows, values, lower, upper)


def _add_slices(total: _Total, rows: np.ndarray, values: Slices, lower: np.ndarray, upper: np.ndarray) -> None:
    aggregate = total.feature.aggregate
    if aggregate in ("min", "max"):
        found = values.extreme(lower, upper, aggregate == "max")
        known, seen = total.extreme[rows], found != NULL
        better = seen & ((known == NULL) | (found > known if aggregate == "max" else found < known))
        total.extreme[rows] = np.where(better, found, known)
        return
    total.count[rows] += values.count(lower, upper)
    if aggregate != "count":
        total.total = _added(total.total, rows, values.total(lower, upper))
    if aggregate == "std":
        total.squares = _added(total.squares, rows, values.squares(lower, upper))


def _added(totals: np.ndarray, rows: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Exact sums: in 64 bits as long as these suffice, in Python's integers from then on."""
    if totals.dtype != object and more.dtype != object:
        known = totals[rows]
        raised = known + more
        if not (((known ^ raised) & (more ^ raised)) < 0).any():
            totals[rows] = raised
            return totals
    totals = totals.astype(object)
    totals[rows] += more.astype(object)
    return totals


def _add_last(
    total: _Total, rows: np.ndarray, times: np.ndarray, found: tuple[np.ndarray, np.ndarray], clock: np.ndarray, offsets: np.ndarray, texts: pl.Series | None
) -> None:
    at, value = found
    seen = at >= 0
    when, offset = np.where(seen, clock[at], NULL), offsets[at]
    if total.feature.ttl is not None:
        seen &= when >= times - total.feature.ttl
    known_when, known_offset, known = (column[rows] for column in total.last)
    better = seen & ((when > known_when) | ((when == known_when) & (offset > known_offset)))
    if texts is not None:
        value = value + sum(map(len, total.texts))
        total.texts.append(texts)
    for column, new, old in zip(total.last, (when, offset, value), (known_when, known_offset, known), strict=True):
        column[rows] = np.where(better, new, old)


def _finish(total: _Total, stream: StreamSpec) -> pl.Series:
    feature = total.feature
    if feature.aggregate == "count":
        return pl.Series(feature.name, total.count)
    assert feature.field is not None
    field = stream.field(feature.field)
    dtype = DTYPES[kernel.output_kind(feature, field)]
    if feature.aggregate in ("sum", "mean", "std"):
        values, valid = kernel.finalise_many(feature, field, total.count, total.total, total.squares)
        series = pl.Series(feature.name, values, dtype=dtype)
        return series if valid.all() else series.to_frame().select(pl.when(pl.Series("_", valid)).then(pl.col(feature.name)).alias(feature.name)).to_series()
    raw = total.last[2] if feature.aggregate == "last" else total.extreme
    valid = raw != NULL
    if field.kind == "str":
        texts = pl.concat(total.texts) if total.texts else pl.Series(dtype=pl.String)
        return (
            texts.gather(pl.Series(np.where(valid, raw, 0)).set(pl.Series(~valid), None)).alias(feature.name)
            if len(texts)
            else pl.Series(feature.name, [None] * len(raw), dtype=dtype)
        )
    if field.kind in ("float", "decimal"):
        decoded = kernel.divide_many(np.where(valid, raw, 0), np.full(len(raw), 10**field.scale, dtype=np.int64))
        series = pl.Series(feature.name, decoded)
    else:
        series = pl.Series(feature.name, np.where(valid, raw, 0)).cast(dtype)
    return series if valid.all() else series.set(pl.Series(~valid), None)
