"""What a client of an MLflow server gets: run by `benchmarks/tracking.py` in an environment that has `mlflow`, against any server.

    .venv-mlflow3/bin/python benchmarks/clients/tracking.py URI [--runs 10000] [--create 200] [--repeats 3] [--experiment NAME]

Each phase is done with the unmodified client and, where the client itself may be the limit, with plain HTTP on one kept-alive
connection (`raw`). Medians of the repeats; prints one JSON object.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import random
import socket
import statistics
import threading
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "GIT_PYTHON_REFRESH": "quiet", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
now = time.perf_counter
START = 1_700_000_000_000
FILTER, ORDER = "metrics.m3 > 0.5", ["metrics.m7 DESC"]


class Raw:
    """One kept-alive connection."""

    def __init__(self, uri: str) -> None:
        self.where = urllib.parse.urlparse(uri)
        self._connect()

    def _connect(self) -> None:
        self.connection = http.client.HTTPConnection(self.where.hostname or "", self.where.port, timeout=300)
        self.connection.connect()
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body)
        try:
            response = self._ask(method, path, data)
        except (http.client.HTTPException, ConnectionError):  # some servers close what was idle for a few seconds
            self._connect()
            response = self._ask(method, path, data)
        answer = response.read()
        if response.status != 200:
            raise RuntimeError(f"{response.status} {path}: {answer[:300]!r}")
        return json.loads(answer)

    def _ask(self, method: str, path: str, data: str | None) -> http.client.HTTPResponse:
        self.connection.request(method, f"/api/2.0/mlflow/{path}", data, {"Content-Type": "application/json"})
        return self.connection.getresponse()

    def get(self, path: str, **query: Any) -> Any:
        return self.call("GET", f"{path}?{urllib.parse.urlencode(query, doseq=True)}")

    def post(self, path: str, **body: Any) -> Any:
        return self.call("POST", path, body)


class Bench:
    """The phases, each adding to `results`: name -> one value a repeat."""

    def __init__(self, uri: str, runs: int, create: int, experiment: str | None) -> None:
        from mlflow import MlflowClient

        self.uri, self.runs, self.create = uri, runs, create
        self.client, self.raw = MlflowClient(tracking_uri=uri, registry_uri=uri), Raw(uri)
        self.results: dict[str, list[float]] = {}
        self.tag = f"{int(time.time())}-{os.getpid()}"
        self.experiment = experiment or f"search-{self.tag}"

    def timed(self, name: str, count: int, work: Callable[[], Any]) -> Any:
        """Note how many were done a second (or, for one, the seconds)."""
        began = now()
        found = work()
        took = now() - began
        self.results.setdefault(name, []).append(took if count == 1 else count / took)
        return found

    def write(self, repeat: int) -> None:
        from mlflow.entities import Metric

        client, raw = self.client, self.raw
        experiment = client.create_experiment(f"write-{self.tag}-{repeat}")
        run = client.create_run(experiment).info.run_id
        for step in range(20):
            client.log_metric(run, "warm", step, step=step)
        count = 400
        self.timed("log_metric client, calls/s", count, lambda: [client.log_metric(run, "loss", i / count, step=i) for i in range(count)])
        self.timed("log_metric raw, calls/s", count, lambda: [
            raw.post("runs/log-metric", run_id=run, key="raw", value=i / count, timestamp=START + i, step=i) for i in range(count)])
        for name, keys in (("1 key", 1), ("100 keys", 100)):
            points = [[Metric(f"c{keys}/{i % keys}", i * 0.5, START + b * 1000 + i, b * 1000 + i) for i in range(1000)] for b in range(20)]
            self.timed(f"log_batch of 1,000 client, {name}, points/s", 20_000, lambda points=points: [client.log_batch(run, metrics=x) for x in points])
            bodies = [[{"key": f"r{keys}/{i % keys}", "value": i * 0.5, "timestamp": START + b * 1000 + i, "step": b * 1000 + i} for i in range(1000)]
                      for b in range(20)]
            self.timed(f"log_batch of 1,000 raw, {name}, points/s", 20_000,
                       lambda bodies=bodies: [raw.post("runs/log-batch", run_id=run, metrics=x) for x in bodies])
        runs = [client.create_run(experiment).info.run_id for _ in range(8)]
        self.timed("8 client threads, batches of 100, points/s", 16_000, lambda: self._threads(runs))
        self.timed("8 raw processes, batches of 100, points/s", 32_000, lambda: _processes(self.uri, runs))
        self.timed("runs of 20 params + 10 metrics client, runs/s", self.create, lambda: make_runs(client, experiment, self.create, repeat))
        self.timed("runs of 20 params + 10 metrics raw, runs/s", self.create, lambda: make_raw_runs(raw, experiment, self.create, repeat))

    def _threads(self, runs: list[str]) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric

        def write(run: str) -> None:
            client = MlflowClient(tracking_uri=self.uri)
            for batch in range(20):
                client.log_batch(run, metrics=[Metric(f"w{i % 10}", i, START + i, batch * 100 + i) for i in range(100)])

        threads = [threading.Thread(target=write, args=(run,)) for run in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def fill(self) -> None:
        """A curve of 100,000 points, and the experiment that is searched unless it is there."""
        client = self.client
        self.long = client.create_run(client.create_experiment(f"history-{self.tag}")).info.run_id
        for batch in range(100):
            self.raw.post("runs/log-batch", run_id=self.long, metrics=[
                {"key": "h", "value": i * 0.5, "timestamp": START + batch * 1000 + i, "step": batch * 1000 + i} for i in range(1000)])
        found = client.get_experiment_by_name(self.experiment)
        self.searched = found.experiment_id if found else client.create_experiment(self.experiment)
        if not found:
            make_raw_runs(self.raw, self.searched, self.runs, 100)

    def read(self) -> None:
        client, raw, searched = self.client, self.raw, self.searched
        self.timed("history of 100,000 points client, s", 1, lambda: client.get_metric_history(self.long, "h"))
        points = self.timed("history of 100,000 points raw, s", 1, lambda: raw.get("metrics/get-history", run_id=self.long, metric_key="h"))
        assert len(points["metrics"]) == 100_000
        few = self.timed("320 of 100,000 points for a chart, s", 1,
                         lambda: raw.get("metrics/get-history-bulk-interval", run_ids=[self.long], metric_key="h", max_results=320))
        assert 300 < len(few["metrics"]) <= 321
        self.timed("search by metric, ordered, page of 100 client, s", 1, lambda: client.search_runs([searched], FILTER, max_results=100, order_by=ORDER))
        page = self.timed("search by metric, ordered, page of 100 raw, s", 1,
                          lambda: raw.post("runs/search", experiment_ids=[searched], filter=FILTER, max_results=100, order_by=ORDER))
        assert len(page["runs"]) == 100
        self.timed("search by param and tag, page of 100 raw, s", 1, lambda: raw.post(
            "runs/search", experiment_ids=[searched], filter="params.p3 LIKE '0.1%' and tags.model = 'lr'", max_results=100))
        self.timed("newest 100 raw, s", 1, lambda: raw.post("runs/search", experiment_ids=[searched], max_results=100))

    def walk(self) -> None:
        def client_walk() -> int:
            token, seen = None, 0
            while True:
                page = self.client.search_runs([self.searched], "", max_results=1000, page_token=token)
                seen, token = seen + len(page), page.token
                if not token:
                    return seen

        def raw_walk() -> int:
            token, seen = None, 0
            while True:
                page = self.raw.post("runs/search", experiment_ids=[self.searched], max_results=1000, page_token=token)
                seen, token = seen + len(page["runs"]), page.get("next_page_token")
                if not token:
                    return seen

        assert self.timed(f"walk {self.runs:,} runs, 1,000 a page client, s", 1, client_walk) >= self.runs
        assert self.timed(f"walk {self.runs:,} runs, 1,000 a page raw, s", 1, raw_walk) >= self.runs

    def registry(self, repeat: int) -> None:
        client, raw, name, count = self.client, self.raw, f"model-{self.tag}-{repeat}", 50
        client.create_registered_model(name)
        source = f"runs:/{self.long}/model"
        self.timed("create a model version client, 1/s", count, lambda: [
            client.create_model_version(name, source, self.long, await_creation_for=0) for _ in range(count)])
        self.timed("create a model version raw, 1/s", count, lambda: [
            raw.post("model-versions/create", name=name, source=source, run_id=self.long) for _ in range(count)])
        client.set_registered_model_alias(name, "champion", "1")
        self.timed("version by alias client, 1/s", 4 * count, lambda: [client.get_model_version_by_alias(name, "champion") for _ in range(4 * count)])
        self.timed("version by alias raw, 1/s", 4 * count, lambda: [raw.get("registered-models/alias", name=name, alias="champion") for _ in range(4 * count)])


def values(index: int, seed: int) -> tuple[list[tuple[str, str]], list[tuple[str, float]]]:
    rnd = random.Random(seed * 1_000_003 + index)
    return [(f"p{k}", str(rnd.random())) for k in range(20)], [(f"m{k}", rnd.random()) for k in range(10)]


def make_runs(client: Any, experiment: str, count: int, seed: int) -> None:
    from mlflow.entities import Metric, Param

    for i in range(count):
        params, metrics = values(i, seed)
        run = client.create_run(experiment, run_name=f"run-{seed}-{i}", tags={"model": "lgbm" if i % 3 else "lr"}).info.run_id
        client.log_batch(run, metrics=[Metric(k, v, START + i, 0) for k, v in metrics], params=[Param(k, v) for k, v in params])
        client.set_terminated(run)


def make_raw_runs(raw: Raw, experiment: str, count: int, seed: int) -> None:
    for i in range(count):
        params, metrics = values(i, seed)
        run = raw.post("runs/create", experiment_id=experiment, start_time=START + i, run_name=f"run-{seed}-{i}",
                       tags=[{"key": "model", "value": "lgbm" if i % 3 else "lr"}])["run"]["info"]["run_id"]
        raw.post("runs/log-batch", run_id=run, metrics=[{"key": k, "value": v, "timestamp": START + i, "step": 0} for k, v in metrics],
                 params=[{"key": k, "value": v} for k, v in params])
        raw.post("runs/update", run_id=run, status="FINISHED", end_time=START + i + 1000)


def _batches(uri: str, run: str) -> None:
    raw = Raw(uri)
    for batch in range(40):
        raw.post("runs/log-batch", run_id=run, metrics=[{"key": f"p{i % 10}", "value": i, "timestamp": START + i, "step": batch * 100 + i} for i in range(100)])


def _processes(uri: str, runs: list[str]) -> None:
    children = [multiprocessing.get_context("fork").Process(target=_batches, args=(uri, run)) for run in runs]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("uri")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--create", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--experiment", help="search in this one, if it is there")
    given = parser.parse_args()
    bench = Bench(given.uri, given.runs, given.create, given.experiment)
    for repeat in range(given.repeats):
        bench.write(repeat)
    bench.fill()
    for repeat in range(given.repeats):
        bench.read()
        bench.walk()
        bench.registry(repeat)
    print(json.dumps({name: round(statistics.median(found), 5) for name, found in bench.results.items()}))


if __name__ == "__main__":
    main()
