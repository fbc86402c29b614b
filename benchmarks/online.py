"""Online features in process: reading two views, updating them in batches, and a single push through the log.

Beside ours stand, in the same run, what the machine allows: an LMDB get of a value of the same size, and an fsync.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import lmdb

from davy.core.clock import SystemClock
from davy.events import client
from davy.features.define import Resolver, Stream, View, agg
from davy.features.keys import encode_key
from davy.features.online import OnlineFeatures, table_of
from davy.home import Home

payments = Stream("payments", time="at", fields={"card": str, "shop": str, "amount": float, "items": int}, tolerance="1d")


class Card(View):
    stream, entity = payments, "card"
    card_count_1h = agg.count(window="1h")
    card_sum_1h = agg.sum("amount", window="1h")
    card_mean_7d = agg.mean("amount", window="7d")
    card_max_7d = agg.max("amount", window="7d")
    card_std_30d = agg.std("amount", window="30d")


class Shop(View):
    stream, entity = payments, "shop"
    shop_count_1h = agg.count(window="1h")
    shop_sum_7d = agg.sum("amount", window="7d")
    shop_mean_30d = agg.mean("amount", window="30d")
    shop_min_1h = agg.min("amount", window="1h")
    shop_last = agg.last("items", window="1d")


def quantiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {"p50_us": round(ordered[len(ordered) // 2] * 1e6, 2), "p99_us": round(ordered[len(ordered) * 99 // 100] * 1e6, 2)}


def events(count: int, cards: int, shops: int, start: int, step: int) -> list[dict[str, Any]]:
    rng = random.Random(7)
    return [
        {
            "at": start + index * step - (rng.randrange(600_000_000) if rng.random() < 0.05 else 0),
            "card": f"c{int(cards ** rng.random()) if rng.random() < 0.2 else rng.randrange(cards)}",
            "shop": f"s{rng.randrange(shops)}",
            "amount": round(rng.lognormvariate(3, 1), 2),
            "items": rng.randrange(9),
        }
        for index in range(count)
    ]


def measure(folder: Path, count: int) -> dict[str, Any]:
    (folder / "davy.toml").write_text("")
    home = Home(folder)
    clock = SystemClock()
    found: dict[str, Any] = {"events": count}
    start = clock.now() - 30 * 86_400_000_000
    rows = events(count, 10_000, 500, start, 30 * 86_400_000_000 // count)
    with client.connect(home) as log:
        log.ensure_views([(payments.spec, Card.spec), (payments.spec, Shop.spec)])
        log.declare(payments.spec)
        begun = time.perf_counter()
        for at in range(0, count, 5_000):
            log.push(payments.spec, rows[at : at + 5_000])
        took = time.perf_counter() - begun
        found["update"] = {"us_per_event": round(took / count * 1e6, 2), "events_per_s": round(count / took)}
        single = []
        for row in events(300, 10_000, 500, clock.now(), 1000):
            begun = time.perf_counter()
            log.push(payments.spec, [row])
            single.append(time.perf_counter() - begun)
        found["push_one"] = quantiles(single)
    feature_set = Resolver([Card, Shop]).feature_set([Card, Shop])
    online = OnlineFeatures(home.online)
    reader = online.reader(feature_set, clock)
    rng = random.Random(1)
    asked = [{"card": f"c{rng.randrange(10_000)}", "shop": f"s{rng.randrange(500)}"} for _ in range(20_000)]
    found["read"] = quantiles([timed(reader.read, keys) for keys in asked])
    found["floor"] = {"lmdb_get": floor_get(home, asked), "fsync": floor_fsync(folder)}
    home.close()
    return found


def timed(function: Any, *args: Any) -> float:
    begun = time.perf_counter()
    function(*args)
    return time.perf_counter() - begun


def floor_get(home: Home, asked: list[dict[str, str]]) -> dict[str, float]:
    """Two raw LMDB gets of the same values, undecoded."""
    environment: lmdb.Environment = home.online._environment.env  # type: ignore[attr-defined]
    card, shop = (table_of(view.spec).encode() + b"\0" for view in (Card, Shop))

    def get(keys: dict[str, str]) -> None:
        with environment.begin() as transaction:
            transaction.get(card + (encode_key([keys["card"]]) or b""))
            transaction.get(shop + (encode_key([keys["shop"]]) or b""))

    return quantiles([timed(get, keys) for keys in asked])


def floor_fsync(folder: Path) -> dict[str, float]:
    with (folder / "floor").open("wb") as file:

        def write() -> None:
            file.write(b"x" * 200)
            file.flush()
            os.fsync(file.fileno())

        return quantiles([timed(write) for _ in range(200)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), arguments.events)
    print(
        f"read 2 views, 10 features: p50 {result['read']['p50_us']} µs, p99 {result['read']['p99_us']} µs "
        f"(two raw gets {result['floor']['lmdb_get']['p50_us']} µs)\n"
        f"update: {result['update']['us_per_event']} µs an event, {result['update']['events_per_s']} events/s, durable\n"
        f"push of one event: p50 {result['push_one']['p50_us'] / 1000:.2f} ms (fsync {result['floor']['fsync']['p50_us'] / 1000:.2f} ms)"
    )
    print(json.dumps(result))
