"""Training sets over 10 million rows: a state lookup of 10 features, and windows of 1 h, 7 d and 30 d, also with hot keys.

Each measurement is a process of its own (wall time of the call, peak memory of the process). DuckDB's hand-written
queries over the same data, read from Parquet, stand beside ours in the same run, and the answers must agree.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

ENTITIES, DAYS = 100_000, 60
T0, DAY = 1_790_000_000_000_000, 86_400_000_000
FLOATS, INTS = [f"f{i}" for i in range(6)], [f"f{i}" for i in range(6, 9)]
WORDS = np.array(["alpha", "beta", "gamma", "delta", "eps", "zeta", "eta", "theta"])
UTC = pl.Datetime("us", "UTC")


def make_rows(count: int) -> pl.DataFrame:
    """Snapshot rows: uniform entities over 60 days, 1 % corrections (same entity and time, written later), 2 % nulls in f5."""
    rng = np.random.default_rng(8)
    corrected = count // 100
    entity, at = rng.integers(0, ENTITIES, count - corrected), T0 + rng.integers(0, DAYS * DAY // 1000, count - corrected) * 1000
    created = at + rng.integers(0, 3_600_000, count - corrected) * 1000
    pick = rng.integers(0, count - corrected, corrected)
    entity, at = np.concatenate([entity, entity[pick]]), np.concatenate([at, at[pick]])
    created = np.concatenate([created, created[pick] + rng.integers(1, 86_400_000, corrected) * 1000])
    order = np.argsort(created, kind="stable")
    frame = pl.DataFrame({"entity_id": entity[order], "moment": at[order], "created": created[order]}).with_columns(pl.col("moment", "created").cast(UTC))
    for name in FLOATS:
        frame = frame.with_columns(pl.Series(name, np.round(rng.normal(size=count), 6)))
    frame = frame.with_columns(pl.when(pl.Series(rng.random(count) < 0.02)).then(None).otherwise(pl.col("f5")).alias("f5"))
    for name in INTS:
        frame = frame.with_columns(pl.Series(name, rng.integers(0, 1_000_000, count)))
    return frame.with_columns(pl.Series("f9", WORDS[rng.integers(0, 8, count)]))


def make_events(count: int) -> pl.DataFrame:
    """An event log: 80 % uniform, 20 % on a Zipf tail; 5 % late by ten minutes on average."""
    rng = np.random.default_rng(10)
    entity = rng.integers(0, ENTITIES, count)
    hot = rng.random(count) < 0.2
    entity[hot] = np.minimum((ENTITIES ** rng.random(int(hot.sum()))).astype(np.int64), ENTITIES - 1)
    at = T0 + rng.integers(0, DAYS * DAY // 1000, count) * 1000
    arrival = at + np.where(rng.random(count) < 0.05, rng.exponential(600_000, count), rng.exponential(200, count)).astype(np.int64) * 1000
    cents = np.rint(np.exp(rng.normal(3.0, 1.2, count)) * 100).astype(np.int64)
    order = np.argsort(arrival, kind="stable")
    return pl.DataFrame({"entity_id": entity[order], "moment": at[order], "arrival": arrival[order], "cents": cents[order]}).with_columns(
        pl.col("moment", "arrival").cast(UTC)
    )


def make_spine(events: pl.DataFrame | None, rows: int = 100_000) -> pl.DataFrame:
    """Uniform moments of days 30 to 60; from `events`, the moments of events, so that busy entities are asked for often."""
    rng = np.random.default_rng(9)
    if events is None:
        at = T0 + (30 * DAY // 1000 + rng.integers(0, 30 * DAY // 1000, rows)) * 1000
        return pl.DataFrame({"entity_id": rng.integers(0, ENTITIES, rows), "time": at}).with_columns(pl.col("time").cast(UTC))
    late = np.flatnonzero(events["moment"].dt.epoch("us").to_numpy() >= T0 + 30 * DAY)
    return events[np.sort(rng.choice(late, rows, replace=False))].select("entity_id", pl.col("moment").alias("time"))


PROJECT = """
import davy
from davy import agg

