"""Monitoring: false alarms on streams that stand still, rows until a shift is found, real flights in time order, and the cost of a drift report.

Beside the report stands, in the same run, what the machine allows: reading the same file and sorting its columns, nothing else.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from davy.monitoring.collect import Watch, watch_rows
from davy.monitoring.columns import Reference, count, make_reference
from davy.monitoring.detector import Bank
from davy.monitoring.drift import drift, drifted
from davy.monitoring.packed import pack, unpack

BATCH, PROMISED = 50, 10_000_000
CARDINALITIES = (2, 3, 5, 8, 12, 20, 50, 200, 1000, 5000)
INJECTED = {"num_05": "up by 0.2 sd", "num_15": "spread times 1.5", "num_25": "5 % zeros", "num_35": "nulls from 2 % to 20 %",
            "cat_03": "one category half as frequent again", "cat_07": "1 % of a category that is new"}
HOURLY = ("temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "visib", "pressure")


def number_column(place: int, rows: int, random: np.random.Generator, *, moved: bool) -> pl.Series:
    """Normal, lognormal, gamma, uniform or Poisson, in turn; every tenth has 2 % nulls."""
    family = place % 5
    if family == 0:
        values, spread = random.standard_normal(rows) * (1 + place) + place, 1.0 + place
    else:
        values = [lambda: np.exp(random.standard_normal(rows) * 0.8), lambda: random.gamma(2.0, 1.0 + place / 10, rows),
                  lambda: random.random(rows) * (place + 1), lambda: random.poisson(3 + place, rows).astype(np.float64)][family - 1]()
        spread = float(values.std())
    if moved and place == 5:
        values = values + 0.2 * spread
    if moved and place == 15:
        values = (values - place) * 1.5 + place
    if moved and place == 25:
        values[random.random(rows) < 0.05] = 0.0
    if place % 10 == 5:
        values[random.random(rows) < (0.2 if moved and place == 35 else 0.02)] = np.nan
    return pl.Series(f"num_{place:02d}", values).fill_nan(None)


def text_column(place: int, rows: int, random: np.random.Generator, *, moved: bool) -> pl.Series:
    """Zipf over 2 to 5,000 categories."""
    kinds = CARDINALITIES[place]
    shares = 1.0 / np.arange(1, kinds + 1) ** 1.1
    if moved and place == 3:
        shares[0] *= 1.5
    codes = random.choice(kinds, rows, p=shares / shares.sum())
    if moved and place == 7:
        codes[random.random(rows) < 0.01] = kinds
    return pl.Series([f"c{code}" for code in range(kinds + 1)]).gather(codes).alias(f"cat_{place:02d}")


def table(rows: int, seed: int, *, moved: bool = False) -> pl.DataFrame:
    """Fifty columns of numbers and ten of texts; six of them moved, on request."""
    numbers = [number_column(place, rows, np.random.default_rng([seed, 1, place]), moved=moved) for place in range(50)]
    return pl.DataFrame([*numbers, *(text_column(place, rows, np.random.default_rng([seed, 2, place]), moved=moved) for place in range(10))])


def counts(bank: Bank, columns: list[np.ndarray]) -> np.ndarray:
    """Per batch, column and bin."""
    batches = len(columns[0]) // BATCH
    place = np.arange(batches * BATCH) // BATCH * bank.width
    return np.stack([np.bincount(place + codes[:batches * BATCH], minlength=batches * bank.width).reshape(batches, bank.width) for codes in columns], axis=1)


def stationary(events: int, known: int, columns: int = 50) -> dict[str, Any]:
    """False alarms of a family of normal columns that stand still, against a training set of `known` rows."""
    random = np.random.default_rng([1, known])
    reference = make_reference(pl.DataFrame({f"f{number}": random.normal(size=known) for number in range(columns)}))
    bank = Bank(reference.columns, budget=PROMISED / BATCH)
    state, alarms, most, began = bank.start(), 0, -1e9, time.perf_counter()
    for first in range(0, events, 50_000):
        for batch in counts(bank, [column.coarse_codes(pl.Series(random.normal(size=50_000))) for column in bank.columns]):
            bank.update(state, batch, weight=1.0, time=first + 1)
            evidence = float(bank.evidence(state).max())
            most = max(most, evidence)
            for alarm in bank.alarms(state) if evidence >= bank.limit else []:
                alarms += 1
                bank.forget(state, alarm.feature)
    return {"events": events, "columns": columns, "training_rows": known, "alarms": alarms, "strongest": round(most, 2), "limit": round(bank.limit, 2),
            "us_per_event": round((time.perf_counter() - began) / events * 1e6, 2)}


def delay(shift: float, scale: float, known: int, runs: int) -> dict[str, Any]:
    """Rows until one of fifty columns, which moves, is found; each run has a training set of its own."""
    found = []
    for run in range(runs):
        random = np.random.default_rng([2, run])
        reference = make_reference(pl.DataFrame({"f": random.normal(size=known)}))
        bank = Bank(reference.columns * 50, budget=PROMISED / BATCH)
        values = random.normal(size=1_000 + 20_000)
        values[1_000:] = values[1_000:] * scale + shift
        state, alone = bank.start(), bank.columns[0].coarse_codes(pl.Series(values))
        still = np.zeros((50, bank.width), dtype=np.int64)  # the other columns give no evidence either way
        place = None
        for number, batch in enumerate(counts(bank, [alone])):
            still[0] = batch[0]
            bank.update(state, still, weight=1.0, time=(number + 1) * BATCH)
            if bank.evidence(state)[0] >= bank.limit:
                place = (number + 1) * BATCH - 1_000
                break
        found.append(place if place is not None else 1 << 30)
    return {"shift_sd": shift, "scale": scale, "training_rows": known, "runs": runs, "median_rows": int(np.median(found)),
            "p90_rows": int(np.quantile(found, 0.9)), "before_the_change": sum(place <= 0 for place in found)}


def flights(seed: int) -> dict[str, Any]:
    """January to March, cut into random halves: one is the training set, the other the stream, in the order of time."""
    from davy.demo.data import source

    with zipfile.ZipFile(source() / "flights.csv.zip") as archive:
        raw = pl.read_csv(io.BytesIO(archive.read("flights.csv")), null_values=["NA"], infer_schema_length=50_000)
    weather = pl.read_csv(source() / "weather.csv", null_values=["NA"], infer_schema_length=50_000).select("origin", "time_hour", *HOURLY)
    moment = pl.col("time_hour").str.to_datetime(time_unit="us", time_zone="UTC") + pl.duration(minutes=pl.col("minute"))
    joined = raw.join(weather, on=["origin", "time_hour"], how="left").with_columns(moment.alias("time"), minute_of_day=pl.col("hour") * 60 + pl.col("minute"))
    columns = ["distance", "flight", "dep_delay", *HOURLY, "carrier", "origin", "dest", "hour", "minute_of_day"]
    year = joined.sort("time", "carrier", "flight").with_row_index("prediction")
    first = year.filter(pl.col("month") <= 3)
    half = np.random.default_rng(seed).random(first.height) < 0.5
    known = first.filter(half)
    reference = make_reference(known.select(columns), times=known["time"].dt.epoch("us").to_numpy(), timed=["hour", "minute_of_day"])

    def watched(rows: pl.DataFrame, against: Reference, *, tempered: bool = True) -> Counter[str]:
        kept = [column if tempered else _independent(column) for column in against.columns]
        bank = Bank(kept, budget=1.0)
        logged = rows.select("prediction", "time", pl.struct(columns).alias("features"))
        return Counter(alarm.feature for alarm in watch_rows(bank, Watch(bank.start()), logged))

    whole = make_reference(first.select(columns), times=first["time"].dt.epoch("us").to_numpy(), timed=["hour", "minute_of_day"])
    return {"halves": dict(watched(first.filter(~half), reference)), "halves_as_if_independent": dict(watched(first.filter(~half), reference, tempered=False)),
            "april": dict(watched(year.filter(pl.col("month") == 4), whole))}


def _independent(column: Any) -> Any:
    from msgspec.structs import replace

    return replace(column, blocks=())


def report(rows: int, folder: Path) -> dict[str, Any]:
    """A drift report against a stored profile, in a process of its own: seconds and memory of the whole process."""
    reference = make_reference(table(rows, 1))
    (folder / "reference").write_bytes(pack(reference))
    for name, seed, moved in (("moved", 2, True), ("same", 3, False)):
        table(rows, seed, moved=moved).write_parquet(folder / f"{name}.parquet")
    del reference
    found = {}
    for name in ("moved", "same", "sorted"):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, __file__, "--one", name, "--folder", str(folder)], capture_output=True, text=True, check=True)
        found[name] = {"wall_s": round(time.perf_counter() - began, 2), **json.loads(done.stdout)}
    flagged = set(found["moved"]["drifted"])
    return {"rows": rows, "columns": 60, **found, "found": sorted(flagged & set(INJECTED)), "missed": sorted(set(INJECTED) - flagged),
            "false": sorted(flagged - set(INJECTED)) + found["same"]["drifted"], "reference_bytes": (folder / "reference").stat().st_size}


def one(name: str, folder: Path) -> dict[str, Any]:
    """What the process of its own does."""
    if name == "sorted":
        lazy = pl.scan_parquet(folder / "moved.parquet")
        lazy.select(pl.col(pl.Float64).sort().last(), pl.col(pl.String).n_unique()).collect()
        flagged: list[str] = []
    else:
        reference = unpack((folder / "reference").read_bytes(), Reference)
        flagged = drifted(drift(reference, count(reference, pl.scan_parquet(folder / f"{name}.parquet"))))
    return {"drifted": flagged, "cpu_s": round(time.process_time(), 2), "peak_mb": _peak_mb()}


def _peak_mb() -> int:
    """The high-water mark of this process alone; what `getrusage` tells includes the parent's before the program was started."""
    return next(int(line.split()[1]) // 1024 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--parts", default="stationary,delay,flights,report")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one, given.folder)))
        return
    parts = given.parts.split(",")
    if "stationary" in parts:
        for known in (1_000, 10_000, 100_000):
            print(json.dumps({"stationary": stationary(given.events if known == 100_000 else given.events // 5, known)}), flush=True)
    if "delay" in parts:
        for shift, scale, known in ((0.2, 1.0, 100_000), (0.2, 1.0, 10_000), (0.1, 1.0, 100_000), (0.5, 1.0, 100_000), (0.0, 1.25, 100_000)):
            print(json.dumps({"delay": delay(shift, scale, known, given.runs)}), flush=True)
    if "flights" in parts:
        for seed in range(3):
            print(json.dumps({"flights": flights(seed)}), flush=True)
    if "report" in parts:
        with tempfile.TemporaryDirectory(prefix="davy-monitoring-") as folder:
            print(json.dumps({"report": report(given.rows, Path(folder))}), flush=True)


if __name__ == "__main__":
    main()
