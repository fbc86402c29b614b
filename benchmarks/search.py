"""How long the store takes to search runs: pages by filter and order, and a walk over all of them.

    python benchmarks/search.py 10000 --params 20 --metrics 10 --tags 4
    python benchmarks/search.py 1000000 --params 3 --metrics 3 --tags 2 --keep /var/tmp/search.db

The runs are written with direct inserts, in one experiment; metrics are uniform in [0, 1), params texts such as `0.123`.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from davy.schema import open_database
from davy.schema.tables import experiments, latest_metrics, params, runs, tags

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
    columns = {column.name for column in latest_metrics.columns}
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
                   "highest": value + 0.5, "last": value, "last_is_nan": 0}
            rows[latest_metrics].append({name: found for name, found in row.items() if name in columns})
    return rows


def main() -> None:
    """Fill a database, measure, and print JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=int)
    for name, count in (("params", 20), ("metrics", 10), ("tags", 4)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = given.keep or Path(folder) / "davy.db"
        if not path.exists():
            fill(path, given.runs, given.params, given.metrics, given.tags)


if __name__ == "__main__":
    main()
