"""The promise: batch, online and the obvious definition give equal bits on any stream, asked at any (t, W)."""

from __future__ import annotations

import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from davy.core.clock import DrivenClock
from davy.core.fields import Field
from davy.core.time import parse_duration
from davy.engines.offline.base import Spine
from davy.engines.offline.local import LocalEngine
from davy.engines.online.lmdb import LmdbStore
from davy.engines.online.memory import MemoryStore
from davy.features.define import Resolver, Stream, View, agg
from davy.features.definition import EventBatch
from davy.features.online import OnlineFeatures
from features import oracle
from features.stand import FrameLog

sales = Stream("sales", time="at", fields={"shop": str, "till": int, "amount": float, "items": int, "big": int, "note": str, "ok": bool})
WIDE = {"window": "40min", "hop": "10min"}


class Shop(View):
    stream, entity = sales, "shop"
    n_exact = agg.count(window="7min", hop="exact")
    n_minutes = agg.count(window="5min", hop="1min")
    known_items = agg.count("items", **WIDE)
    sum_items = agg.sum("items", **WIDE)
    sum_amount = agg.sum("amount", window="20min", hop="10min")
    mean_amount = agg.mean("amount", window="5min", hop="1min")
    mean_items = agg.mean("items", **WIDE)
    std_amount = agg.std("amount", **WIDE)
    std_big = agg.std("big", window="7min", hop="exact")
    mean_big = agg.mean("big", **WIDE)
    min_amount = agg.min("amount", window="3min", hop="1min")
    max_items = agg.max("items", **WIDE)
    share_ok = agg.mean("ok", window="20min", hop="10min")
    last_amount = agg.last("amount", window="10min", hop="5min")
    last_note = agg.last("note", window="1h", hop="10min")
    ever_items = agg.last("items")
    fresh_note = agg.last("note", ttl="3min")


class Till(View):
    stream, entity = sales, ("shop", "till")
    till_n = agg.count(window="20min", hop="10min")
    till_max = agg.max("amount", window="20min", hop="10min")


MINUTE = parse_duration("1min")
event = st.fixed_dictionaries(
    {
        "late": st.sampled_from([0, 0, 0, 1, 30, 60, 300, 600, 3000]),
        "early": st.sampled_from([0, 0, 0, 0, 1]),
        "wait": st.sampled_from([0, 0, 1, 7, 60, 120, 300]),
        "round": st.booleans(),
        "shop": st.sampled_from(["a", "a", "a", "a", "b", None]),
        "till": st.sampled_from([1, 1, 2, -1, None]),
        "amount": st.one_of(st.none(), st.floats(-1e6, 1e6), st.sampled_from([0.1, -0.0, 0.3, 999_999_999_999.0, 1e-6])),
        "items": st.one_of(st.none(), st.integers(-5, 5)),
        "big": st.one_of(st.none(), st.integers(-5, 5), st.sampled_from([2**62, -(2**61), 10**9])),
        "note": st.sampled_from([None, "", "ß", "later", "x", "y", "z"]),
        "ok": st.sampled_from([None, True, False]),
    }
)


def bits(value: Any) -> Any:
    return struct.pack("<d", value) if isinstance(value, float) else (type(value), value)


def batches(rows: list[dict[str, Any]], sizes: list[int]) -> list[EventBatch]:
    """Stamp offsets and ingest times as the log does, and cut into batches."""
    now, stamped = 1_700_000_000_000_000, []
    for row in rows:
        now += row["wait"] * 1_000_000 + 1
        time = now + 500_000 if row["early"] else now - row["late"] * 1_000_000
        if row["round"]:
            time = time // MINUTE * MINUTE
        stamped.append((now, time, {field.name: field.encode(row[field.name]) for field in sales.spec.fields}))
    cut, at = [], 0
    for size in (*sizes, len(stamped)):
        part = stamped[at : at + size]
        if part:
            cut.append(
                EventBatch(
                    "sales", at + 1, [p[0] for p in part], [p[1] for p in part], {field.name: [p[2][field.name] for p in part] for field in sales.spec.fields}
                )
            )
        at += len(part)
    return cut


def expected(view: type[View], log: list[EventBatch], key: dict[str, Any], t: int, watermark: int) -> list[Any]:
    events = []
    for batch in log:
        for i, time in enumerate(batch.times):
            values = {name: column[i] for name, column in batch.columns.items()}
            if all(values[name] == key[name] for name in view.spec.entity) and None not in (key[name] for name in view.spec.entity):
                events.append({"offset": batch.first_offset + i, "time": time, **values})
    found = []
    for feature in view.spec.features:
        scale = sales.spec.field(feature.field).scale if feature.field else 0
        found.append(oracle.value(feature, events, t, watermark, scale))
    return found


