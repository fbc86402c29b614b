"""Runs beside each other: what differs between them, and their curves in one chart."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from davy.errors import InvalidInput
from davy.tracking.history import metric_keys
from davy.tracking.runs import get_run
from davy.web.charts import chart
from davy.web.curves import curves, read_view
from davy.web.render import page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection
    from starlette.requests import Request
    from starlette.responses import Response

    from davy.home import Home
    from davy.tracking.records import RunRecord

MOST, MOST_CHARTS, POINTS = 50, 60, 600


def compare(home: Home, request: Request) -> Response:
    """`/compare?run=ID&run=ID`: params that differ, metrics against the first run's, and curves."""
    with home.database.read() as connection:
        runs = _asked(connection, request)
        counts = [metric_keys(connection, run.id) for run in runs]
    params = sorted({key for run in runs for key in run.params})
    differing = [key for key in params if len({run.params.get(key) for run in runs}) > 1]
    metrics = sorted({key for run in runs for key in run.metrics}, key=lambda key: (key.startswith("system/"), key))
    drawn = [key for key in metrics if any(found.get(key, 0) > 1 for found in counts)]
    return page(request, "compare.html", project=home.config.project, now=home.clock.now(), runs=runs, differing=differing,
                same=[key for key in params if key not in differing], metrics=metrics, curves=drawn[:MOST_CHARTS], more=len(drawn) - MOST_CHARTS,
                extremes={key: _extremes(runs, key) for key in metrics}, points=POINTS)


def compare_series(home: Home, request: Request) -> Response:
    """`/compare/series?key=KEY&run=ID&run=ID&x=time&smooth=WEIGHT`: one metric of several runs as a chart."""
    query = request.query_params
    with home.database.read() as connection:
        return chart(curves(connection, _asked(connection, request), query.get("key", ""), read_view(query), POINTS))


def _asked(connection: Connection, request: Request) -> list[RunRecord]:
    asked = list(dict.fromkeys(request.query_params.getlist("run")))
    if not 1 <= len(asked) <= MOST:
        raise InvalidInput(f"{len(asked)} runs came to be compared.", f"From 1 to {MOST} are shown beside each other.", "Choose them on the page of runs.")
    return [get_run(connection, run_id) for run_id in asked]


def _extremes(runs: Sequence[RunRecord], key: str) -> tuple[float, float] | None:
    """The lowest and highest value among runs that differ in it."""
    values = [value for run in runs if (value := run.metrics.get(key)) is not None and not math.isnan(value)]
    return (min(values), max(values)) if len(set(values)) > 1 else None
