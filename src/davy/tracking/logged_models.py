"""Logged models: what a run has made or used, with its own params, tags, metrics and artifacts. Times are microseconds."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import sqlalchemy as sa

from davy.core.clock import new_id
from davy.errors import Conflict, InvalidInput, NotFound
from davy.schema.tables import experiments, logged_model_metrics, logged_model_params, logged_model_tags, logged_models
from davy.store import journal
from davy.store.database import insert
from davy.tracking.names import made_up

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from davy.core.clock import Clock

Status = Literal["PENDING", "READY", "UPLOAD_FAILED"]
VERSIONS_TAG = "mlflow.modelVersions"
NOT_IN_NAME = ("/", ":", ".", "%", '"', "'")
LONGEST_NAME, LONGEST_KEY, LONGEST_TYPE, LONGEST_RUN = 500, 250, 500, 32
_LOOKUP = 400
_MODEL, _PARAM, _TAG, _METRIC = logged_models.c, logged_model_params.c, logged_model_tags.c, logged_model_metrics.c
_ID: sa.BindParameter[Any] = sa.bindparam("id")
_IDS: sa.BindParameter[Any] = sa.bindparam("ids", expanding=True)
_head = sa.select(_MODEL.experiment_id, _MODEL.name, _MODEL.lifecycle_stage).where(_MODEL.model_id == _ID)
_heads = sa.select(logged_models).where(_MODEL.model_id.in_(_IDS))
_params = sa.select(logged_model_params).where(_PARAM.model_id.in_(_IDS)).order_by(_PARAM.model_id, _PARAM.key)
_tags = sa.select(logged_model_tags).where(_TAG.model_id.in_(_IDS)).order_by(_TAG.model_id, _TAG.key)
_metrics = sa.select(logged_model_metrics).where(_METRIC.model_id.in_(_IDS)).order_by(
    _METRIC.model_id, _METRIC.key, _METRIC.timestamp, _METRIC.step, _METRIC.run_id)
_add, _add_param, _add_tag = sa.insert(logged_models), sa.insert(logged_model_params), sa.insert(logged_model_tags)
_known_params = sa.select(_PARAM.key, _PARAM.value).where(_PARAM.model_id == _ID)
_tag = sa.select(_TAG.value).where(_TAG.model_id == _ID, _TAG.key == sa.bindparam("tag"))


class ModelMetric(msgspec.Struct, frozen=True, array_like=True):
    """A point that a run has measured of a logged model, perhaps on a dataset; `timestamp` is milliseconds."""

    model_id: str
    key: str
    value: float
    step: int
    timestamp: int
    dataset_name: str | None = None
    dataset_digest: str | None = None
    run_id: str = ""


class LoggedModel(msgspec.Struct, frozen=True):
    """A logged model. `metrics` are all its points, by key, time and step."""

    id: str
    experiment_id: int
    name: str
    artifact_uri: str
    status: Status
    created: int
    updated: int
    lifecycle: Literal["active", "deleted"] = "active"
    status_message: str | None = None
    model_type: str | None = None
    source_run_id: str | None = None
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    metrics: tuple[ModelMetric, ...] = ()


def create_logged_model(connection: sa.Connection, *, clock: Clock, experiment_id: int, name: str | None = None, model_type: str | None = None,
                        source_run_id: str | None = None, params: Mapping[str, str] | None = None, tags: Mapping[str, str] | None = None) -> LoggedModel:
    """Make a logged model, pending until its files are there. A repeated request makes another: there is nothing to tell it by.

    Raises:
        NotFound: no such experiment. Conflict: it is deleted. InvalidInput: a logged model can't be called so.
    """
    if name is not None and (not name or len(name) > LONGEST_NAME or any(letter in name for letter in NOT_IN_NAME)):
        raise InvalidInput(f"{name[:100]!r} can't be a logged model's name.", f"It has 1 to {LONGEST_NAME} characters without {' '.join(NOT_IN_NAME)}.",
                           "Rename it.")
    if len(model_type or "") > LONGEST_TYPE or len(source_run_id or "") > LONGEST_RUN:
        raise InvalidInput("A logged model's type or run is too long.", f"They have at most {LONGEST_TYPE} and {LONGEST_RUN} characters.", "Shorten it.")
    row = connection.execute(sa.select(experiments).where(experiments.c.experiment_id == experiment_id)).first()
    if row is None:
        raise NotFound(f"There is no experiment {experiment_id}.", "", "Make it first.")
    if row.lifecycle_stage != "active":
        raise Conflict(f"The experiment {row.name!r} is deleted.", "Models are logged in active experiments.", "Restore it, or take another.")
    now = clock.now() // 1000
    model_id = f"m-{new_id(clock)}"
    location = f"{row.artifact_location}/models/{model_id}/artifacts"
    name = name or made_up(clock)
    connection.execute(_add, {
        "model_id": model_id, "experiment_id": experiment_id, "name": name, "artifact_uri": location, "status": "PENDING", "model_type": model_type or None,
        "source_run_id": source_run_id or None, "creation_time": now, "last_update_time": now, "lifecycle_stage": "active"})
    _insert_params(connection, model_id, params or {})
    if tags:
        set_model_tags(connection, model_id, tags)
    return LoggedModel(model_id, experiment_id, name, location, "PENDING", now * 1000, now * 1000, model_type=model_type or None,
                       source_run_id=source_run_id or None, params=dict(sorted((params or {}).items())), tags=dict(sorted((tags or {}).items())))


def find_logged_model(connection: sa.Connection, model_id: str, *, deleted: bool = False) -> LoggedModel | None:
    """The logged model of that id; a deleted one only when asked for."""
    found = read_logged_models(connection, [model_id])
    return found[0] if found and (deleted or found[0].lifecycle == "active") else None


def read_logged_models(connection: sa.Connection, ids: Sequence[str]) -> list[LoggedModel]:
    """The logged models of these ids, in their order, deleted ones too; unknown ids are left out."""
    return [model for start in range(0, len(ids), _LOOKUP) for model in _some(connection, ids[start:start + _LOOKUP])]


def require_logged_model(connection: sa.Connection, model_id: str) -> None:
    """Refuse an id that no logged model has; a deleted one still takes changes.

    Raises:
        NotFound: none has it.
    """
    if connection.execute(_head, {"id": model_id}).first() is None:
        raise NotFound(f"Logged model with ID '{model_id}' not found.")


def finalize_logged_model(connection: sa.Connection, model_id: str, *, clock: Clock, status: Status) -> None:
    """Say that its files are there, or that they failed to come.

    Raises:
        NotFound: no such logged model.
    """
    require_logged_model(connection, model_id)
    connection.execute(sa.update(logged_models).where(_MODEL.model_id == model_id).values(status=status, last_update_time=clock.now() // 1000))


def delete_logged_model(connection: sa.Connection, model_id: str, *, clock: Clock, actor: str) -> None:
    """Hide a logged model; what it is made of stays until it is purged. Deleting it twice is a no-op.

    Raises:
        NotFound: no such logged model.
    """
    row = connection.execute(_head, {"id": model_id}).first()
    if row is None:
        raise NotFound(f"Logged model with ID '{model_id}' not found.")
    if row.lifecycle_stage == "deleted":
        return
    connection.execute(sa.update(logged_models).where(_MODEL.model_id == model_id).values(lifecycle_stage="deleted", last_update_time=clock.now() // 1000))
    journal.append(connection, clock=clock, actor=actor, action="logged_model.delete", subject=model_id,
                   details={"name": row.name, "experiment": row.experiment_id})


def log_model_params(connection: sa.Connection, model_id: str, params: Mapping[str, str]) -> None:
    """Set params, each once: the same value again is fine.

    Raises:
        NotFound: no such logged model. Conflict: a param has another value.
    """
    require_logged_model(connection, model_id)
    known: dict[str, str] = {row.key: row.value for row in connection.execute(_known_params, {"id": model_id})}
    for key, value in params.items():
        if known.get(key, value) != value:
            raise Conflict(f"Changing param values is not allowed. Param with key='{key}' was already logged with value='{known[key]}' for model ID="
                           f"'{model_id}'. Attempted logging new value '{value}'.")
    _insert_params(connection, model_id, {key: value for key, value in params.items() if key not in known})


def set_model_tags(connection: sa.Connection, model_id: str, tags: Mapping[str, str]) -> None:
    """Set tags; they may be changed.

    Raises:
        NotFound: no such logged model.
    """
    require_logged_model(connection, model_id)
    _check_keys(tags)
    if tags:
        statement = insert(connection, logged_model_tags)
        statement = statement.on_conflict_do_update(index_elements=["model_id", "key"], set_={"value": statement.excluded.value})
        connection.execute(statement, [{"model_id": model_id, "key": key, "value": value} for key, value in tags.items()])


def delete_model_tag(connection: sa.Connection, model_id: str, key: str) -> None:
    """Take a tag away.

    Raises:
        NotFound: no such logged model, or it has no such tag.
    """
    require_logged_model(connection, model_id)
    if not connection.execute(sa.delete(logged_model_tags).where(_TAG.model_id == model_id, _TAG.key == key)).rowcount:
        raise NotFound(f"No tag with key {key!r} found for model with ID {model_id!r}.")


def note_version(connection: sa.Connection, model_id: str, name: str, version: int) -> None:
    """Note on a logged model that a version was registered from it, in the tag in which MLflow's clients look for that."""
    found = connection.scalar(_tag, {"id": model_id, "tag": VERSIONS_TAG})
    noted: list[Any] = []
    if found is not None:
        try:
            noted = list(json.loads(found))
        except (ValueError, TypeError, RecursionError):
            noted = []  # a client has written something else there; the versions say it better
    entry = {"name": name, "version": version}
    if entry not in noted:
        set_model_tags(connection, model_id, {VERSIONS_TAG: json.dumps([*noted, entry])})


