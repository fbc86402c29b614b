"""Experiments, and how messages are written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stock_kit import Pair

BEYOND, MISREAD, BETTER, TWICE = "a filter beyond stock's", "a filter that stock misreads", "another reason", "one field twice in order_by"
KNOWN_FILTERS = {"name = 'a' OR name = 'b'": BEYOND, "(name = 'a')": BEYOND, "name IN ('a', 'b')": BEYOND, "nothing = 'x'": BETTER, "AND": MISREAD}


def life_of_an_experiment(pair: Pair) -> None:
    pair.get("experiments/get", experiment_id="0")
    pair.get("experiments/get-by-name", experiment_name="Default")
    pair.get("experiments/get-by-name", experiment_name="life")
    pair.post("experiments/create", {"name": "life", "tags": [{"key": "team", "value": "air"}, {"key": "note", "value": ""}]}, keep={"life": "experiment_id"})
    pair.get("experiments/get", experiment_id="$life")
    pair.get("experiments/get-by-name", experiment_name="life")
    pair.post("experiments/create", {"name": "life"})
    pair.post("experiments/update", {"experiment_id": "$life", "new_name": "life two"})
    pair.get("experiments/get-by-name", experiment_name="life")
    pair.get("experiments/get-by-name", experiment_name="life two")
    pair.post("runs/create", {"experiment_id": "$life", "run_name": "first", "start_time": 5}, keep={"first": "run.info.run_id"})
    pair.post("runs/create", {"experiment_id": "$life", "run_name": "second", "start_time": 6}, keep={"second": "run.info.run_id"})
    pair.post("runs/delete", {"run_id": "$second"})
    pair.post("experiments/delete", {"experiment_id": "$life"})
    pair.post("experiments/delete", {"experiment_id": "$life"})
    pair.get("experiments/get", experiment_id="$life")
    pair.get("experiments/get-by-name", experiment_name="life two")
    pair.get("runs/get", run_id="$first")
    pair.post("experiments/create", {"name": "life two"})
    pair.post("experiments/update", {"experiment_id": "$life", "new_name": "x"})
    pair.post("experiments/set-experiment-tag", {"experiment_id": "$life", "key": "a", "value": "b"})
    pair.post("runs/create", {"experiment_id": "$life"})
    pair.post("runs/log-metric", {"run_id": "$first", "key": "a", "value": 1, "timestamp": 1})
    pair.post("experiments/restore", {"experiment_id": "$life"})
    pair.post("experiments/restore", {"experiment_id": "$life"})
    pair.get("experiments/get", experiment_id="$life")
    pair.get("runs/get", run_id="$first")
    pair.get("runs/get", run_id="$second")


def experiment_tags(pair: Pair) -> None:
    pair.post("experiments/create", {"name": "tags"}, keep={"tagged": "experiment_id"})
    for key, value in (
        ("a", "1"),
        ("a", "2"),
        ("empty", ""),
        ("unicode ü", "日本語 🙂"),
        ("/odd key:", "x"),
        ("k" * 250, "v"),
        ("k" * 251, "v"),
        ("big", "v" * 5000),
        ("bigger", "v" * 5001),
        ("", "x"),
        ("a//b", "x"),
        ("../up", "x"),
        ("bad?key", "x"),
    ):
        pair.post("experiments/set-experiment-tag", {"experiment_id": "$tagged", "key": key, "value": value})
    pair.get("experiments/get", experiment_id="$tagged")
    pair.post("experiments/delete-experiment-tag", {"experiment_id": "$tagged", "key": "a"})
    pair.post("experiments/delete-experiment-tag", {"experiment_id": "$tagged", "key": "a"})
    pair.post("experiments/set-experiment-tag", {"experiment_id": "$tagged", "key": "a"})
    pair.post("experiments/set-experiment-tag", {"experiment_id": "$tagged", "value": "a"})
    pair.post("experiments/set-experiment-tag", {"key": "a", "value": "a"})
    pair.post("experiments/set-experiment-tag", {"experiment_id": "99999", "key": "a", "value": "a"})
    pair.post("experiments/set-experiment-tag", {"experiment_id": "$tagged", "key": 5, "value": "a"})
    pair.post("experiments/set-experiment-tag", {"experiment_id": "$tagged", "key": "n", "value": 5})


def bad_experiments(pair: Pair) -> None:
    for body in (
        {},
        {"name": ""},
        {"name": None},
        {"name": 5},
        {"name": ["x"]},
        {"name": {}},
        {"name": "n" * 501},
        {"name": "ok", "tags": "x"},
        {"name": "located", "artifact_location": "mlflow-artifacts:/a/../b", "known": "artifact locations"},
        {"name": "located", "artifact_location": "mlflow-artifacts:/x#y"},
        {"name": "located", "artifact_location": "runs:/x/y"},
        {"name": "located", "artifact_location": 5},
    ):
        pair.post("experiments/create", body)
    pair.post("experiments/create", {"name": "n" * 500}, keep={"long": "experiment_id"})
    pair.get("experiments/get", experiment_id="$long")
    pair.post("experiments/create", {"name": "placed", "artifact_location": "mlflow-artifacts:/placed/here"}, keep={"placed": "experiment_id"})
    pair.get("experiments/get", experiment_id="$placed")
    pair.post("runs/create", {"experiment_id": "$placed", "run_name": "r", "start_time": 1}, keep={"placed_run": "run.info.run_id"})
    for query in (
        {},
        {"experiment_id": ""},
        {"experiment_id": "99999"},
        {"experiment_id": "abc"},
        {"experiment_id": "-1"},
        {"experiment_id": "1.5"},
        {"experiment_id": "99999999999999999999"},
        {"other": "1"},
        {"experimentId": "0", "known": "camelCase"},
    ):
        pair.get("experiments/get", **query)
    for query in ({}, {"experiment_name": ""}, {"experiment_name": "none such"}):
        pair.get("experiments/get-by-name", **query)
    for verb in ("delete", "restore", "update"):
        for body in ({}, {"experiment_id": "99999"}, {"experiment_id": "abc"}, {"experiment_id": 0.5}, {"experiment_id": True}):
            pair.post(f"experiments/{verb}", {**body, **({"new_name": "n"} if verb == "update" else {})})
    pair.post("experiments/update", {"experiment_id": "$long"})
    pair.post("experiments/update", {"experiment_id": "$long", "new_name": ""})
    pair.post("experiments/update", {"experiment_id": "$long", "new_name": "placed"}, known="a name that is taken")
    pair.post("experiments/update", {"experiment_id": "$long", "new_name": "n" * 501})


def writing_of_messages(pair: Pair) -> None:
    """proto3 JSON: camelCase, integers as texts, bodies that were encoded twice, null, unknown fields."""
    path = "/api/2.0/mlflow/runs/create"
    pair.post(path, {"experimentId": "0", "runName": "camel", "startTime": "17", "userId": "u"}, keep={"camel": "run.info.run_id"})
    pair.ask("POST", path, json.dumps(json.dumps({"experiment_id": "0", "run_name": "twice", "start_time": 3})).encode(), keep={"twice": "run.info.run_id"})
    pair.post(path, {"experiment_id": "0", "experimentId": "0", "run_name": "both"})
    pair.post(path, {"experiment_id": "0", "run_name": "unknown", "start_time": 1, "surprise": {"a": [1]}}, keep={"unknown": "run.info.run_id"})
    pair.post(
        path,
        {"experiment_id": None, "run_name": "null", "start_time": None, "tags": None},
        keep={"null": "run.info.run_id"},
        known="a run without an experiment",
    )
    pair.post("runs/log-metric", {"runId": "$camel", "key": "a", "value": "2.5", "timestamp": "10", "step": "-4"}, known="camelCase")
    pair.post("runs/log-metric", {"run_uuid": "$camel", "key": "b", "value": 2, "timestamp": 10.0})
    pair.post("runs/log-metric", {"run_id": "$camel", "key": "c", "value": 1, "timestamp": 10.5}, known="mistyped fields")
    pair.post("runs/log-metric", {"run_id": "$camel", "key": "d", "value": "x", "timestamp": 10})
    pair.post("runs/log-metric", {"run_id": "$camel", "key": "e", "value": 1, "timestamp": "99999999999999999999"}, known="mistyped fields")
    pair.post("runs/log-metric", {"run_id": "$camel", "key": "f", "value": 1, "timestamp": 1, "step": 1.5}, known="mistyped fields")
    pair.post("runs/log-metric", {"run_id": "$camel", "key": "g", "value": [1], "timestamp": 1})
    pair.post("runs/log-metric", {"run_id": "$camel", "key": "h", "value": True, "timestamp": 1}, known="mistyped fields")
    pair.post("runs/log-metric", {"run_id": "$camel", "key": "i", "value": 1e400, "timestamp": 1})
    pair.get("runs/get", run_id="$camel", known="mistyped fields")
    pair.get("runs/get", run_uuid="$camel", known="mistyped fields")
    pair.get("runs/get", runId="$camel", known="camelCase")
    pair.get("runs/get", run_id=["nobody", "$camel"])
    pair.ask("POST", path, b"{", known="malformed JSON")
    pair.ask("POST", "runs/search", b"not json", known="malformed JSON")
    pair.ask("POST", "experiments/create", b"[1]", known="malformed JSON")
    pair.ask("POST", "experiments/create", b"")
    pair.ask("POST", "experiments/create", b'{"name":"x"}', headers={"Content-Type": "text/plain"})
    pair.ask(
        "POST", "experiments/create", b'{"name":"charset"}', headers={"Content-Type": "application/json; charset=utf-8"}, keep={"charset": "experiment_id"}
    )
    pair.ask("GET", "experiments/get", experiment_id="0", headers={"Content-Type": "text/plain"})
    pair.ask("POST", "experiments/create", b'{"name":"\\ud800"}', known="malformed JSON")
    pair.ask("POST", "experiments/create", b'{"name":"\xff"}', known="malformed JSON")
    pair.ask("POST", "/ajax-api/2.0/mlflow/runs/create", {"experiment_id": "0", "run_name": "browser", "start_time": 2}, keep={"browser": "run.info.run_id"})
    pair.ask("GET", "/ajax-api/2.0/mlflow/runs/get", run_id="$browser")
    pair.ask("GET", "/api/2.0/mlflow/runs/nothing", known="unknown route")
    pair.ask("POST", "/api/2.0/mlflow/nothing/at/all", {}, known="unknown route")
    pair.ask("GET", "/api/2.0/mlflow/runs/create", known="wrong method")
    pair.ask("DELETE", "/api/2.0/mlflow/runs/delete", {"run_id": "$camel"}, known="wrong method")
    pair.ask("PATCH", "/api/2.0/mlflow/experiments/update", {}, known="wrong method")
    pair.ask("GET", "/health", known="health and version")
    pair.ask("GET", "/version", known="health and version")


def searches_for_experiments(pair: Pair) -> None:
    for number in range(7):
        pair.post(
            "experiments/create",
            {
                "name": f"find/{number}" if number % 2 else f"Find/{number}",
                "tags": [{"key": "parity", "value": "odd" if number % 2 else "even"}, {"key": "n", "value": str(number)}] if number < 6 else [],
            },
            keep={f"find{number}": "experiment_id"},
        )
    pair.post("experiments/delete", {"experiment_id": "$find5"})
    within = "name ILIKE 'find/%'"
    for condition in (
        within,
        "name LIKE 'find/%'",
        "name = 'find/1'",
        f"name != 'find/1' AND {within}",
        f"tags.parity = 'odd' AND {within}",
        f"tags.parity != 'odd' AND {within}",
        f"tags.`parity` LIKE 'e%' AND {within}",
        f"tag.n ILIKE '3' AND {within}",
        f"tags.n IS NULL AND {within}",
        f"tags.n IS NOT NULL AND {within}",
        f"creation_time > 0 AND {within}",
        f"last_update_time >= 1000 AND attribute.{within}",
        f"creation_time < 5 AND {within}",
        "experiment_id = '$find1'",
        "experiment_id IN ('$find1', '$find2')",
        f"experiment_id NOT IN ('$find1', '$find2') AND {within}",
        f"experiment_id != '$find1' AND {within}",
        'attributes.name = "find/3" AND tags."parity" = "odd"',
    ):
        for view in ("ACTIVE_ONLY", "DELETED_ONLY", "ALL"):
            pair.post("experiments/search", {"filter": condition, "view_type": view, "max_results": 100, "order_by": ["name ASC"]})
    for order in (["name"], ["name DESC"], ["experiment_id ASC"], ["experiment_id desc"], ["name ASC", "experiment_id DESC"], ["attribute.name"], []):
        pair.post("experiments/search", {"filter": within, "order_by": order, "max_results": 100})
        pair.get("experiments/search", filter=within, order_by=order, max_results=100)
    pair.walk("experiments/search", "experiments", {"filter": within, "order_by": ["name"], "max_results": 2})
    pair.walk("experiments/search", "experiments", {"filter": within, "order_by": ["name DESC"], "max_results": 3, "view_type": "ALL"}, method="GET")
    pair.post("experiments/search", {"filter": "name = 'nobody'", "max_results": 1})
    for body in (
        {},
        {"max_results": 0},
        {"max_results": -1},
        {"max_results": 50001},
        {"max_results": "x"},
        {"view_type": "ACTIVE", "known": "mistyped fields"},
        {"view_type": 2, "max_results": 1000, "filter": within},
        {"page_token": "bad", "max_results": 5},
    ):
        pair.post("experiments/search", body if body else {"filter": within, "known": "a page without a size"})


def bad_searches_for_experiments(pair: Pair) -> None:
    for condition in (
        "name = ",
        "name",
        "name ~ 'x'",
        "name = x",
        "name = 5",
        "name > 'a'",
        "metrics.a = 5",
        "params.a = 'b'",
        "nothing = 'x'",
        "attributes.nothing = 'x'",
        "creation_time = 'x'",
        "creation_time LIKE '5'",
        "name = 'a' OR name = 'b'",
        "name = 'unclosed",
        "tags.a > 'b'",
        "tags = 'x'",
        "name IN ('a', 'b')",
        "experiment_id IN 'a'",
        "experiment_id IN ()",
        "name = 'a' name = 'b'",
        "AND",
        "= 'x'",
        "tags.a IS",
        "(name = 'a')",
    ):
        pair.post("experiments/search", {"filter": condition, "max_results": 5}, known=KNOWN_FILTERS.get(condition))
    for order, known in (
        (["nothing"], BETTER),
        (["name UP"], None),
        (["metrics.a"], None),
        (["tags.a"], BEYOND),
        (["name ASC DESC"], None),
        ([""], None),
        (["name", "name"], TWICE),
        ([5], "mistyped fields"),
    ):
        pair.post("experiments/search", {"order_by": order, "max_results": 5}, known=known)


SCRIPTS = (life_of_an_experiment, experiment_tags, bad_experiments, writing_of_messages, searches_for_experiments, bad_searches_for_experiments)