rows = davy.Stream("rows", time="moment", ingest="created", fields={"entity_id": int, **{f"f{i}": float for i in range(6)},
                   **{f"f{i}": int for i in range(6, 9)}, "f9": str})
events = davy.Stream("events", time="moment", ingest="arrival", fields={"entity_id": int, "cents": int})

class State(davy.View):
    stream, entity = rows, "entity_id"
    (a, b, c, d, e, f, g, h, i, j) = (agg.last(f"f{i}", ttl="10d") for i in range(10))

class Windows(davy.View):
    stream, entity = events, "entity_id"
    n1, s1, m1, x1 = agg.count(window="1h"), agg.sum("cents", window="1h"), agg.mean("cents", window="1h"), agg.max("cents", window="1h")
    n7, s7, m7, x7 = agg.count(window="7d"), agg.sum("cents", window="7d"), agg.mean("cents", window="7d"), agg.max("cents", window="7d")
    n30, s30, m30, x30 = agg.count(window="30d"), agg.sum("cents", window="30d"), agg.mean("cents", window="30d"), agg.max("cents", window="30d")
"""


def prepare(folder: Path, count: int) -> dict[str, float]:
    """Make the data, load it into the log, sort it once; what a store does when the events arrive."""
    os.chdir(folder)
    (folder / "davy.toml").write_text("")
    (folder / "features.py").write_text(PROJECT)
    import davy
    from davy.api import current_home, current_project
    from davy.events import client

    events = make_events(count)
    make_spine(None).write_parquet("spine.parquet")
    make_spine(events).write_parquet("spine_hot.parquet")
    events.write_parquet("events.parquet")
    del events
    make_rows(count).write_parquet("rows.parquet")
    home, took = current_home(), {}
    project = current_project(folder)
    with client.connect(home) as log:
        for name in ("rows", "events"):
            begun = time.perf_counter()
            log.push_history(project.streams[name], pl.scan_parquet(f"{name}.parquet"))
            took[f"load {name}"] = round(time.perf_counter() - begun, 2)
    for name, view in project.views.items():
        begun = time.perf_counter()
        davy.training_set(pl.read_parquet("spine.parquet").head(1), view)
        took[f"sort for {name}"] = round(time.perf_counter() - begun, 2)
    return took


def ours(folder: Path, view: str, spine: str, as_known: str) -> dict[str, Any]:
    os.chdir(folder)
    import davy
    from davy.api import current_project

    chosen = current_project(folder).views[view]
    frame = pl.read_parquet(f"{spine}.parquet")
    return timed(lambda: davy.training_set(frame, chosen, as_known=as_known).frame, checksum)  # type: ignore[arg-type, return-value]


def duck(folder: Path, view: str, spine: str) -> dict[str, Any]:
    import duckdb

    os.chdir(folder)
    connection = duckdb.connect()
    connection.execute("SET threads=2; SET TimeZone='UTC'")
    query = STATE_SQL if view == "State" else WINDOWS_SQL
    return timed(lambda: pl.DataFrame(connection.sql(query.format(spine=spine)).to_arrow_table()), checksum)


_NAMES = dict(zip("abcdefghij", [*FLOATS, *INTS, "f9"], strict=True))
STATE_SQL = f"""
WITH s AS (SELECT row_number() OVER () AS row, entity_id, time FROM read_parquet('{{spine}}.parquet')),
hit AS MATERIALIZED (SELECT s.row, arg_max(r.rn, row(r.moment, r.created, r.rn)) AS rn FROM s
  JOIN (SELECT entity_id, moment, created, file_row_number AS rn FROM read_parquet('rows.parquet', file_row_number=true)) r
  ON s.entity_id = r.entity_id AND r.moment < s.time AND r.moment >= s.time - INTERVAL 10 DAY GROUP BY s.row),
pay AS (SELECT h.row, {", ".join(f"p.{field} AS {name}" for name, field in _NAMES.items())}
  FROM read_parquet('rows.parquet', file_row_number=true) p JOIN hit h ON p.file_row_number = h.rn)
