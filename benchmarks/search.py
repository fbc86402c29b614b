"""How long the store takes to search runs: pages by filter and order, and a walk over all of them.

    python benchmarks/search.py 10000 --params 20 --metrics 10 --tags 4
    python benchmarks/search.py 1000000 --params 3 --metrics 3 --tags 2 --keep /var/tmp/search.db    (about 3 GB; with the default 34 values a run, 6 GB)
    python benchmarks/search.py 1000000 --keep /var/tmp/search.db --http    (against a server, by MLflow's protocol)

The runs are written with direct inserts; most metrics are uniform in [0, 1), params texts such as `0.123`. Their points are left out, at which no search looks.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import sqlite3
import statistics
import sys
import tempfile
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from davy.schema import open_database
from davy.schema.tables import experiments, latest_metrics, params, runs, tags
from davy.tracking.frames import runs_frame
from davy.tracking.search import search_runs
from tracking import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from davy.store.database import Database

BLOCK = 20_000
BEGAN = 1_700_000_000_000
MODELS = ("lr", "gbm", "mlp", "forest")


class Shape(NamedTuple):
    """How many runs there are, what each has, and how many experiments they are spread over."""

    runs: int
    params: int
    metrics: int
    tags: int
    experiments: int


def fill(path: Path, shape: Shape) -> None:
    """Write the runs, a second apart, to the experiments in turn. Indexes are made after the rows, which takes a fraction of the time."""
    open_database(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("synchronous=OFF", "journal_mode=OFF", "cache_size=-500000", "foreign_keys=OFF"):
        connection.execute(f"PRAGMA {pragma}")
    indexes = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name IN "
                                 "('runs', 'params', 'tags', 'latest_metrics')").fetchall()
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")
    draw = random.Random(7)
    _insert(connection, experiments, ("experiment_id", "name", "artifact_location", "lifecycle_stage", "creation_time", "last_update_time"),
            [(number, f"bench-{number}", f"mlflow-artifacts:/{number}", "active", BEGAN, BEGAN) for number in range(1, shape.experiments + 1)])
    for begin in range(0, shape.runs, BLOCK):
        connection.execute("BEGIN")
        for table, (names, rows) in _block(draw, range(begin, min(shape.runs, begin + BLOCK)), shape).items():
            _insert(connection, table, names, rows)
        connection.execute("COMMIT")
    for _, text in indexes:
        connection.execute(text)
    connection.close()


def _insert(connection: sqlite3.Connection, table: Any, names: Sequence[str], rows: list[tuple[Any, ...]]) -> None:
    connection.executemany(f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})", rows)


def _block(draw: random.Random, numbers: range, shape: Shape) -> dict[Any, tuple[tuple[str, ...], list[tuple[Any, ...]]]]:
    """Rows in the order of their keys.

    Most values say nothing of each other. But `m2` is high where `m1` is low, as a loss is beside an accuracy; and `m3` and `p2` grow with time.
    """
    heads: list[tuple[Any, ...]] = []
    given: list[tuple[Any, ...]] = []
    labels: list[tuple[Any, ...]] = []
    curves: list[tuple[Any, ...]] = []
    param_names, metric_names = sorted(f"p{index}" for index in range(1, shape.params + 1)), sorted(f"m{index}" for index in range(1, shape.metrics + 1))
    tag_names = [f"t{index}" for index in range(3, shape.tags + 1)]
    for number in numbers:
        started, age = BEGAN + number * 1000, number / shape.runs
        run_id = f"{started:012x}{draw.getrandbits(80):020x}"
        experiment = 1 + number % shape.experiments
        place = f"mlflow-artifacts:/{experiment}/{run_id}/artifacts"
        heads.append((run_id, experiment, f"run-{number}", "ada", "FINISHED", started, started + 900, "active", place))
        given += [(run_id, name, f"v{int(age * 10)}" if name == "p2" else f"{draw.random():.3f}") for name in param_names]
        labels += [(run_id, "mlflow.runName", f"run-{number}"), (run_id, "model", MODELS[int(draw.random() * len(MODELS))])]
        labels += [(run_id, name, f"value {int(draw.random() * 100)}") for name in tag_names]
        values = {name: draw.random() for name in metric_names}
        values["m2"] = 1 - values["m1"] + values["m2"] / 20
        if "m3" in values:
            values["m3"] = age + values["m3"] / 20
        curves += [(run_id, name, 9, started, value, 0, value / 2, value + 0.5, value, 0, started, 1, 0, 1) for name, value in values.items()]
    return {
        runs: (("run_id", "experiment_id", "name", "user_id", "status", "start_time", "end_time", "lifecycle_stage", "artifact_uri"), heads),
        params: (("run_id", "key", "value"), given), tags: (("run_id", "key", "value"), labels),
        latest_metrics: (("run_id", "key", "step", "timestamp", "value", "is_nan", "lowest", "highest", "last", "last_is_nan", "newest", "count", "chunk",
                          "filled"), curves),
    }


class Case(NamedTuple):
    """A search: its filter and order, and which page of it is measured."""

    filter: str = ""
    order: tuple[str, ...] = ()
    page: int = 1


def cases(shape: Shape) -> dict[str, Case]:
    """What is asked."""
    last = f"metrics.m{shape.metrics}"
    return {
        "newest first": Case(),
        "by a metric": Case("", (f"{last} DESC",)),
        "metric filter, metric order": Case("metrics.m1 > 0.5", (f"{last} DESC",)),
        "beginning of a param, and a tag": Case("params.p3 LIKE '0.1%' and tags.model = 'lr'"),
        "one in 10,000, metric order": Case("metrics.m1 > 0.9999", (last,)),
        "one in 10,000, newest first": Case("metrics.m1 > 0.9999"),
        "one in 50, metric order": Case("metrics.m1 > 0.98", (last,)),
        "or, not, in": Case(f"metrics.m1 > 0.9 or not (tags.model in ('lr', 'gbm') and {last} < 0.5)", ("metrics.m2",)),
        "max, two keys": Case("max(metrics.m1) > 1.2", ("max(metrics.m2) DESC", "params.p1")),
        "metric filter against a metric's order": Case("metrics.m1 > 0.9", ("metrics.m2 DESC",)),
        "wide filter against a metric's order": Case("metrics.m1 > 0.6", ("metrics.m2 DESC",)),
        "metric filter against newest first": Case("metrics.m3 < 0.3"),
        "param against newest first": Case("params.p2 = 'v0'"),
        "param against a metric's order": Case("params.p2 = 'v0'", ("metrics.m3 DESC",)),
        "param that one in 1,000 has": Case("params.p1 = '0.123'"),
        "the same, metric order": Case("params.p1 = '0.123'", (last,)),
        "param that none has": Case("params.p1 = 'none'"),
        "the name of one": Case(f"run_name = 'run-{shape.runs // 2}'"),
        "a user who has none": Case("user_id = 'nobody'"),
        "by a param": Case("", ("params.p1 DESC",)),
        "filter, by a param": Case("metrics.m1 > 0.5", ("params.p1 DESC",)),
        "page 50, newest first": Case(page=50),
        "page 50, metric filter, metric order": Case("metrics.m1 > 0.5", (f"{last} DESC",), 50),
        "page 50, param and tag": Case("params.p3 LIKE '0.1%' and tags.model = 'lr'", page=50),
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


def measure(shape: Shape, page: Callable[[Case, str | None], tuple[int, str | None]], only: str) -> Iterator[tuple[str, Any]]:
    """A page of 100 runs with all that they have, for each case; `page` answers how many came and the next page's token."""
    for name, case in cases(shape).items():
        if only not in name:
            continue
        after = None
        for _ in range(case.page - 1):
            _, after = page(case, after)
        found = timed(partial(page, case, after)) | {"runs": page(case, after)[0]}
        print(f"{name:42}{found['first']:9.0f}{found['median']:9.0f}{found['slowest']:9.0f}{found['runs']:5}", file=sys.stderr, flush=True)
        yield name, found


