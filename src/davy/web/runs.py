"""Runs as a table that sorts, and one run with its curves and files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from davy.errors import InvalidInput
from davy.registry.models import list_versions
from davy.tracking.experiments import list_experiments
from davy.tracking.hints import unknown_keys
from davy.tracking.history import metric_keys
from davy.tracking.records import telling_metrics
from davy.tracking.runs import get_run
from davy.tracking.search import RunPage, children, search_runs
from davy.web.artifacts import previews
from davy.web.charts import chart
from davy.web.curves import curves, read_view
from davy.web.render import page

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from davy.home import Home
    from davy.tracking.records import RunRecord

PAGE = 100
POINTS = 2000
MOST_METRICS, MOST_PARAMS = 4, 3
SYSTEM = "system"


def all_runs(home: Home, request: Request) -> Response:
    """`/runs?experiment=NAME&filter=FILTER&sort=METRIC&order=asc&after=TOKEN`: a page of runs. A filter that can't be read is shown with its fault."""
    query = request.query_params
    experiment, sort, after, text = query.get("experiment") or None, query.get("sort") or None, query.get("after") or None, query.get("filter", "").strip()
    ascending = query.get("order") == "asc"
    fault: InvalidInput | None = None
    hints: list[str] = []
    with home.database.read() as connection:
        experiments = list_experiments(connection)
        chosen = next((found.name for found in experiments if str(found.id) == query.get("experiment_id")), experiment)
        try:
            found = search_runs(connection, experiments=None if chosen is None else [chosen], filter=text, order_by=_order(sort, ascending), limit=PAGE,
                                after=after)
            if not found.runs:
                hints = unknown_keys(connection, experiments=None if chosen is None else [chosen], filter=text)
        except InvalidInput as error:
            fault, found = error, RunPage([], None)
    return page(request, "runs.html", project=home.config.project, now=home.clock.now(), runs=found.runs, following=found.next, experiments=experiments,
                experiment=chosen, sort=sort, ascending=ascending, filter=text, fault=fault, hints=hints, status=200 if fault is None else fault.status,
                metrics=telling_metrics(found.runs, MOST_METRICS, sort), params=_telling(found.runs))


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
    metrics = sorted(found.metrics.items(), key=lambda item: (item[0].startswith(f"{SYSTEM}/"), item[0]))
    return page(request, "run.html", project=home.config.project, now=home.clock.now(), run=found, counts=counts, files=files, children=nested,
                versions=versions, tags=tags, metrics=metrics, groups=_groups([key for key, count in counts.items() if count > 1]), points=POINTS)


def metric(home: Home, request: Request) -> Response:
    """`/runs/ID/metrics?key=KEY&x=time&smooth=WEIGHT&first=STEP&last=STEP`: a curve, at most `POINTS` of its points with every slice's lowest and highest."""
    query = request.query_params
    with home.database.read() as connection:
        return chart(curves(connection, [get_run(connection, request.path_params["run"])], query.get("key", ""), read_view(query), POINTS))


def _groups(keys: list[str]) -> list[tuple[str, list[str]]]:
    """Curves by what stands before their last slash; single ones first and together, the machine's own last."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(key.rpartition("/")[0], []).append(key)
    single = [found[0] for name, found in groups.items() if len(found) == 1 and name != SYSTEM]
    several = [(name, found) for name, found in groups.items() if found[0] not in single]
    return [*([("", sorted(single))] if single else []), *sorted(several, key=lambda item: (item[0] == SYSTEM, item[0]))]