def add_model_metrics(connection: sa.Connection, run_id: str, points: Iterable[ModelMetric]) -> None:
    """Add points that a run, which is known to be writable, has measured of logged models.

    The same point again changes nothing; of two values for one run, key, time and step the larger stays, as it is the latest in a curve.

    Raises:
        NotFound: no such logged model.
    """
    rows: dict[tuple[str, str, int, int], ModelMetric] = {}
    for point in points:
        known = rows.setdefault((point.model_id, point.key, point.timestamp, point.step), point)
        if point.value > known.value:
            rows[point.model_id, point.key, point.timestamp, point.step] = point
    for model_id in {key[0] for key in rows}:
        require_logged_model(connection, model_id)
    if rows:
        statement = insert(connection, logged_model_metrics)
        new = statement.excluded
        statement = statement.on_conflict_do_update(
            index_elements=["model_id", "run_id", "key", "timestamp", "step"], where=new.value > _METRIC.value,
            set_={name: new[name] for name in ("value", "is_nan", "dataset_name", "dataset_digest")})
        connection.execute(statement, [{
            "model_id": point.model_id, "run_id": run_id, "key": point.key, "timestamp": point.timestamp, "step": point.step,
            "value": 0.0 if math.isnan(point.value) else point.value, "is_nan": math.isnan(point.value), "dataset_name": point.dataset_name,
            "dataset_digest": point.dataset_digest} for point in rows.values()])


