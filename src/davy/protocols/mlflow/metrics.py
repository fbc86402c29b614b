"""`runs/log-metric` and `metrics/...`: points written, and read as histories."""

from __future__ import annotations

import math
import sys
from array import array
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from davy.protocols.mlflow.api import Call, endpoint
from davy.protocols.mlflow.checks import check_metric, page_size
from davy.protocols.mlflow.run_messages import MetricMessage
from davy.protocols.mlflow.wire import Int64, Message, invalid, missing, number, required_missing, some
from davy.schema.tables import runs
from davy.tracking.history import histories, history_page, sampled_histories
from davy.tracking.points import Points, add_points

if TYPE_CHECKING:
    from collections.abc import Sequence

_SEE = " See the API docs for more information about request parameters."
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


def log_points(call: Call, run_id: str, metrics: Sequence[MetricIn], path: str = "metrics[{}]") -> None:
    """Add the points of a request to a run that is known to be writable, and those of logged models to these."""
    columns: dict[str, Points] = {}
    of_models: list[MetricIn] = []
    for index, metric in enumerate(metrics):
        key, value, time = metric.key, metric.value, metric.timestamp
        assert key is not None
        assert value is not None
        assert time is not None
        column = columns.get(key)
        if (not metric.dataset_name) != (not metric.dataset_digest):
            raise invalid("Both dataset_name and dataset_digest must be provided if one is provided")
        if column is None or time < 0:
            check_metric(key, value, time, path.format(index))
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
    log_points(call, run_id, [asked], path="")
    return {}


@endpoint("GET", "metrics/get-history", History)
def history(call: Call, asked: History) -> dict[str, Any]:
    run_id = asked.run_id or asked.run_uuid
    if not run_id:
        raise required_missing("run_id")
    if not asked.metric_key:
        raise required_missing("metric_key")
    if asked.max_results is not None and asked.max_results <= 0:
        raise invalid(f"Invalid value {asked.max_results} for parameter 'max_results' supplied. It must be a positive integer.")
    _known(call, [run_id])
    page = history_page(call.connection, run_id, asked.metric_key or "", limit=asked.max_results, after=asked.page_token or None)
    return some({"metrics": _messages(asked.metric_key or "", page.points), "next_page_token": page.next})


@endpoint("GET", "metrics/get-history-bulk", HistoryBulk)
def history_bulk(call: Call, asked: HistoryBulk) -> dict[str, Any]:
    if not asked.run_id:
        raise invalid("GetMetricHistoryBulk request must specify at least one run_id.")
    if len(asked.run_id) > MOST_BULK_RUNS:
        raise invalid(f"GetMetricHistoryBulk request cannot specify more than {MOST_BULK_RUNS} run_ids. Received {len(asked.run_id)} run_ids.")
    if asked.metric_key is None:
        raise invalid("GetMetricHistoryBulk request must specify a metric_key.")
    limit = min(page_size(asked.max_results, MOST_BULK, sys.maxsize), MOST_BULK)
    found = histories(call.connection, asked.run_id, asked.metric_key, limit=limit)
    return {"metrics": [message for run_id, points in found for message in _messages(asked.metric_key, points, run_id)]}


@endpoint("GET", "metrics/get-history-bulk-interval", HistoryInterval, required=("run_ids", "metric_key"))
def history_interval(call: Call, asked: HistoryInterval) -> dict[str, Any]:
    if len(asked.run_ids) > MOST_BULK_RUNS:
        raise invalid(f"GetMetricHistoryBulkInterval request must specify at most {MOST_BULK_RUNS} run_ids. Received {len(asked.run_ids)} run_ids.{_SEE}")
    most = MOST_INTERVAL if asked.max_results is None else asked.max_results
    if not 1 <= most <= MOST_INTERVAL:
        raise invalid(f"max_results must be between 1 and {MOST_INTERVAL}.{_SEE}")
    if (asked.start_step is None) != (asked.end_step is None):
        raise invalid("If either start step or end step are specified, both must be specified.")
    if asked.start_step is not None and asked.end_step is not None and asked.start_step > asked.end_step:
        raise invalid(f"end_step must be greater than start_step. Found start_step={asked.start_step} and end_step={asked.end_step}.")
    found = sampled_histories(call.connection, asked.run_ids, asked.metric_key or "", points=most, first_step=asked.start_step, last_step=asked.end_step)
    return some({"metrics": [message for run_id, points in found for message in _messages(asked.metric_key or "", points, run_id)]})


def _known(call: Call, run_ids: Sequence[str]) -> None:
    known = set(call.connection.scalars(sa.select(runs.c.run_id).where(runs.c.run_id.in_(run_ids))))
    for run_id in run_ids:
        if run_id not in known:
            raise missing(f"Run with id={run_id} not found")


def _messages(key: str, points: Points, run_id: str | None = None) -> list[MetricMessage]:
    values: Sequence[float | str] = points.values
    if not all(map(math.isfinite, points.values)):
        values = [number(value) for value in points.values]
    return [MetricMessage(key=key, value=value, timestamp=time, step=step, run_id=run_id)
            for value, time, step in zip(values, points.times, points.steps, strict=True)]
