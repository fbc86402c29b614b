"""Runs as a table that sorts, and one run with its curves and files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

import msgspec

from davy.errors import InvalidInput
from davy.registry.models import list_versions
from davy.tracking.experiments import list_experiments
from davy.tracking.hints import unknown_keys
from davy.tracking.history import metric_keys
from davy.tracking.inputs import datasets_of, outputs_of
from davy.tracking.logged_models import read_logged_models
from davy.tracking.records import telling_metrics
from davy.tracking.runs import get_run
from davy.tracking.search import RunPage, children, search_runs
from davy.web.artifacts import previews
from davy.web.charts import chart
from davy.web.comparing import MOST
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
FEW = 8
OWN_TAGS = "mlflow."
SYSTEM = "system"


class Column(msgspec.Struct, frozen=True):
    """What a table of runs shows of each: a metric's latest value, a param or a tag."""

    kind: Literal["metrics", "params", "tags"]
    key: str

    @property
    def field(self) -> str:
        """Its name in an address."""
        return f"{self.kind}.{self.key}"


def all_runs(home: Home, request: Request) -> Response:
    """`/runs?experiment=NAME&filter=FILTER&sort=FIELD&order=asc&column=FIELD&after=TOKEN`: a page of runs.

    A filter or an order that can't be read is shown with its fault. Without columns, those that tell these runs apart are shown.
    """
    query = request.query_params
    experiment, sort, after, text = query.get("experiment") or None, query.get("sort") or None, query.get("after") or None, query.get("filter", "").strip()
    asked = [_column(field) for field in dict.fromkeys(query.getlist("column")) if field]
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
    columns = list(dict.fromkeys([*_sorted_by(sort), *(asked or _telling(found.runs))]))
    kept = {"experiment": chosen, "filter": text, "column": [column.field for column in asked]}
    order = {"sort": sort, "order": "asc" if ascending else ""}
    return page(request, "runs.html", project=home.config.project, now=home.clock.now(), runs=found.runs, following=found.next, experiments=experiments,
                experiment=chosen, sort=sort, ascending=ascending, filter=text, fault=fault, hints=hints, status=200 if fault is None else fault.status,
                columns=columns, choice=_choice(found.runs, columns), kept=kept, order=order, few=FEW)


def _column(field: str) -> Column:
    kind, _, key = field.partition(".")
    if kind not in ("metrics", "params", "tags") or not key:
        raise InvalidInput(f"No column is {field!r}.", "A column is metrics.KEY, params.KEY or tags.KEY.", "Choose columns on the page of runs.")
    return Column(cast("Literal['metrics', 'params', 'tags']", kind), key)


def _order(sort: str | None, ascending: bool) -> list[str]:
    kind, dot, key = (sort or "start_time").partition(".")
    if sort is None and not ascending:
        return []
    return [f"{kind}{f'.`{key}`' if dot else ''} {'ASC' if ascending else 'DESC'}"]


def _sorted_by(sort: str | None) -> list[Column]:
    """The column that rows are sorted by, if a column holds it."""
    return [_column(sort)] if sort is not None and sort.startswith(("metrics.", "params.", "tags.")) else []


def _telling(runs: list[RunRecord]) -> list[Column]:
    """The metrics that say most, and the params whose values tell these runs apart."""
    values: dict[str, set[str | None]] = {}
    for name in {name for run in runs for name in run.params}:
        values[name] = {run.params.get(name) for run in runs}
    params = sorted(name for name, found in values.items() if len(found) > 1 or len(runs) == 1)[:MOST_PARAMS]
    return [*(Column("metrics", key) for key in telling_metrics(runs, MOST_METRICS)), *(Column("params", key) for key in params)]


def _choice(runs: list[RunRecord], shown: list[Column]) -> list[tuple[str, list[Column]]]:
    """All columns that these runs have, by kind; MLflow's own tags are left out."""
    found = {*shown, *(Column("metrics", key) for run in runs for key in run.metrics), *(Column("params", key) for run in runs for key in run.params),
             *(Column("tags", key) for run in runs for key in run.tags if not key.startswith(OWN_TAGS))}
    kinds = ("metrics", "params", "tags")
    return [(kind, several) for kind in kinds if (several := sorted((column for column in found if column.kind == kind), key=lambda column: column.key))]


def run(home: Home, request: Request) -> Response:
    """`/runs/ID`: params, metrics with their curves, files, and the versions that it made."""
    with home.database.read() as connection:
        found = get_run(connection, request.path_params["run"])
        counts = metric_keys(connection, found.id)
        files = previews(connection, home, found.id)
        nested = children(connection, found.id)
        versions = list_versions(connection, run_id=found.id)
        datasets = datasets_of(connection, [found.id]).get(found.id, [])
        models = read_logged_models(connection, [model_id for model_id, _ in outputs_of(connection, [found.id]).get(found.id, [])])
    tags = {key: value for key, value in found.tags.items() if not key.startswith(OWN_TAGS)}
    metrics = sorted(found.metrics.items(), key=lambda item: (item[0].startswith(f"{SYSTEM}/"), item[0]))
    return page(request, "run.html", project=home.config.project, now=home.clock.now(), run=found, counts=counts, files=files, children=nested,
                versions=versions, datasets=datasets, models=models, tags=tags, columns=_telling(nested), most=MOST, metrics=metrics,
                groups=_groups([key for key, count in counts.items() if count > 1]), points=POINTS)


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