def _some(connection: sa.Connection, ids: Sequence[str]) -> Iterable[LoggedModel]:
    wanted = {"ids": list(ids)}
    heads = {row.model_id: row for row in connection.execute(_heads, wanted)}
    if not heads:
        return
    found: dict[str, tuple[dict[str, str], dict[str, str], list[ModelMetric]]] = {model_id: ({}, {}, []) for model_id in heads}
    for row in connection.execute(_params, wanted):
        found[row.model_id][0][row.key] = row.value
    for row in connection.execute(_tags, wanted):
        found[row.model_id][1][row.key] = row.value
    for row in connection.execute(_metrics, wanted):
        found[row.model_id][2].append(ModelMetric(row.model_id, row.key, math.nan if row.is_nan else row.value, row.step, row.timestamp, row.dataset_name,
                                                  row.dataset_digest, row.run_id))
    for model_id in ids:
        if (head := heads.get(model_id)) is not None:
            params, tags, metrics = found[model_id]
            yield LoggedModel(head.model_id, head.experiment_id, head.name, head.artifact_uri, head.status, head.creation_time * 1000,
                              head.last_update_time * 1000, head.lifecycle_stage, head.status_message, head.model_type, head.source_run_id, params, tags,
                              tuple(metrics))


def _insert_params(connection: sa.Connection, model_id: str, params: Mapping[str, str]) -> None:
    _check_keys(params)
    if params:
        connection.execute(_add_param, [{"model_id": model_id, "key": key, "value": value} for key, value in params.items()])


def _check_keys(pairs: Mapping[str, str]) -> None:
    for key in pairs:
        if not key or len(key) > LONGEST_KEY:
            raise InvalidInput(f"{key[:100]!r} can't be the key of a param or tag.", f"A key has 1 to {LONGEST_KEY} characters.", "Rename it.")
