"""Ten derived features of one row: the generated row kernel beside the function that one would write by hand.

Nine inputs with nulls and texts; every second row has three nulls. Both run in the same process, in turns, so that
what disturbs the machine disturbs both. Prints a line to read and, last, one JSON object.

    python benchmarks/derived.py [--rows 200000]
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from datetime import datetime
from time import perf_counter_ns
from typing import Any
from zoneinfo import ZoneInfo

import davy.features.expression as davy
from davy.core.fields import Kind

KINDS: dict[str, Kind] = {"amount": "float", "mean_7d": "float", "count_7d": "int", "last": "time", "now": "time", "country": "str", "merchant": "str",
                          "age": "int", "balance": "float"}
ZONE = "America/New_York"
DERIVED: dict[str, Callable[..., Any]] = {
    "ratio": lambda amount, mean_7d: amount / mean_7d,
    "log_amount": lambda amount: davy.log1p(amount),
    "large": lambda amount, mean_7d: amount > 3 * mean_7d,
    "count": lambda count_7d: count_7d.fill_null(0),
    "hour": lambda now: now.hour("UTC"),
    "since": lambda now, last: (now - last).seconds(),
    "home": lambda country, merchant: country == merchant,
    "left": lambda balance, amount: davy.clip(balance - amount, 0.0, 1e6),
    "group": lambda age: davy.case((age < 25, "young"), (age < 60, "mid"), otherwise="old"),
    "pair": lambda country, merchant: country.lower() + "_" + merchant.upper()}
ROW = (123.45, 60.5, 4, 1_790_000_000_000_000, 1_790_000_360_000_000, "DE", "FR", 37, 2500.0)
NULLS = (123.45, None, None, None, 1_790_000_360_000_000, "DE", "FR", 37, 2500.0)
BLOCK = 100


def by_hand(values: Sequence[Any]) -> tuple[Any, ...]:
    """The same features as a person would write them for speed: only the nulls that are expected are looked for, and no overflow."""
    amount, mean, count, last, now, country, merchant, age, balance = values
    left = balance - amount
    return (None if mean is None or mean == 0 else amount / mean, math.log1p(amount), None if mean is None else amount > 3 * mean,
            0 if count is None else count, now // 3_600_000_000 % 24, None if last is None else (now - last) / 1e6,
            country == merchant, 0.0 if left < 0.0 else 1e6 if left > 1e6 else left, "young" if age < 25 else "mid" if age < 60 else "old",
            country.lower() + "_" + merchant.upper())


def hour_by_hand(values: Sequence[Any], zone: ZoneInfo = ZoneInfo(ZONE)) -> tuple[Any, ...]:  # noqa: B008 - a zone never changes
    """The local hour by Python's own calendar."""
    (now,) = values
    return (datetime.fromtimestamp(now / 1e6, zone).hour,)


def timed(function: Callable[[Sequence[Any]], Any], rows: Sequence[Sequence[Any]]) -> float:
    """Microseconds a row, over one block of rows."""
    start = perf_counter_ns()
    for row in rows:
        function(row)
    return (perf_counter_ns() - start) / len(rows) / 1e3


def quantiles(times: list[float]) -> dict[str, float]:
    """p50 and p99 of the blocks."""
    times = sorted(times)
    return {"p50_us": round(times[len(times) // 2], 3), "p99_us": round(times[len(times) * 99 // 100], 3)}


def main() -> None:
    """Runs both in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    rows = parser.parse_args().rows
    start = perf_counter_ns()
    specs = [davy.trace(name, function, KINDS) for name, function in DERIVED.items()]
    kernel = davy.compile_kernel(specs, list(KINDS))
    compiled = (perf_counter_ns() - start) / 1e6
    hour = davy.compile_kernel([davy.trace("hour", lambda now: now.hour(ZONE), KINDS)], ["now"])
    block, moments = [ROW, NULLS] * (BLOCK // 2), [(ROW[4],)] * BLOCK
    if any(kernel(row) != by_hand(row) for row in block) or hour(moments[0]) != hour_by_hand(moments[0]):
        raise SystemExit("the kernel and the function written by hand differ")
    times: dict[str, list[float]] = {"kernel": [], "by_hand": [], "hour": [], "hour_by_hand": []}
    for _ in range(max(rows // BLOCK, 2)):
        times["kernel"].append(timed(kernel, block))
        times["by_hand"].append(timed(by_hand, block))
        times["hour"].append(timed(hour, moments))
        times["hour_by_hand"].append(timed(hour_by_hand, moments))
    result = {name: quantiles(values) for name, values in times.items()}
    ratio = round(result["kernel"]["p50_us"] / result["by_hand"]["p50_us"], 2)
    said = {name: f"{value['p50_us']} µs (p99 {value['p99_us']})" for name, value in result.items()}
    print(f"10 derived features a row: kernel {said['kernel']}, by hand {said['by_hand']}, ratio {ratio}; "
          f"one local hour: {said['hour']}, by datetime {said['hour_by_hand']}; traced and compiled once in {compiled:.1f} ms")
    print(json.dumps({"bench": "derived", "rows": rows, "features": len(specs), **result, "ratio": ratio, "compile_ms": round(compiled, 2)}))


if __name__ == "__main__":
    main()
