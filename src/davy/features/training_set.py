"""Training sets: one row out for each row in, each as it was known at its time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
import polars as pl

from davy.core.digest import digest_json
from davy.core.fields import Field
from davy.engines.offline.base import OfflineEngine, Spine
from davy.errors import InvalidInput, nearest
from davy.features.columns import DECODED, decode_column, encode_column, encode_times

if TYPE_CHECKING:
    from collections.abc import Mapping

    from davy.features.definition import FeatureSet

AsKnown = Literal["ingest", "event"]
TIME = "time"


class Features(pl.DataFrame):
    """A frame of features that is not handed over as an Arrow stream while it holds texts: LightGBM would end the process."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        texts = [name for name, dtype in self.schema.items() if dtype == pl.String]
        if texts:
            raise InvalidInput(f"data.features holds texts: {', '.join(texts)}.", "A model takes numbers; in data.X a text is its code in data.categories.",
                               "Fit on data.X (LightGBM: categorical_feature=data.categorical). For other uses: polars.DataFrame(data.features)")
        return super().__arrow_c_stream__(requested_schema)


@dataclass(frozen=True)
class TrainingSet:
    """Features and labels, and what proves where they came from.

    Attributes:
        frame: the spine's columns, then every feature, typed; one row per row of the spine, in its order.
        columns: the features' names, in the order of the vector.
        kinds: their kinds.
        label: the labels, or None.
        feature_set: the definitions.
        watermarks: per stream the last offset of the log that was looked at.
        as_known: "ingest": each row saw only what had arrived before its time. "event": hindsight, everything that had happened.
        spine_digest, digest: over all rows of the spine; over all rows and columns of the whole set.
    """

    frame: pl.DataFrame
    columns: list[str]
    kinds: list[str]
    label: pl.Series | None
    feature_set: FeatureSet
    watermarks: dict[str, int]
    as_known: AsKnown
    spine_digest: str
    digest: str

    def __len__(self) -> int:
        return self.frame.height

    @cached_property
    def categories(self) -> dict[str, list[str]]:
        """Per text feature its distinct values, sorted: a text's position is its code in `X`."""
        return {name: self.features[name].drop_nulls().unique().sort().to_list() for name, kind in zip(self.columns, self.kinds, strict=True) if kind == "str"}

    @property
    def categorical(self) -> list[int]:
        """The columns of `X` that hold codes of texts."""
        return [index for index, kind in enumerate(self.kinds) if kind == "str"]

    @property
    def features(self) -> Features:
        """The vectors alone, typed, for looking at and computing with. A model learns from `X`, which is what a version is asked with."""
        inner = [f"feature.{name}" if f"feature.{name}" in self.frame.columns else name for name in self.columns]
        return Features(self.frame.select(pl.col(column).alias(name) for column, name in zip(inner, self.columns, strict=True)))

    @cached_property
    def X(self) -> np.ndarray:
        """float64, shape (rows, features): null is NaN, false and true are 0 and 1, texts are their codes."""
        matrix = np.empty((len(self), len(self.columns)), dtype=np.float64)
        for index, (name, series) in enumerate(zip(self.columns, self.features.iter_columns(), strict=True)):
            if name in self.categories:
                codes = {text: float(code) for code, text in enumerate(self.categories[name])}
                series = series.replace_strict(codes, return_dtype=pl.Float64, default=None) if codes else series.cast(pl.Float64)
            matrix[:, index] = series.cast(pl.Float64).fill_null(np.nan).to_numpy()
        return matrix

    @property
    def y(self) -> np.ndarray:
        """The labels, shape (rows,): int64 for bools and ints, float64 for floats, objects for texts.

        Raises:
            InvalidInput: there is no label, or one is null.
        """
        if self.label is None:
            raise InvalidInput("This training set has no labels.", "", "Give the spine the outcome's value.")
        if self.label.null_count():
            raise InvalidInput(
                f"{self.label.null_count()} of {len(self)} labels are null.", "A model learns from known outcomes.", "Filter them out of the spine."
            )
        return (self.label.cast(pl.Int64) if self.label.dtype == pl.Boolean else self.label).to_numpy()


def training_set(
    engine: OfflineEngine,
    feature_set: FeatureSet,
    spine: pl.DataFrame,
    *,
    label: pl.Series | None = None,
    as_known: AsKnown = "ingest",
    watermarks: Mapping[str, int] | None = None,
) -> TrainingSet:
    """Join features to a spine, point in time.

    Args:
        spine: entity keys, request fields and `time` (zoned, or int64 microseconds); further columns are kept.
        label: one per row.
        as_known: see `TrainingSet`.
        watermarks: look at the log only up to these offsets, as an earlier training set did.

    Raises:
        InvalidInput: a column is missing, mistyped, or holds a time without a zone; or a stream's declared history has not been loaded.
    """
    if as_known not in ("ingest", "event"):
        raise InvalidInput(
            f"as_known is {as_known!r}.", "It is 'ingest' (what had arrived) or 'event' (hindsight).", nearest(str(as_known), ["ingest", "event"])
        )
    times = _column(spine, TIME, "its moment")
    micros = encode_times(times, Field(TIME, "time"), events=True).to_numpy()
    if times.null_count():
        raise InvalidInput(f"{times.null_count()} rows of the spine have no time.", "Features are asked for at a moment.", "Filter them out.")
    bounds = {stream.name: min(engine.last_offset(stream), (watermarks or {}).get(stream.name, 1 << 62)) for stream in feature_set.streams}
    for stream in feature_set.streams:
        if stream.source is not None and watermarks is None and bounds[stream.name] == 0:
            raise InvalidInput(f"The stream {stream.name!r} holds no events, though it declares the source {stream.source!r}.",
                               "Its features would be null, or 0, in every row.", f"Load it: davy ingest {stream.name}")
    seen = {}
    for stream in feature_set.streams:
        known = engine.known_at(stream, micros) if as_known == "ingest" else np.full(len(micros), bounds[stream.name], dtype=np.int64)
        seen[stream.name] = np.minimum(known, bounds[stream.name])
    vectors = compute_vectors(engine, feature_set, spine, micros, seen, check_udfs=True)
    names = {name: f"feature.{name}" if name in spine.columns else name for name in vectors.columns}
    frame = spine.hstack(vectors.rename(names).get_columns())
    spine_digest, labels = frame_digest(spine), "" if label is None else frame_digest(label.to_frame())
    if label is not None and "label" not in frame.columns:
        frame = frame.with_columns(label.alias("label"))
    return TrainingSet(
        frame,
        list(feature_set.outputs),
        list(feature_set.kinds),
        label,
        feature_set,
        bounds,
        as_known,
        spine_digest,
        digest_json([feature_set.digest, as_known, bounds, frame_digest(frame), labels]),
    )


