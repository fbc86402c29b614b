"""Finding logged models by a filter. A condition on a metric holds when it holds of any of its points, on the datasets asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from davy.errors import InvalidInput
from davy.schema.tables import logged_model_metrics, logged_model_params, logged_model_tags, logged_models
from davy.search.fields import Attribute, Keyed, Target
from davy.search.language import MOST_KEYS, Language, SortKey
from davy.search.order import Part
from davy.search.select import Selection, conditions, select_page, written
from davy.tracking.search import MOST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from davy.search.grammar import Unreadable
    from davy.search.tree import Term

MOST_DATASETS = 250
_model, _metric = logged_models.c, logged_model_metrics.c


class Dataset(msgspec.Struct, frozen=True):
    """A dataset by name, and by digest where one is given."""

    name: str
    digest: str | None = None


class LoggedOrder(msgspec.Struct, frozen=True):
    """One item of an order: an attribute or `metrics.KEY`, the latest value on that dataset."""

    field: str
    ascending: bool = True
    dataset: Dataset | None = None


class LoggedPage(msgspec.Struct, frozen=True):
    """The ids of some logged models, and the token of the next page."""

    ids: list[str]
    next: str | None


class Logged(Language):
    """MLflow reads filters of logged models by other code, which is generous with quotes and speaks in other words."""

    def unquoted(self, text: str, target: Target, term: Term, listed: bool) -> str:
        return term.text

    def unreadable(self, text: str, problem: Unreadable) -> str:
        if problem.found.startswith(";") and problem.found[1:].strip():
            return f"Invalid filter string: {text[:500]!r}. Expected a single SQL expression."
        return (f"Invalid filter string: {text[:500]!r}. Expected a list of comparisons separated by 'AND' "
                "(e.g. 'metrics.loss > 0.1 AND params.lr = 0.01').")

    def bad_entity(self, found: str) -> str:
        return f"Invalid entity type: {found!r}. Expected one of {['attributes', 'metrics', 'params', 'tags']}."

    def bad_comparator(self, target: Target, op: str, allowed: Sequence[str]) -> str:
        entity = {"attribute": "attributes", "metric": "metrics", "parameter": "params", "tag": "tags"}[target.entity]
        return f"Invalid comparison operator for {entity}.{target.key}: {op!r}. Expected one of {tuple(allowed)}."


def _attributes() -> dict[str, Attribute]:
    created, updated = Attribute(_model.creation_time, "number"), Attribute(_model.last_update_time, "number")
    return {
        "name": Attribute(_model.name), "model_id": Attribute(_model.model_id), "model_type": Attribute(_model.model_type, nullable=True),
        "status": Attribute(_model.status), "source_run_id": Attribute(_model.source_run_id, nullable=True),
        "experiment_id": Attribute(_model.experiment_id, "identity"), "artifact_location": Attribute(_model.artifact_uri),
        **dict.fromkeys(("creation_timestamp", "creation_time", "creation_timestamp_ms"), created),
        **dict.fromkeys(("last_updated_timestamp", "last_updated_time", "last_updated_timestamp_ms"), updated),
    }


_ATTRIBUTES = _attributes()
_OWNED = (_model.model_id,)
_PARAMS, _TAGS = Keyed(logged_model_params, ("model_id",), _OWNED), Keyed(logged_model_tags, ("model_id",), _OWNED)
_TIES = (Part(_model.creation_time, True, "integer"), Part(_model.model_id, False, "text"))


def _language(metrics: Keyed) -> Logged:
    return Logged(entities={"attributes": "attribute", "metrics": "metric", "params": "parameter", "tags": "tag"}, attributes=_ATTRIBUTES,
                  others={"metric": metrics, "parameter": _PARAMS, "tag": _TAGS})


_METRICS = Keyed(logged_model_metrics, ("model_id",), _OWNED, nan="is_nan")
LANGUAGE = _language(_METRICS)


def search_logged_models(connection: sa.Connection, *, experiments: Sequence[int], filter: str = "", datasets: Sequence[Dataset] = (),
                         order_by: Sequence[LoggedOrder] = (), limit: int = 100, after: str | None = None) -> LoggedPage:
    """A page of the active logged models of these experiments; without an order, the newest first.

    Args:
        datasets: conditions on metrics look at points on these only; without such conditions, a model has a point on one of them.

    Raises:
        InvalidInput: the filter or the order can't be read or is too long, or the token is another search's.
    """
    if len(datasets) > MOST_DATASETS:
        raise InvalidInput(f"`datasets` has {len(datasets)} items.", f"A search has at most {MOST_DATASETS}.", "Ask for some at a time.")
    language = _language(msgspec.structs.replace(_METRICS, restrict=lambda rows: _on(rows, datasets))) if datasets else LANGUAGE
    tree = language.read(filter)
    where = [_model.lifecycle_stage == "active", _model.experiment_id.in_(written(sorted(set(experiments))))]
    if datasets and not any(language.find(filter, condition.left).entity == "metric" for condition in conditions(tree)):
        points = logged_model_metrics.alias()
        where.append(sa.exists().where(points.c.model_id == _model.model_id, _on(points, datasets)))
    keys = _order(order_by)
    found, following = select_page(connection, Selection(language, logged_models, _TIES, _OWNED), text=filter, tree=tree, keys=keys, limit=limit, most=MOST,
                                   after=after, where=where, bound=[sorted(set(experiments)), list(datasets), list(order_by)])
    return LoggedPage([row[0] for row in found], following)


def _on(rows: sa.FromClause, datasets: Sequence[Dataset]) -> sa.ColumnElement[bool]:
    return sa.or_(*(sa.and_(rows.c.dataset_name == asked.name, *([] if asked.digest is None else [rows.c.dataset_digest == asked.digest]))
                    for asked in datasets))


def _order(items: Sequence[LoggedOrder]) -> list[SortKey]:
    if len(items) > MOST_KEYS:
        raise InvalidInput(f"`order_by` has {len(items)} fields.", f"An order has at most {MOST_KEYS}.", "Leave some out.")
    keys: list[SortKey] = []
    seen: set[Any] = set()
    for item in items:
        entity, dot, key = item.field.partition(".")
        if dot and entity != "metrics":
            raise InvalidInput(f"Invalid order by field name: {item.field}. Only metrics are supported.", "", "Write metrics.KEY, or an attribute.")
        if not dot and item.field.strip() not in _ATTRIBUTES:
            raise InvalidInput(f"Invalid order by field name: {item.field}", f"It is metrics.KEY, or one of {', '.join(sorted(_ATTRIBUTES))}.", "Correct it.")
        target = (Target("metric", key.strip("`"), _latest(key.strip("`"), item.dataset)) if dot
                  else Target("attribute", item.field.strip(), _ATTRIBUTES[item.field.strip()]))
        what = (target.key, item.dataset) if dot else id(target.field)
        if what in seen:
            raise InvalidInput(f"`order_by` contains duplicate fields: {[asked.field for asked in items]}", "Each field comes once.", "Leave one out.")
        seen.add(what)
        keys.append(SortKey(target, not item.ascending))
    return keys


def _latest(key: str, dataset: Dataset | None) -> Keyed:
    """Each model's newest point of that key, on that dataset."""
    newest = sa.func.row_number().over(partition_by=_metric.model_id, order_by=[_metric.timestamp.desc(), _metric.step.desc(), _metric.run_id])
    query = sa.select(_metric.model_id, _metric.key, _metric.value, _metric.is_nan, newest.label("place")).where(_metric.key == key)
    if dataset is not None:
        query = query.where(_on(logged_model_metrics, [dataset]))
    return Keyed(query.subquery(), ("model_id",), _OWNED, nan="is_nan", restrict=lambda rows: rows.c.place == 1)