def in_store(database: Database, experiments: Sequence[int]) -> Callable[[Case, str | None], tuple[int, str | None]]:
    """Searches by the library."""
    def page(case: Case, after: str | None) -> tuple[int, str | None]:
        with database.read() as connection:
            found = search_runs(connection, experiments=experiments, filter=case.filter, order_by=case.order, limit=100, after=after)
        return len(found.runs), found.next

    return page


def over_http(server: Server, experiments: Sequence[int]) -> Callable[[Case, str | None], tuple[int, str | None]]:
    """Searches by MLflow's protocol, on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port)

    def page(case: Case, after: str | None) -> tuple[int, str | None]:
        asked = {"experiment_ids": list(map(str, experiments)), "filter": case.filter, "order_by": case.order, "max_results": 100, "page_token": after}
        connection.request("POST", "/api/2.0/mlflow/runs/search", json.dumps(asked), {"content-type": "application/json"})
        answer = connection.getresponse()
        found = json.loads(answer.read())
        assert answer.status == 200, found
        return len(found.get("runs", ())), found.get("next_page_token")

    return page


def shown(server: Server) -> dict[str, Any]:
    """The page of runs in a browser."""
    asked = {"/runs": "/runs", "/runs by a metric": "/runs?sort=metrics.m1", "/runs with a filter": "/runs?filter=" + quote("metrics.m1 > 0.9999"),
             "/runs of an experiment": "/runs?experiment=bench-1"}
    def get(path: str) -> bytes:
        with urllib.request.urlopen(server.uri + path) as answer:
            return bytes(answer.read())

    return {name: timed(partial(get, path), 5) for name, path in asked.items()}


def walk(database: Database, most: int) -> dict[str, float]:
    """Seconds for all runs, 1,000 a page, up to `most`, and how many they are."""
    began, count, after = time.perf_counter(), 0, None
    with database.read() as connection:
        while count < most:
            page = search_runs(connection, limit=1000, after=after)
            count, after = count + len(page.runs), page.next
            if after is None:
                break
    return {"runs": count, "seconds": round(time.perf_counter() - began, 3)}


def served(path: Path, shape: Shape, asked: Sequence[int], only: str) -> dict[str, Any]:
    """All cases against a server of its own over this database, and the memory that it takes."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "davy.toml").write_text(f'[storage]\ndatabase = "sqlite:///{path.absolute()}"\n')
        server = Server([sys.executable, "-m", "davy", "up", "--only", "tracking", "--port", "{port}"], Path(folder))
        try:
            idle = server.memory()
            found = {"page of 100 over HTTP, ms": dict(measure(shape, over_http(server, asked), only)), "pages, ms": {} if only else shown(server)}
            return found | {"memory idle, MB": idle, "memory after, MB": server.memory()}
        finally:
            server.stop()


