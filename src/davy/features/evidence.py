"""The events behind a value: which of the log a feature of an entity is made of, as of a time and watermarks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from davy.core.time import EPOCH, MICROSECOND
from davy.events.frames import OFFSET, table_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from davy.features.definition import FeatureSet, FeatureSpec
    from davy.home import Home

NEWEST = 3


class Evidence(msgspec.Struct, frozen=True):
    """What one feature of a view stands on.

    Attributes:
        start, end: microseconds; start <= event time < end, and None for no beginning.
        watermark: only events up to this offset count.
        events: how many there are, null values of the aggregated field left out.
        newest: the offsets of the last few in order of (time, offset), the last one first.
        moved: whether all events up to the watermark are in the stream's table yet; if not, more are on their way.
    """

    stream: str
    view: str
    start: int | None
    end: int
    watermark: int
    events: int
    newest: list[int]
    moved: bool


def evidence(home: Home, feature_set: FeatureSet, entities: Mapping[str, Any], *, at: int, watermarks: Mapping[str, int]) -> dict[str, Evidence]:
    """For each feature of a view in the set, the events behind it. One scan per view; nothing is written.

    Args:
        entities: the entity keys of the request.
        at: microseconds.
        watermarks: per stream the last offset that had been applied.
    """
    found: dict[str, Evidence] = {}
    for view in feature_set.views:
        stream = feature_set.stream(view.stream)
        watermark = watermarks.get(view.stream, 0)
        table = home.table(table_name(view.stream))
        fields = {feature.field for feature in view.features if feature.field}
        events = pl.DataFrame()
        last = 0
        if watermark and table.exists():
            moment = pl.col(stream.time).cast(pl.Int64)
            mine = [pl.col(key) == entities[key] for key in view.entity]
            scan = table.scan()
            events = table.collect(scan.filter(pl.col(OFFSET) <= watermark, pl.col(stream.time) < EPOCH + at * MICROSECOND, *mine).select(
                pl.col(OFFSET), moment.alias("_time"), *(pl.col(field).is_not_null() for field in sorted(fields))).sort("_time", OFFSET))
            last = table.collect(scan.select(pl.col(OFFSET).max())).item() or 0
        for feature in view.features:
            start = _start(feature, at)
            chosen = events.filter(*_wanted(feature, start)) if events.height else events
            newest = chosen[OFFSET].tail(NEWEST).to_list()[::-1] if chosen.height else []
            found[feature.name] = Evidence(view.stream, view.name, start, at, watermark, chosen.height, newest, last >= watermark)
    return found


def _start(feature: FeatureSpec, at: int) -> int | None:
    if feature.window is not None:
        return (at - feature.window) // feature.hop * feature.hop
    return at - feature.ttl if feature.ttl is not None else None


def _wanted(feature: FeatureSpec, start: int | None) -> list[pl.Expr]:
    wanted = [pl.col(feature.field)] if feature.field else []
    return wanted if start is None else [*wanted, pl.col("_time") >= start]