@pytest.mark.parametrize("store", [MemoryStore, LmdbStore])
@settings(
    max_examples=80, deadline=None, phases=[Phase.reuse, Phase.generate], suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(event, min_size=1, max_size=60), sizes=st.lists(st.integers(1, 9), max_size=8), gap=st.integers(0, 3 * 60 * 60 * 1_000_000), data=st.data()
)
def test_online_and_batch_equal_the_definition(store: Any, rows: list[dict[str, Any]], sizes: list[int], gap: int, data: st.DataObject) -> None:
    log = batches(rows, sizes)
    resolver = Resolver([Shop, Till])
    feature_set = resolver.feature_set([Shop, Till])
    asked: list[tuple[int, int, dict[str, Any], list[Any]]] = []
    with TemporaryDirectory() as folder:
        online = OnlineFeatures(store(Path(folder) / "online") if store is LmdbStore else store())
        half = data.draw(st.sampled_from([0, 0, len(log) // 2]), label="views are declared after this many batches")
        clock = DrivenClock(Path(folder) / "clock", start=0)
        for number, batch in enumerate([*log, None]):
            if number == half:
                for view in (Shop, Till):
                    online.ensure(sales.spec, view.spec, iter(log[:number]))
            if batch is None:
                break
            online.apply(batch)
            online.apply(batch)
            if number < half:
                continue
            clock.set(batch.ingest[-1] + data.draw(st.sampled_from([0, 1, 600_000_000, gap]), label="asked after"))
            key = {"shop": data.draw(st.sampled_from(["a", "a", "b", "nobody", None])), "till": data.draw(st.sampled_from([1, 2, -1, 7, None]))}
            reader = online.reader(feature_set, clock)
            mark = online.mark("sales")
            t = max(clock.now(), mark.ingest_time + 1, mark.event_time + 1)
            wants = [expected(view, log, key, t, batch.last_offset) for view in (Shop, Till)]
            vector = reader.read(key)
            assert (vector.time, vector.watermarks) == (t, {"sales": batch.last_offset})
            want = [value for part in wants for value in part]
            assert dict(zip(feature_set.outputs, map(bits, vector.values), strict=True)) == dict(zip(feature_set.outputs, map(bits, want), strict=True))
            asked.append((t, batch.last_offset, key, want))
        online.store.close()
    _batch_agrees(log, asked, data)


def _batch_agrees(log: list[EventBatch], asked: list[tuple[int, int, dict[str, Any], list[Any]]], data: st.DataObject) -> None:
    """Ask the offline engine for the same moments, and for random ones in the past."""
    edges = [time for batch in log for time in (*batch.times, *batch.ingest)]
    for _ in range(12):
        t = data.draw(st.sampled_from(edges)) + data.draw(st.sampled_from([0, 0, 1, 60_000_000, 240_000_000, 1_200_000_000]))
        watermark = data.draw(st.integers(0, log[-1].last_offset))
        key = {"shop": data.draw(st.sampled_from(["a", "a", "a", "b", "nobody", None])), "till": data.draw(st.sampled_from([1, 2, None]))}
        wants = [expected(view, log, key, t, watermark) for view in (Shop, Till)]
        asked.append((t, watermark, key, [value for part in wants for value in part]))
    keys = pl.DataFrame(
        {"shop": [key["shop"] for _, _, key, _ in asked], "till": [key["till"] for _, _, key, _ in asked]}, schema={"shop": pl.String, "till": pl.Int64}
    )
    times = np.array([t for t, _, _, _ in asked], dtype=np.int64)
    marks = np.array([watermark for _, watermark, _, _ in asked], dtype=np.int64)
    with TemporaryDirectory() as folder:
        engine = LocalEngine(FrameLog(Path(folder), sales.spec, log))
        got: list[list[Any]] = [[] for _ in asked]
        for view in (Shop, Till):
            for series in engine.aggregate(sales.spec, view.spec, Spine(keys.select(view.spec.entity), times, marks)):
                for row, value in zip(got, series.to_list(), strict=True):
                    row.append(value)
    for row, (_, _, _, want) in zip(got, asked, strict=True):
        assert list(map(bits, row)) == list(map(bits, want))


def test_stored_kinds() -> None:
    assert sales.spec.field("amount") == Field("amount", "float", 6)