def stored(path: Path, shape: Shape, asked: Sequence[int], only: str) -> dict[str, Any]:
    """All cases by the library, a walk, and a data frame."""
    database = open_database(path)

    def frame() -> Any:
        with database.read() as connection:
            return runs_frame(connection, limit=10_000)

    found: dict[str, Any] = {"page of 100, ms": dict(measure(shape, in_store(database, asked), only))}
    if not only:
        found |= {"walk, 1,000 a page": walk(database, 10_000), "data frame of 10,000 runs, ms": timed(frame, 3)}
    database.close()
    return found


def main() -> None:
    """Fill a database, measure, and print JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=int)
    for name, count in (("params", 20), ("metrics", 10), ("tags", 4), ("experiments", 1)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--keep", type=Path, help="the database's file; filled where it is not there yet, and left")
    parser.add_argument("--http", action="store_true", help="against a server, by MLflow's protocol")
    parser.add_argument("--asked", type=int, help="how many of the experiments are searched (default: all)")
    parser.add_argument("--only", default="", help="the cases in whose name this stands")
    given = parser.parse_args()
    shape = Shape(given.runs, given.params, given.metrics, given.tags, given.experiments)
    with tempfile.TemporaryDirectory() as folder:
        path = given.keep or Path(folder) / "davy.db"
        if not path.exists():
            fill(path, shape)
        asked = range(1, (given.asked or given.experiments) + 1)
        print(json.dumps(shape._asdict() | (served if given.http else stored)(path, shape, asked, given.only), indent=1))


if __name__ == "__main__":
    main()
