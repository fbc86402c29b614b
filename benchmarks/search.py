"""How long the store takes to search runs: pages by filter and order, and a walk over all of them.

    python benchmarks/search.py 10000 --params 20 --metrics 10 --tags 4
    python benchmarks/search.py 1000000 --params 3 --metrics 3 --tags 2 --keep /var/tmp/search.db    (about 3 GB; with the default 34 values a run, 12 GB)

The runs are written with direct inserts, in one experiment; metrics are uniform in [0, 1), params texts such as `0.123`.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from davy.schema import open_database
from davy.schema.tables import experiments, latest_metrics, params, runs, tags
from davy.tracking.frames import runs_frame
from davy.tracking.search import search_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BLOCK = 20_000
BEGAN = 1_700_000_000_000
MODELS = ("lr", "gbm", "mlp", "forest")


def fill(path: Path, count: int, n_params: int, n_metrics: int, n_tags: int) -> None:
    """Write `count` runs of one experiment, a second apart."""
    open_database(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA cache_size=-1000000")
    draw = random.Random(7)
    _insert(connection, experiments, [{"experiment_id": 1, "name": "bench", "artifact_location": "mlflow-artifacts:/1", "lifecycle_stage": "active",
                                       "creation_time": BEGAN, "last_update_time": BEGAN}])
    for begin in range(0, count, BLOCK):
        connection.execute("BEGIN")
        for table, rows in _block(draw, range(begin, min(count, begin + BLOCK)), n_params, n_metrics, n_tags).items():
            _insert(connection, table, rows)
        connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _insert(connection: sqlite3.Connection, table: Any, rows: list[dict[str, Any]]) -> None:
    names = [column.name for column in table.columns if column.name in rows[0]]
    connection.executemany(f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
                           [[row[name] for name in names] for row in rows])


def _block(draw: random.Random, numbers: range, n_params: int, n_metrics: int, n_tags: int) -> dict[Any, list[dict[str, Any]]]:
    rows: dict[Any, list[dict[str, Any]]] = {runs: [], params: [], tags: [], latest_metrics: []}
    for number in numbers:
        run_id = f"{BEGAN + number * 1000:012x}{draw.getrandbits(80):020x}"
        started = BEGAN + number * 1000
        rows[runs].append({"run_id": run_id, "experiment_id": 1, "name": f"run-{number}", "user_id": "ada", "status": "FINISHED", "start_time": started,
                           "end_time": started + 900, "lifecycle_stage": "active", "artifact_uri": f"mlflow-artifacts:/1/{run_id}/artifacts"})
        rows[params] += [{"run_id": run_id, "key": f"p{index}", "value": f"{draw.random():.3f}"} for index in range(1, n_params + 1)]
        rows[tags] += [{"run_id": run_id, "key": "mlflow.runName", "value": f"run-{number}"}, {"run_id": run_id, "key": "model", "value": draw.choice(MODELS)}]
        rows[tags] += [{"run_id": run_id, "key": f"t{index}", "value": f"value {draw.randrange(100)}"} for index in range(3, n_tags + 1)]
        for index in range(1, n_metrics + 1):
            value = draw.random()
            row = {"run_id": run_id, "key": f"m{index}", "step": 9, "timestamp": started, "value": value, "is_nan": 0, "lowest": value / 2,
                   "highest": value + 0.5, "last": value, "last_is_nan": 0, "newest": started, "count": 1, "chunk": 0, "filled": 1}
            rows[latest_metrics].append(row)
    return rows


def cases(last: int) -> dict[str, tuple[str, list[str]]]:
    """What is asked: filter and order; `last` is the number of the last metric."""
    return {
        "newest first": ("", []),
        "metric filter, metric order": ("metrics.m1 > 0.5", [f"metrics.m{last} DESC"]),
        "param and tag, newest first": ("params.p3 LIKE '0.1%' and tags.model = 'lr'", []),
        "one in 10,000, other order": ("metrics.m1 > 0.9999", [f"metrics.m{last}"]),
        "one in 10,000, newest first": ("metrics.m1 > 0.9999", []),
        "one in 50, other order": ("metrics.m1 > 0.98", [f"metrics.m{last}"]),
        "or, not, in": (f"metrics.m1 > 0.9 or not (tags.model in ('lr', 'gbm') and metrics.m{last} < 0.5)", ["metrics.m2"]),
        "filter against its order": (f"metrics.m{last} < 0.2 and metrics.m1 > 0.5", [f"metrics.m{last} DESC"]),
        "max, two keys": ("max(metrics.m1) > 1.2", ["max(metrics.m2) DESC", "params.p1"]),
        "nothing matches, no index": ("user_id = 'nobody'", []),
        "order without an index": ("", ["params.p1 DESC"]),
    }


def timed(work: Callable[[], Any], times: int = 15) -> dict[str, float]:
    """Milliseconds of a call: the first, the median and the slowest of the others."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append((time.perf_counter() - began) * 1e3)
        if sum(taken) > 10_000:
            break
    rest = taken[1:] or taken
    return {"first": round(taken[0], 2), "median": round(statistics.median(rest), 2), "slowest": round(max(rest), 2)}


def measure(database: Any, last: int) -> Iterator[tuple[str, Any]]:
    """A page of 100 runs with all that they have, for each case."""
    for name, (text, order) in cases(last).items():
        def page(text: str = text, order: list[str] = order) -> Any:
            with database.read() as connection:
                return search_runs(connection, experiments=[1], filter=text, order_by=order, limit=100)

        yield name, timed(page) | {"runs": len(page().runs)}


def walk(database: Any, most: int) -> dict[str, float]:
    """Seconds for all runs, 1,000 a page, up to `most`, and how many they are."""
    began, count, after = time.perf_counter(), 0, None
    with database.read() as connection:
        while count < most:
            page = search_runs(connection, experiments=[1], limit=1000, after=after)
            count, after = count + len(page.runs), page.next
            if after is None:
                break
    return {"runs": count, "seconds": round(time.perf_counter() - began, 3)}


def main() -> None:
    """Fill a database, measure, and print JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=int)
    for name, count in (("params", 20), ("metrics", 10), ("tags", 4)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--keep", type=Path, help="the database's file; filled where it is not there yet, and left")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = given.keep or Path(folder) / "davy.db"
        if not path.exists():
            fill(path, given.runs, given.params, given.metrics, given.tags)
        database = open_database(path)
        found: dict[str, Any] = {"runs": given.runs, "a run has": {name: getattr(given, name) for name in ("params", "metrics", "tags")}}
        found["page of 100, ms"] = dict(measure(database, given.metrics))
        found["walk, 1,000 a page"] = walk(database, 10_000)

        def frame() -> Any:
            with database.read() as connection:
                return runs_frame(connection, limit=10_000)

        found["data frame of 10,000 runs, ms"] = timed(frame, 3)
        database.close()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
