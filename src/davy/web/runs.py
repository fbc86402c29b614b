"""Runs as a table that sorts, and one run with its curves and files."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

from davy.registry.models import list_versions
from davy.tracking.experiments import list_experiments
from davy.tracking.history import metric_history, metric_keys
from davy.tracking.records import telling_metrics
from davy.tracking.runs import get_run
from davy.tracking.search import children, search_runs
from davy.web.artifacts import previews
from davy.web.render import CONFINED, page

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from davy.home import Home
    from davy.tracking.records import RunRecord

PAGE = 100
POINTS = 2000
MOST_METRICS, MOST_PARAMS = 4, 3


def all_runs(home: Home, request: Request) -> Response:
    """`/runs?experiment=NAME&sort=METRIC&order=asc&after=TOKEN`: a page of runs."""
    query = request.query_params
    experiment, sort, after = query.get("experiment") or None, query.get("sort") or None, query.get("after") or None
    ascending = query.get("order") == "asc"
    with home.database.read() as connection:
        found = search_runs(connection, experiments=None if experiment is None else [experiment], order_by=_order(sort, ascending), limit=PAGE, after=after)
        experiments = list_experiments(connection)
    return page(request, "runs.html", project=home.config.project, now=home.clock.now(), runs=found.runs, following=found.next, experiments=experiments,
                experiment=experiment, sort=sort, ascending=ascending, metrics=telling_metrics(found.runs, MOST_METRICS, sort), params=_telling(found.runs))


def _order(sort: str | None, ascending: bool) -> list[str]:
    if sort is None:
        return ["start_time ASC"] if ascending else []
    return [f"metrics.`{sort}` {'ASC' if ascending else 'DESC'}"]


def _telling(runs: list[RunRecord]) -> list[str]:
    """The params whose values tell these runs apart."""
    values: dict[str, set[str | None]] = {}
    for name in {name for run in runs for name in run.params}:
        values[name] = {run.params.get(name) for run in runs}
    return sorted(name for name, found in values.items() if len(found) > 1 or len(runs) == 1)[:MOST_PARAMS]


def run(home: Home, request: Request) -> Response:
    """`/runs/ID`: params, metrics with their curves, files, and the versions that it made."""
    with home.database.read() as connection:
        found = get_run(connection, request.path_params["run"])
        counts = metric_keys(connection, found.id)
        files = previews(connection, home, found.id)
        nested = children(connection, found.id)
        versions = list_versions(connection, run_id=found.id)
    tags = {key: value for key, value in found.tags.items() if not key.startswith("mlflow.")}
    return page(request, "run.html", project=home.config.project, now=home.clock.now(), run=found, counts=counts, files=files, children=nested,
                versions=versions, tags=tags, curves=[key for key, count in counts.items() if count > 1], points=POINTS)


def metric(home: Home, request: Request) -> Response:
    """`/runs/ID/metrics?key=KEY`: a curve as JSON, at most `POINTS` of its points with every slice's lowest and highest."""
    key = request.query_params.get("key", "")
    with home.database.read() as connection:
        curve = metric_history(connection, get_run(connection, request.path_params["run"]).id, key, points=POINTS)
    body: dict[str, Any] = {"x": curve.steps, "y": [value if math.isfinite(value) else None for value in curve.values], "x_label": "step", "y_label": key,
                            "total": curve.total}
    return JSONResponse(body, headers=CONFINED | {"cache-control": "no-store"})
