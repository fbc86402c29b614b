"""`runs/log-metric` and `metrics/...`: points written, and read as histories."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from davy.protocols.mlflow.api import Call, endpoint
from davy.protocols.mlflow.checks import check_metric
from davy.protocols.mlflow.wire import Int64, Message, required_missing
from davy.tracking.points import Points, add_points

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_BULK, MOST_BULK_RUNS, MOST_INTERVAL = 25_000, 100, 2500


class MetricIn(Message):
    key: str | None = None
    value: float | None = None
    timestamp: Int64 | None = None
    step: Int64 | None = None
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None
    run_id: str | None = None


class LogMetric(MetricIn):
    run_uuid: str | None = None


class History(Message):
    run_id: str | None = None
    run_uuid: str | None = None
    metric_key: str | None = None
    max_results: int | None = None
    page_token: str | None = None


class HistoryBulk(Message):
    run_id: list[str] = []
    metric_key: str | None = None
    max_results: int | None = None


class HistoryInterval(Message):
    run_ids: list[str] = []
    metric_key: str | None = None
    start_step: int | None = None
    end_step: int | None = None
    max_results: int | None = None


def log_points(call: Call, run_id: str, metrics: Sequence[MetricIn]) -> None:
    """Add the points of a request to a run that is known to be writable, and those of logged models to these."""
    columns: dict[str, Points] = {}
    alone = len(metrics) == 1
    of_models: list[MetricIn] = []
    for index, metric in enumerate(metrics):
        key, value, time = metric.key, metric.value, metric.timestamp
        assert key is not None
        assert value is not None
        assert time is not None
        column = columns.get(key)
        if column is None or time < 0:
            check_metric(key, value, time, "" if alone else f"metrics[{index}]")
            column = columns.setdefault(key, Points(array("q"), array("q"), array("d")))
        column.steps.append(metric.step or 0)
        column.times.append(time)
        column.values.append(value)
        if metric.model_id:
            of_models.append(metric)
    add_points(call.connection, run_id, columns)
    if of_models:
        from davy.tracking.logged_models import ModelMetric, add_model_metrics

        add_model_metrics(call.connection, run_id, [
            ModelMetric(str(one.model_id), str(one.key), float(one.value or 0.0), one.step or 0, one.timestamp or 0, one.dataset_name, one.dataset_digest)
            for one in of_models])


@endpoint("POST", "runs/log-metric", LogMetric, write=True)
def log_metric(call: Call, asked: LogMetric) -> dict[str, Any]:
    from davy.protocols.mlflow.runs import writable

    run_id = asked.run_id or asked.run_uuid
    for name, value in (("run_id", run_id), ("key", asked.key), ("value", asked.value), ("timestamp", asked.timestamp)):
        if value is None or value == "":
            raise required_missing(name)
    assert run_id is not None
    check_metric(asked.key or "", asked.value or 0.0, asked.timestamp or 0)
    writable(call, run_id)
    log_points(call, run_id, [asked])
    return {}