SELECT s.row, pay.* EXCLUDE (row) FROM s LEFT JOIN pay USING (row)"""
_BOUNDS = {1: (3_600, 60), 7: (604_800, 3_600), 30: (2_592_000, 21_600)}
_PARTS = ", ".join(
    f"count(*) FILTER (r.moment >= lo{d}) AS n{d}, coalesce(sum(cents) FILTER (r.moment >= lo{d}), 0) AS s{d}, "
    f"avg(cents) FILTER (r.moment >= lo{d}) AS m{d}, max(cents) FILTER (r.moment >= lo{d}) AS x{d}"
    for d in _BOUNDS
)
_LOWS = ", ".join(f"to_timestamp(floor((epoch_us(time) / 1000000 - {w}) / {h}) * {h}) AS lo{d}" for d, (w, h) in _BOUNDS.items())
WINDOWS_SQL = f"""
WITH s AS (SELECT row_number() OVER () AS row, entity_id, time, {_LOWS} FROM read_parquet('{{spine}}.parquet')),
found AS (SELECT s.row, {_PARTS} FROM s JOIN read_parquet('events.parquet') r
  ON s.entity_id = r.entity_id AND r.moment < s.time AND r.moment >= s.lo30 GROUP BY s.row)
SELECT s.row, found.* EXCLUDE (row) FROM s LEFT JOIN found USING (row)"""


def checksum(frame: pl.DataFrame) -> list[int]:
    """Over every feature: non-null values, and their sum in millionths; zero where there is nothing, for counts and sums.

    f5 is left out: Davy's `last` skips nulls, the query takes the newest row whole.
    """
    if "n1" in frame.columns:
        names = [f"{k}{d}" for d in _BOUNDS for k in "nsmx"]
        frame = frame.with_columns(pl.col(name).fill_null(0) for name in names if name[0] in "ns")
        return [int((frame[name].cast(pl.Float64) * (1 if name[0] != "m" else 1e3)).round().fill_null(0).sum()) for name in names]
    numbers = [int((frame[name].cast(pl.Float64) * 1e6).round().sum()) for name in "abcdeghi"]
    return [*numbers, *(int(frame[name].count()) for name in "abcdeghij")]


def timed(function: Any, check: Any) -> dict[str, Any]:
    times, result = [], None
    for _ in range(3):
        del result
        begun = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"s": round(statistics.median(times), 3), "all_s": [round(t, 3) for t in times], "peak_mb": round(peak), "check": check(result)}


def child(*arguments: object) -> Any:
    done = subprocess.run([sys.executable, __file__, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--dir", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (arguments.dir or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        found: dict[str, Any] = {"rows": arguments.rows}
        if not (folder / "done.json").exists():
            (folder / "done.json").write_text(json.dumps(child("prepare", folder, arguments.rows)))
        found["once"] = json.loads((folder / "done.json").read_text())
        for label, view, spine in (("state", "State", "spine"), ("windows", "Windows", "spine"), ("windows, hot keys", "Windows", "spine_hot")):
            peer = child("duck", folder, view, spine)
            for as_known in ("event", "ingest"):
                found[f"{label}, as known by {as_known}"] = mine = child("ours", folder, view, spine, as_known)
                agree = mine["check"] == peer["check"] if as_known == "event" else None
                words = {True: "same answer", False: "ANSWERS DIFFER", None: "hides late events"}[agree]
                print(
                    f"{label:18} {as_known:6} davy {mine['s']:.2f} s {mine['peak_mb']} MB · duckdb {peer['s']:.2f} s {peer['peak_mb']} MB · {words}", flush=True
                )
            found[f"{label}, duckdb"] = peer
    print(json.dumps(found))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in ("prepare", "ours", "duck"):
        step, place, *rest = sys.argv[1:]
        if step == "prepare":
            print(json.dumps(prepare(Path(place), int(rest[0]))))
        else:
            print(json.dumps(ours(Path(place), *rest) if step == "ours" else duck(Path(place), *rest)))
    else:
        main()
