"""What is live, and is it well? The first page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from davy.registry.models import list_models
from davy.serving.predictions import read_predictions
from davy.serving.traffic import Traffic, read_traffic
from davy.store.journal import entries
from davy.tracking.records import telling_metrics
from davy.tracking.search import search_runs
from davy.web.render import page
from davy.web.streams import watermarks

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from davy.home import Home

PERIOD = 24 * 3_600_000_000
RECENT, SHOWN_METRICS = 5, 3


def overview(home: Home, request: Request) -> Response:
    """`/`: live versions with weights and requests, streams with watermarks, the newest runs and changes."""
    now = home.clock.now()
    with home.database.read() as connection:
        traffic = read_traffic(connection)
        models = list_models(connection)
        changes = entries(connection, limit=RECENT)
        newest = search_runs(connection, limit=RECENT).runs
    live = [row for item in traffic for row in _rows(home, item, now)]
    idle = [model for model in models if model.name not in {item.model for item in traffic}]
    return page(request, "overview.html", project=home.config.project, now=now, live=live, idle=idle, streams=watermarks(home), changes=changes, runs=newest,
                main_metric=telling_metrics(newest, SHOWN_METRICS))


def _rows(home: Home, traffic: Traffic, now: int) -> list[dict[str, Any]]:
    answered = requests(home, traffic.model, now - PERIOD)
    none: dict[str, Any] = {"count": 0, "p50": None, "p99": None, "newest": None}
    return [{"model": traffic.model, "version": version, "weight": weight, "traffic": traffic, **answered.get(version, none)}
            for version, weight in sorted(traffic.versions.items(), key=lambda item: (-item[1], item[0]))]


def requests(home: Home, model: str, start: int) -> dict[int, dict[str, Any]]:
    """Per version that has answered since `start`: how many, latencies in microseconds, the newest prediction's time and id."""
    import polars as pl

    frames = read_predictions(home, model, start=start)
    if not frames:
        return {}
    columns = ["version", "time", "prediction", "latency_us"]
    joined = pl.concat([frame.select(columns) for frame in frames.values()]).sort("time", "prediction")
    grouped = joined.group_by("version").agg(
        pl.len().alias("count"), pl.col("latency_us").quantile(0.5).alias("p50"), pl.col("latency_us").quantile(0.99).alias("p99"),
        pl.col("time").last().dt.epoch("us").alias("newest"), pl.col("prediction").last().alias("newest_id"))
    return {row.pop("version"): row for row in grouped.to_dicts()}
