"""Metrics: what is latest, histories, samples for charts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stock_kit import Pair


def points(pair: Pair) -> None:
    pair.post("experiments/create", {"name": "metrics"}, keep={"metrics": "experiment_id"})
    pair.post("runs/create", {"experiment_id": "$metrics", "run_name": "points", "start_time": 1}, keep={"points": "run.info.run_id"})
    order = (
        (5, 100, 1.5),
        (5, 100, 1.5),
        (5, 100, 2.5),
        (4, 900, 9.0),
        (5, 50, 7.0),
        (-3, 100, 0.0),
        (5, 100, -1.0),
        (0, 0, 1e-300),
        (5, 99, "NaN"),
        (5, 100, "NaN"),
        (5, 100, "NaN"),
    )
    for step, timestamp, value in order:
        pair.post("runs/log-metric", {"run_id": "$points", "key": "mixed", "value": value, "timestamp": timestamp, "step": step})
        pair.get("runs/get", run_id="$points")
    pair.get("metrics/get-history", run_id="$points", metric_key="mixed")
    for key, values in (("nan", ["NaN"]), ("zero or nan", ["NaN", 0.0]), ("below nan", ["NaN", -1.0])):
        for value in values:
            pair.post("runs/log-metric", {"run_id": "$points", "key": key, "value": value, "timestamp": 5, "step": 0})
    for key, value in (("up", "Infinity"), ("down", "-Infinity")):
        pair.post("runs/log-metric", {"run_id": "$points", "key": key, "value": value, "timestamp": 5})
        pair.get("metrics/get-history", run_id="$points", metric_key=key, known="infinity")
    for body in (
        {"key": "a", "value": 0.1 + 0.2, "timestamp": 1},
        {"key": "whole", "value": 3, "timestamp": 1},
        {"key": "big", "value": 1.7976931348623157e308, "timestamp": 2**53},
        {"key": "no step", "value": 1, "timestamp": 1},
        {"key": "early", "value": 1, "timestamp": 0},
        {"key": "negative", "value": 1, "timestamp": -1},
        {"key": "deep", "value": 1, "timestamp": 1, "step": -(2**63)},
        {"key": "high", "value": 1, "timestamp": 1, "step": 2**63 - 1},
        {"key": "over", "value": 1, "timestamp": 1, "step": 2**63, "known": "mistyped fields"},
        {"key": "a/b c:-._", "value": 1, "timestamp": 1},
        {"key": "日本", "value": 1, "timestamp": 1},
        {"value": 1, "timestamp": 1},
        {"key": "v", "timestamp": 1},
        {"key": "t", "value": 1},
        {"key": "", "value": 1, "timestamp": 1},
        {"key": "k" * 250, "value": 1, "timestamp": 1},
        {"key": "k" * 251, "value": 1, "timestamp": 1},
        {"key": "k" * 10000, "value": 1, "timestamp": 1},
        {"key": "/x", "value": 1, "timestamp": 1},
        {"key": "a//b", "value": 1, "timestamp": 1},
        {"key": "../x", "value": 1, "timestamp": 1},
        {"key": "x?", "value": 1, "timestamp": 1},
        {"key": 5, "value": 1, "timestamp": 1},
        {"key": "null", "value": None, "timestamp": 1},
        {"key": "empty", "value": "", "timestamp": 1, "known": "mistyped fields"},
        {"key": "nan", "value": "nan", "timestamp": 1},
        {"key": "inf", "value": "inf", "timestamp": 1},
        {"key": "obj", "value": {}, "timestamp": 1},
        {"key": "half", "value": 1, "timestamp": 1, "dataset_name": "test"},
        {"key": "half", "value": 1, "timestamp": 1, "dataset_digest": "d1"},
        {"key": "half", "value": 1, "timestamp": 1, "dataset_name": "test", "dataset_digest": ""},
        {"key": "neither", "value": 1, "timestamp": 1, "dataset_name": "", "dataset_digest": ""},
    ):
        pair.post("runs/log-metric", {"run_id": "$points", **body})
    pair.post("runs/log-metric", {"key": "a", "value": 1, "timestamp": 1})
    pair.post("runs/log-metric", {"run_id": "nobody", "key": "a", "value": 1, "timestamp": 1})
    pair.get("runs/get", run_id="$points", known="infinity")


def histories(pair: Pair) -> None:
    pair.post("runs/create", {"experiment_id": "$metrics", "run_name": "history", "start_time": 1}, keep={"history": "run.info.run_id"})
    for part in range(3):
        pair.post(
            "runs/log-batch",
            {
                "run_id": "$history",
                "metrics": [
                    {"key": "loss", "value": (number * 37 % 101) / 8, "timestamp": 1000 + number * 7 % 50, "step": number}
                    for number in range(part * 40, part * 40 + 40)
                ],
            },
        )
    path = "metrics/get-history"
    pair.get(path, run_id="$history", metric_key="loss")
    pair.walk(path, "metrics", {"run_id": "$history", "metric_key": "loss", "max_results": 50}, method="GET")
    pair.walk(path, "metrics", {"run_id": "$history", "metric_key": "loss", "max_results": 40}, method="GET")
    pair.get(path, run_id="$history", metric_key="loss", max_results=120)
    for query in (
        {},
        {"run_id": "$history"},
        {"metric_key": "loss"},
        {"run_id": "nobody", "metric_key": "loss", "known": "the history of no run"},
        {"run_id": "$history", "metric_key": "nothing"},
        {"run_id": "$history", "metric_key": "nothing", "max_results": 5},
        {"run_id": "$history", "metric_key": "loss", "max_results": 0},
        {"run_id": "$history", "metric_key": "loss", "max_results": -1},
        {"run_id": "$history", "metric_key": "loss", "max_results": "x", "known": "mistyped fields"},
        {"run_id": "$history", "metric_key": "loss", "max_results": 5, "page_token": "bad"},
        {"run_id": "$history", "metric_key": ""},
    ):
        pair.get(path, **query)
    pair.post("runs/create", {"experiment_id": "$metrics", "run_name": "short", "start_time": 1}, keep={"short": "run.info.run_id"})
    pair.post("runs/log-batch", {"run_id": "$short", "metrics": [{"key": "loss", "value": number, "timestamp": 1, "step": number * 10} for number in range(4)]})
    bulk = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
    pair.get(bulk, run_id=["$history", "$short"], metric_key="loss")
    pair.get(bulk, run_id=["$short"], metric_key="loss", max_results=3)
    for query in (
        {},
        {"run_id": ["$short"]},
        {"metric_key": "loss"},
        {"run_id": ["nobody"], "metric_key": "loss"},
        {"run_id": [str(n) for n in range(101)], "metric_key": "loss"},
        {"run_id": ["$short"], "metric_key": "nothing"},
    ):
        pair.get(bulk, **query)
    interval = "metrics/get-history-bulk-interval"
    for query in (
        {"run_ids": ["$history", "$short"], "metric_key": "loss"},
        {"run_ids": ["$history"], "metric_key": "loss", "start_step": 10, "end_step": 20},
        {"run_ids": ["$history"], "metric_key": "loss", "start_step": 500, "end_step": 600},
        {"run_ids": ["$history"], "metric_key": "loss", "max_results": 200},
    ):
        pair.ask("GET", interval, **query)
    pair.ask("GET", interval, run_ids=["$history", "$short"], metric_key="loss", max_results=10, known="samples for charts")
    for query in (
        {},
        {"run_ids": ["$history"]},
        {"metric_key": "loss"},
        {"run_ids": ["$history"], "metric_key": "loss", "start_step": 1},
        {"run_ids": ["$history"], "metric_key": "loss", "end_step": 1},
        {"run_ids": ["$history"], "metric_key": "loss", "start_step": 5, "end_step": 1},
        {"run_ids": ["$history"], "metric_key": "loss", "max_results": 0},
        {"run_ids": ["$history"], "metric_key": "loss", "max_results": 2501},
        {"run_ids": ["nobody"], "metric_key": "loss"},
        {"run_ids": ["$history"], "metric_key": "nothing"},
        {"run_ids": [str(n) for n in range(101)], "metric_key": "loss"},
    ):
        pair.get(interval, **query)


SCRIPTS = (points, histories)