def compute_vectors(
    engine: OfflineEngine,
    feature_set: FeatureSet,
    spine: pl.DataFrame,
    times: np.ndarray,
    watermarks: Mapping[str, np.ndarray],
    *,
    check_udfs: bool = False,
) -> pl.DataFrame:
    """The feature vectors of every row as of (time, watermark): what a request at that moment was, or would have been, given.

    Args:
        times: int64 microseconds, shape (rows,).
        watermarks: per stream int64 offsets, shape (rows,).
        check_udfs: compute a sample of the rows of udfs twice, and refuse what comes out differently.

    Returns:
        One column per output, in order, typed.

    Raises:
        UdfFailed: a udf raised, returned another kind, or was not repeatable; names the row.
    """
    given = {field.name: encode_column(_column(spine, field.name, f"a {field.kind}"), field) for field in (*feature_set.entities, *feature_set.request)}
    keys = pl.DataFrame([given[field.name] for field in feature_set.entities])
    columns: dict[str, pl.Series] = {}
    for view in feature_set.views:
        stream = feature_set.stream(view.stream)
        part = Spine(keys.select(view.entity), times, watermarks[stream.name])
        for feature, series in zip(view.features, engine.aggregate(stream, view, part), strict=True):
            columns[feature.name] = series.alias(feature.name)
    for field in (*feature_set.entities, *feature_set.request):
        columns[field.name] = decode_column(given[field.name], field).alias(field.name)
    if feature_set.derived:
        columns |= _derive(feature_set, columns, check_udfs)
    return pl.DataFrame([columns[name] for name in feature_set.outputs])


def _derive(feature_set: FeatureSet, columns: Mapping[str, pl.Series], check_udfs: bool) -> dict[str, pl.Series]:
    """The row kernel over every row: one function, one value at a time, so that training and serving can't differ."""
    from davy.features.expression import compile_kernel

    needed = list(dict.fromkeys(name for spec in feature_set.derived for name in spec.inputs if name in columns))
    kernel = compile_kernel(feature_set.derived, needed)
    length = len(next(iter(columns.values())))
    rows = zip(*(columns[name].to_list() for name in needed), strict=True) if needed else iter([()] * length)
    results = _elsewhere(kernel, list(rows), check_udfs) if feature_set.has_udfs else [kernel(row) for row in rows]
    return {
        spec.name: pl.Series(spec.name, [row[index] for row in results], dtype=DECODED[spec.kind], strict=True)
        for index, spec in enumerate(feature_set.derived)
    }


def _elsewhere(kernel: Any, rows: list[tuple[Any, ...]], check: bool) -> list[list[Any]]:
    found: list[list[Any]] = kernel.many(rows)
    if check:
        kernel.check_repeatable(rows, found)
    return found


def _column(frame: pl.DataFrame, name: str, what: str) -> pl.Series:
    if name not in frame.columns:
        raise InvalidInput(f"The spine has no column {name!r}.", f"Each row needs {what}; {nearest(name, frame.columns)}", f"Add the column {name!r}.")
    return frame[name]


def frame_digest(frame: pl.DataFrame) -> str:
    """A digest over every row and column: names, types, nulls and all bits of the values, in order."""
    found = hashlib.sha256(msgspec.json.encode([frame.height, [(name, str(dtype)) for name, dtype in frame.schema.items()]]))
    for series in frame.iter_columns():
        for part in _buffers(series):
            found.update(part)
    return f"sha256:{found.hexdigest()}"


def _buffers(series: pl.Series) -> list[Any]:
    nulls = series.is_null()
    if series.dtype == pl.Null:
        return []
    if series.dtype.is_nested() or series.dtype in (pl.Object, pl.Binary):
        return [msgspec.json.encode(series.to_list(), enc_hook=str)]
    if isinstance(series.dtype, (pl.Categorical, pl.Enum)):
        series = series.cast(pl.String)
    if series.dtype == pl.String:
        texts = series.fill_null("")
        return [nulls.cast(pl.UInt8).to_numpy(), texts.str.len_bytes().to_numpy(), "".join(texts.to_list()).encode()]
    if isinstance(series.dtype, pl.Decimal):
        series = series.cast(pl.String)
        return _buffers(series)
    physical = series.to_physical()
    return [
        nulls.cast(pl.UInt8).to_numpy(),
        np.ascontiguousarray(
            physical.fill_null(0 if physical.dtype != pl.Boolean else False).cast(pl.UInt8 if physical.dtype == pl.Boolean else physical.dtype).to_numpy()
        ),
    ]
