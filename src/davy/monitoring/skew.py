"""Skew: whether serving's vectors are what the log says they should have been. Lateness is a number of its own, beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl

from davy.engines.offline.local import LocalEngine
from davy.events import client, frames, segments
from davy.features.kernel import code_digest
from davy.features.replay import Change, Difference, Served, differences, lateness
from davy.serving.predictions import feature_set_of, read_predictions, with_vector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from davy.features.definition import FeatureSet, StreamSpec
    from davy.home import Home

DEFINITION, EVENT, CODE, STATE = "definition changed", "event altered", "code changed", "state damaged"


class Skew(msgspec.Struct, frozen=True):
    """One value that was served and is not what the log gives, with its cause."""

    prediction: str
    feature: str
    served: Any
    recomputed: Any
    cause: str


class Replay(msgspec.Struct, frozen=True):
    """What a replay found.

    Attributes:
        checked, equal: vectors.
        different: values, each with its cause.
        lateness: per stream how long events took to arrive (microseconds) and how many were late, and per feature how
            many vectors would differ had everything been known in time.
    """

    checked: int
    equal: int
    different: list[Skew]
    lateness: dict[str, Any]


def replay(home: Home, model: str, *, start: int | None = None, end: int | None = None, version: int | None = None) -> Replay:
    """Compute every logged vector of a model again, as of its time and watermarks, and compare all bits.

    The log is checked against the digests that were recorded when its events were written. A difference stands only when
    the files that were derived from the log, made anew, give it too.

    Args:
        start, end: microseconds; only predictions with start <= time < end.
        version: only predictions of this version.
    """
    predictions = read_predictions(home, model, start=start, end=end, version=version)
    with client.connect(home) as log:  # after the predictions were read, so that every event behind them is in the tables
        log.flush()
        declared = log.streams()
    engine, damaged = LocalEngine(home), dict[str, list[segments.Segment]]()
    checked, found, unequal = 0, [], 0
    changes: dict[str, Change] = {}
    spans: dict[str, tuple[StreamSpec, int, int]] = {}
    for digest, logged in predictions.items():
        frame = with_vector(logged)
        if not frame.height:
            continue
        feature_set = feature_set_of(home, digest, verified=False)
        served = as_served(feature_set, frame)
        for stream in feature_set.streams:
            if stream.name not in damaged:  # the digests are over all fields, not just this model's
                damaged[stream.name] = segments.altered(home, declared.get(stream.name, stream), home.table(frames.table_name(stream.name)))
                if damaged[stream.name]:
                    engine.forget(stream)
        wrong = differences(engine, feature_set, served)
        if wrong:
            for stream in feature_set.streams:
                engine.forget(stream)
            wrong = differences(engine, feature_set, served)
        found += _explained(feature_set, damaged, digest, frame, served, wrong)
        checked += frame.height
        unequal += len({difference.row for difference in wrong})
        for name, change in lateness(engine, feature_set, served).items():
            changes[name] = changes[name] + change if name in changes else change
        for stream in feature_set.streams:
            _, first, last = spans.get(stream.name, (stream, 1 << 62, -(1 << 62)))
            spans[stream.name] = stream, min(first, int(served.times.min())), max(last, int(served.times.max()))
    late = {
        "streams": {name: _arrivals(home, stream, first, last) for name, (stream, first, last) in spans.items()},
        "features": {name: change.summary() for name, change in changes.items()},
    }
    return Replay(checked, checked - unequal, found, late)


def as_served(feature_set: FeatureSet, frame: pl.DataFrame) -> Served:
    """Logged predictions as columns."""
    given = [frame[name].struct.unnest() for name in ("entities", "request") if name in frame.columns]
    marks = frame["watermarks"].struct.unnest() if "watermarks" in frame.columns else pl.DataFrame()
    times = frame["time"].dt.epoch("us").to_numpy()
    watermarks = {name: marks[name].fill_null(0).to_numpy() for name in marks.columns}
    values = frame["features"].struct.unnest()
    plain = values.with_columns(pl.col(name).dt.epoch("us") for name, kind in zip(feature_set.outputs, feature_set.kinds, strict=True) if kind == "time")
    return Served(frame["prediction"].to_list(), pl.concat(given, how="horizontal"), times, watermarks, plain)


def _explained(
    feature_set: FeatureSet, damaged: Mapping[str, list[segments.Segment]], digest: str, frame: pl.DataFrame, served: Served, wrong: list[Difference]
) -> list[Skew]:
    """Each difference with its cause: definition, event and code are checked in this order; what is left is the state's."""
    if not wrong:
        return []
    redefined = feature_set.sealed().digest != digest or any(view.sealed(feature_set.stream(view.stream)).digest != view.digest for view in feature_set.views)
    streams = _streams_behind(feature_set)
    kernels, now = frame["kernel"].to_list(), code_digest()

    def cause(difference: Difference) -> str:
        if redefined:
            return DEFINITION
        for stream in streams[difference.feature]:
            watermark = int(served.watermarks[stream][difference.row])
            if any(segment.first_offset <= watermark for segment in damaged[stream]):
                return EVENT
        return STATE if kernels[difference.row] == now else CODE

    return [Skew(served.ids[item.row], item.feature, item.served, item.recomputed, cause(item)) for item in wrong]


def _streams_behind(feature_set: FeatureSet) -> dict[str, set[str]]:
    """Per output the streams that it is computed from."""
    behind = {feature.name: {view.stream} for view in feature_set.views for feature in view.features}
    behind |= {field.name: set() for field in (*feature_set.entities, *feature_set.request)}
    for spec in feature_set.derived:
        behind[spec.name] = set().union(*(behind[name] for name in spec.inputs)) if spec.inputs else set()
    return behind


def _arrivals(home: Home, stream: StreamSpec, first: int, last: int) -> dict[str, Any]:
    """How long the events that came between the first and the last prediction took to arrive; late is more than the stream's delay and tolerance."""
    table = home.table(frames.table_name(stream.name))
    if not table.exists():
        return {"events": 0, "late": 0}
    span = pl.col(frames.INGEST).dt.epoch("us").is_between(first, last)
    delays = (pl.col(frames.INGEST) - pl.col(stream.time)).dt.total_microseconds()
    took = table.collect(table.scan().filter(span).select(delays)).to_series().to_numpy()
    if not len(took):
        return {"events": 0, "late": 0}
    late = int((took > stream.delay + stream.tolerance).sum())
    return {"events": len(took), "late": late, "p50_us": int(np.quantile(took, 0.5)), "p99_us": int(np.quantile(took, 0.99)), "max_us": int(took.max())}
