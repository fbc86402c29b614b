"""Runs: their life, params, tags, batches, inputs and outputs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stock_kit import Pair


def _run(pair: Pair, name: str, **more: Any) -> None:
    """A run of that name, afterwards `$name`, in the experiment `$runs`."""
    if "runs" not in pair.stock.names:
        pair.post("experiments/create", {"name": "runs"}, keep={"runs": "experiment_id"})
    pair.post("runs/create", {"experiment_id": "$runs", "run_name": name, "start_time": 1000, "user_id": "ada", **more}, keep={name: "run.info.run_id"})


def life_of_a_run(pair: Pair) -> None:
    _run(pair, "alive", tags=[{"key": "a", "value": "1"}, {"key": "mlflow.user", "value": "ada"}, {"key": "mlflow.source.type", "value": "LOCAL"}])
    pair.get("runs/get", run_id="$alive")
    for body in (
        {"status": "FINISHED", "end_time": 2000},
        {"run_name": "renamed"},
        {"status": "RUNNING"},
        {},
        {"end_time": 3000},
        {"status": "FAILED", "end_time": 0},
        {"status": "KILLED", "run_name": "renamed again"},
        {"status": "SCHEDULED"},
        {"status": 3},
        {"status": "DONE", "known": "mistyped fields"},
        {"status": "finished", "known": "mistyped fields"},
        {"end_time": "x", "known": "mistyped fields"},
        {"run_name": ""},
        {"run_name": 5},
    ):
        pair.post("runs/update", {"run_id": "$alive", **body})
        pair.get("runs/get", run_id="$alive")
    pair.post("runs/set-tag", {"run_id": "$alive", "key": "mlflow.runName", "value": "by tag"})
    pair.get("runs/get", run_id="$alive")
    pair.post("runs/delete", {"run_id": "$alive"})
    pair.post("runs/delete", {"run_id": "$alive"})
    pair.get("runs/get", run_id="$alive")
    for path, body in (
        ("update", {"status": "FINISHED"}),
        ("log-metric", {"key": "a", "value": 1, "timestamp": 1}),
        ("log-parameter", {"key": "a", "value": "1"}),
        ("set-tag", {"key": "a", "value": "2"}),
        ("delete-tag", {"key": "a"}),
        ("log-batch", {"tags": [{"key": "a", "value": "2"}]}),
        ("log-batch", {}),
        ("log-inputs", {"datasets": []}),
        ("outputs", {"models": [{"model_id": "m-1"}]}),
        ("log-model", {"model_json": "{}"}),
    ):
        pair.post(f"runs/{path}", {"run_id": "$alive", **body})
    pair.post("runs/restore", {"run_id": "$alive"})
    pair.post("runs/restore", {"run_id": "$alive"})
    pair.get("runs/get", run_id="$alive")
    pair.post("runs/delete-tag", {"run_id": "$alive", "key": "a"})
    pair.post("runs/delete-tag", {"run_id": "$alive", "key": "a"})


def names_of_runs(pair: Pair) -> None:
    name = [{"key": "mlflow.runName", "value": "tagged"}]
    _run(pair, "unnamed", run_name=None)
    pair.get("runs/get", run_id="$unnamed")
    _run(pair, "empty", run_name="")
    _run(pair, "tagged", run_name=None, tags=name)
    _run(pair, "agree", run_name="tagged", tags=name)
    _run(pair, "differ", run_name="other", tags=name)
    far = {"experiment_id": "$runs", "start_time": 2**63 - 1, "run_name": "far"}
    pair.post("runs/create", far, known="times that are not milliseconds")
    pair.post("runs/create", {"start_time": 1, "run_name": "no experiment"}, keep={"homeless": "run.info.run_id"}, known="a run without an experiment")
    pair.post("runs/create", {"run_name": "no start"}, keep={"startless": "run.info.run_id"}, known="a run without an experiment")
    for body in (
        {"experiment_id": "99999"},
        {"experiment_id": "abc"},
        {"experiment_id": 0},
        {"start_time": "x"},
        {"start_time": -5, "run_name": "before"},
        {"tags": [{"key": "a"}], "run_name": "r"},
        {"tags": [{"value": "a"}], "run_name": "r", "known": "tags of a new run"},
        {"tags": [{"key": "k" * 251, "value": "v"}], "run_name": "r", "known": "tags of a new run"},
        {"tags": [{"key": "a", "value": 5}], "run_name": "r", "known": "mistyped fields"},
        {"tags": [{"key": "big", "value": "v" * 8001}], "run_name": "r", "known": "tags of a new run"},
        {"user_id": 5, "known": "mistyped fields"},
        {"tags": ["x"], "known": "mistyped fields"},
        {"tags": {"a": "b"}, "known": "mistyped fields"},
    ):
        pair.post("runs/create", {"experiment_id": "$runs", "start_time": 5, **body}, keep={"some": "run.info.run_id"})
    pair.post(
        "runs/create",
        {"experiment_id": "$runs", "start_time": 5, "run_name": "same key", "tags": [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]},
        keep={"samekey": "run.info.run_id"},
        known="tags of a new run",
    )
    for query in ({}, {"run_id": ""}, {"run_id": "nobody"}, {"run_id": "0" * 32}, {"run_id": "../x"}):
        pair.get("runs/get", **query)
    for path in ("delete", "restore", "update"):
        for body in ({}, {"run_id": "nobody"}, {"run_id": 5}):
            pair.post(f"runs/{path}", body)


def params(pair: Pair) -> None:
    _run(pair, "params")
    for body in (
        {"key": "lr", "value": "0.1"},
        {"key": "lr", "value": "0.1"},
        {"key": "lr", "value": "0.2"},
        {"key": "empty", "value": ""},
        {"key": "absent"},
        {"value": "x"},
        {},
        {"key": "", "value": "x"},
        {"key": 5, "value": "x"},
        {"key": "number", "value": 5},
        {"key": "list", "value": [1]},
        {"key": "null", "value": None},
        {"key": "k" * 250, "value": "x"},
        {"key": "k" * 251, "value": "x"},
        {"key": "k" * 10000, "value": "x"},
        {"key": "long", "value": "v" * 6000},
        {"key": "longer", "value": "v" * 6001},
        {"key": "longer", "value": "v" * 6002},
        {"key": "ünï cödé/日本: -._", "value": "🙂"},
        {"key": "a/b", "value": "1"},
        {"key": "/a", "value": "1"},
        {"key": "a//b", "value": "1"},
        {"key": "a/../b", "value": "1"},
        {"key": "./a", "value": "1"},
        {"key": "..", "value": "1"},
        {"key": "a?b", "value": "1"},
        {"key": "a%b", "value": "1"},
        {"key": "a\nb", "value": "1"},
        {"key": "a\\b", "value": "1"},
        {"key": " ", "value": "1"},
    ):
        pair.post("runs/log-parameter", {"run_id": "$params", **body})
    pair.post("runs/log-parameter", {"key": "a", "value": "b"})
    pair.post("runs/log-parameter", {"run_id": "nobody", "key": "a", "value": "b"})
    pair.post("runs/log-parameter", {"run_uuid": "$params", "key": "by uuid", "value": "b"})
    pair.get("runs/get", run_id="$params")


def tags(pair: Pair) -> None:
    _run(pair, "tags")
    for body in (
        {"key": "a", "value": "1"},
        {"key": "a", "value": "2"},
        {"key": "empty", "value": ""},
        {"key": "absent"},
        {"value": "x"},
        {},
        {"key": "", "value": "x"},
        {"key": "number", "value": 5},
        {"key": "k" * 250, "value": "x"},
        {"key": "k" * 251, "value": "x"},
        {"key": "long", "value": "v" * 8000},
        {"key": "longer", "value": "v" * 8001},
        {"key": "a?b", "value": "1"},
        {"key": "a//b", "value": "1"},
        {"key": "mlflow.note.content", "value": "# Hello"},
        {"key": "mlflow.runName", "value": ""},
        {"key": "mlflow.runName", "value": "n" * 300},
    ):
        pair.post("runs/set-tag", {"run_id": "$tags", **body})
    pair.get("runs/get", run_id="$tags")
    for body in ({"key": "a"}, {"key": "a"}, {"key": "nothing"}, {}, {"key": ""}, {"key": 5}):
        pair.post("runs/delete-tag", {"run_id": "$tags", **body})
    pair.post("runs/set-tag", {"run_id": "nobody", "key": "a", "value": "b"})
    pair.post("runs/delete-tag", {"run_id": "nobody", "key": "a"})
    pair.get("runs/get", run_id="$tags")


def batches(pair: Pair) -> None:
    _run(pair, "batch")

    def metric(number: int) -> dict[str, Any]:
        return {"key": f"m{number % 7}", "value": number / 4, "timestamp": 100 + number, "step": number}

    def pairs(count: int, key: str = "k") -> list[dict[str, str]]:
        return [{"key": f"{key}{number:03}", "value": str(number)} for number in range(count)]

    for body in (
        {},
        {"metrics": [metric(n) for n in range(50)], "params": pairs(5, "p"), "tags": pairs(4, "t")},
        {"params": pairs(5, "p")},
        {"tags": pairs(4, "t")},
        {"metrics": [metric(n) for n in range(1000)]},
        {"metrics": [metric(n) for n in range(1001)]},
        {"params": pairs(100, "q")},
        {"params": pairs(101, "q")},
        {"tags": pairs(100, "u")},
        {"tags": pairs(101, "u")},
        {"metrics": [metric(n) for n in range(900)], "params": pairs(60, "s"), "tags": pairs(41, "s")},
        {"params": [{"key": "p000", "value": "changed"}]},
        {"params": [{"key": "p001", "value": "changed"}, {"key": "fresh", "value": "1"}]},
        {"params": [{"key": "twice", "value": "1"}, {"key": "twice", "value": "1"}]},
        {"params": [{"key": "twice", "value": "1"}, {"key": "twice", "value": "2"}]},
        {"tags": [{"key": "twice", "value": "1"}, {"key": "twice", "value": "2"}]},
        {"params": [{"key": "x"}]},
        {"tags": [{"key": "y"}]},
        {"params": [{"value": "x"}]},
        {"params": [{"key": "", "value": "x"}]},
        {"tags": [{"value": "x"}]},
        {"metrics": [{}]},
        {"metrics": [{"key": "a"}]},
        {"metrics": [{"key": "a", "value": 1}]},
        {"metrics": [{"key": "a", "timestamp": 1}]},
        {"metrics": [{"value": 1, "timestamp": 1}]},
        {"metrics": [metric(1), {"key": "", "value": 1, "timestamp": 1}]},
        {"metrics": [{"key": "a", "value": "x", "timestamp": 1}], "known": "mistyped fields"},
        {"metrics": [{"key": "a", "value": 1, "timestamp": "x"}], "known": "mistyped fields"},
        {"metrics": [{"key": "a", "value": 1, "timestamp": -1}]},
        {"metrics": [{"key": "a?", "value": 1, "timestamp": 1}]},
        {"metrics": [{"key": "k" * 251, "value": 1, "timestamp": 1}]},
        {"params": [{"key": "k" * 251, "value": "1"}]},
        {"params": [{"key": "long", "value": "v" * 6001}]},
        {"tags": [{"key": "long", "value": "v" * 8001}]},
        {"tags": [{"key": "mlflow.runName", "value": "batch named"}]},
        {"metrics": "x"},
        {"params": {}},
        {"tags": 5},
        {"metrics": [5]},
        {"params": [{"key": 5, "value": "1"}], "known": "mistyped fields"},
        {"tags": [{"key": "n", "value": 5}], "known": "mistyped fields"},
        {"params": [{"key": "../p", "value": "1"}]},
        {"tags": [{"key": "a//b", "value": "1"}]},
    ):
        pair.post("runs/log-batch", {"run_id": "$batch", **body})
    pair.post("runs/log-batch", {"metrics": [metric(1)]})
    pair.post("runs/log-batch", {"run_id": "nobody", "metrics": [metric(1)]})
    pair.get("runs/get", run_id="$batch", known="mistyped fields")
    _run(pair, "halves")
    pair.post("runs/log-batch", {"run_id": "$halves", "params": [{"key": "a", "value": "1"}]})
    pair.post(
        "runs/log-batch", {"run_id": "$halves", "metrics": [metric(0)], "params": [{"key": "b", "value": "1"}, {"key": "a", "value": "2"}], "tags": pairs(1)}
    )
    pair.get("runs/get", run_id="$halves")


def inputs_and_outputs(pair: Pair) -> None:
    _run(pair, "inputs")
    dataset = {
        "name": "flights",
        "digest": "abc123",
        "source_type": "local",
        "source": json.dumps({"uri": "x"}),
        "schema": "{}",
        "profile": json.dumps({"num_rows": 3}),
    }
    other = {"name": "weather", "digest": "d2", "source_type": "local", "source": "{}"}
    for body in (
        {"datasets": [{"dataset": dataset, "tags": [{"key": "mlflow.data.context", "value": "training"}]}, {"dataset": other}]},
        {"datasets": [{"dataset": dataset, "tags": [{"key": "mlflow.data.context", "value": "training"}]}]},
        {"datasets": [{"dataset": dataset, "tags": [{"key": "more", "value": "x"}]}]},
        {},
        {"datasets": []},
        {"datasets": [{}], "known": "incomplete datasets"},
        {"datasets": [{"dataset": {"name": "n", "digest": "d"}}], "known": "incomplete datasets"},
        {"datasets": [{"dataset": {**other, "name": "n" * 501}}]},
        {"datasets": [{"dataset": {**other, "digest": "d" * 37}}]},
        {"datasets": [{"dataset": {**other, "name": "big", "source": "s" * 65536}}]},
        {"datasets": [{"dataset": {**other, "name": 5}}], "known": "mistyped fields"},
        {"datasets": [{"dataset": other, "tags": [{"key": "k" * 256, "value": "v"}]}]},
        {"datasets": [{"dataset": other, "tags": [{"key": "k", "value": "v" * 501}]}]},
        {"datasets": "x"},
        {"models": [{"model_id": "m-none"}], "known": "links to no model"},
    ):
        pair.post("runs/log-inputs", {"run_id": "$inputs", **body})
    pair.get("runs/get", run_id="$inputs", known="incomplete datasets")
    pair.post("runs/log-inputs", {"run_id": "nobody", "datasets": []})
    pair.post("runs/log-inputs", {"datasets": []})
    pair.post("/ajax-api/2.0/mlflow/experiments/search-datasets", {"experiment_ids": ["$runs"]}, known="incomplete datasets")
    for body in (
        {},
        {"experiment_ids": []},
        {"experiment_ids": [str(number) for number in range(21)]},
        {"experiment_ids": "x", "known": "mistyped fields"},
        {"experiment_ids": ["99999"]},
    ):
        pair.post("/ajax-api/2.0/mlflow/experiments/search-datasets", body)
    pair.post("logged-models", {"experiment_id": "$runs", "name": "out", "source_run_id": "$inputs"}, keep={"output": "model.info.model_id"})
    for body in (
        {"models": [{"model_id": "$output", "step": 3}]},
        {"models": [{"model_id": "$output", "step": 3}], "known": "links that are there"},
        {},
        {"models": []},
        {"models": [{}], "known": "links to no model"},
        {"models": [{"model_id": "m-none", "step": 0}], "known": "links to no model"},
        {"models": "x"},
    ):
        pair.post("runs/outputs", {"run_id": "$inputs", **body})
    pair.post("runs/outputs", {"run_id": "nobody", "models": [{"model_id": "$output"}]})
    pair.get("runs/get", run_id="$inputs", known="links to no model")
    for body in (
        {},
        {"model_json": "{"},
        {"model_json": "[]"},
        {"model_json": "{}"},
        {"model_json": json.dumps({"run_id": "x", "artifact_path": "m", "utc_time_created": "t", "flavors": {}})},
    ):
        pair.post("runs/log-model", {"run_id": "$inputs", **body})
    pair.get("runs/get", run_id="$inputs", known="links to no model")


SCRIPTS = (life_of_a_run, names_of_runs, params, tags, batches, inputs_and_outputs)
