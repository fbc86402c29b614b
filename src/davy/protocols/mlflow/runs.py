"""`runs/...`: made, written to, read and searched."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import sqlalchemy as sa

from davy.errors import NotFound
from davy.protocols.mlflow.api import Call, endpoint
from davy.protocols.mlflow.checks import (
    bad_value,
    check_batch,
    check_keys,
    check_param,
    check_run_id,
    check_tag,
    check_time,
    check_unique,
    experiment_number,
    page_size,
    view_of,
)
from davy.protocols.mlflow.experiments import active, find
from davy.protocols.mlflow.metrics import MetricIn, log_points
from davy.protocols.mlflow.run_messages import RunInfo, run_info, run_messages
from davy.protocols.mlflow.wire import Int64, KeyValue, Message, MlflowError, invalid, missing, required_missing, some
from davy.schema.tables import params, runs, tags
from davy.store.database import direct, direct_many, insert
from davy.tracking import names
from davy.tracking import runs as tracked
from davy.tracking.search import search_run_ids

if TYPE_CHECKING:
    from collections.abc import Sequence

RUN_NAME, HISTORY = "mlflow.runName", "mlflow.log-model.history"
STATUSES = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
_OWN_ID = re.compile(r"[0-9a-f]{32}")


class CreateRun(Message):
    experiment_id: str | None = None
    user_id: str | None = None
    run_name: str | None = None
    start_time: Int64 | None = None
    tags: list[KeyValue] = []
    run_id: str | None = None


class OneRun(Message):
    run_id: str | None = None
    run_uuid: str | None = None


class UpdateRun(OneRun):
    status: str | int | None = None
    end_time: Int64 | None = None
    run_name: str | None = None


class RunKey(OneRun):
    key: str | None = None
    value: str | None = None


class LogBatch(Message):
    run_id: str | None = None
    metrics: list[MetricIn] = []
    params: list[KeyValue] = []
    tags: list[KeyValue] = []


class SearchRuns(Message):
    experiment_ids: list[str] = []
    filter: str | None = None
    run_view_type: str | int | None = None
    max_results: int | None = None
    order_by: list[str] = []
    page_token: str | None = None


class LogModel(Message):
    run_id: str | None = None
    model_json: str | None = None


def identity(asked: OneRun) -> str:
    """The run's id, by either of its names."""
    run_id = asked.run_id or asked.run_uuid
    if not run_id:
        raise required_missing("run_id")
    return run_id


def head(call: Call, run_id: str) -> RunInfo:
    """The head of a run that is there."""
    found = run_info(call.connection, run_id)
    if found is None:
        raise missing(f"Run with id={run_id} not found")
    return found


def writable(call: Call, run_id: str) -> None:
    """Refuse what is not an active run."""
    found = direct(call.connection, "SELECT lifecycle_stage FROM runs WHERE run_id = ?", (run_id,))
    if not found:
        raise missing(f"Run with id={run_id} not found")
    if found[0][0] != "active":
        raise invalid(f"The run {run_id} must be in the 'active' state. Current state is {found[0][0]}.")


@endpoint("POST", "runs/create", CreateRun, write=True)
def create(call: Call, asked: CreateRun) -> dict[str, Any]:
    experiment = active(find(call, asked.experiment_id))
    given, started = dict(check_tag(tag) for tag in asked.tags), check_time(asked.start_time, "start_time")
    tagged = given.get(RUN_NAME)
    if asked.run_name and tagged and asked.run_name != tagged:
        raise invalid("Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values "
                      f"(run_name='{asked.run_name}', mlflow.runName='{tagged}').")
    if asked.run_id is not None and (known := _known(call, asked.run_id, experiment.id)):
        return known
    run_id = tracked.create_run(
        call.connection, clock=call.clock, user=call.owner(asked.user_id), experiment_id=experiment.id, run_id=asked.run_id, tags=given,
        name=asked.run_name or tagged or names.made_up(call.clock), started=None if not started else started * 1000)
    made = run_messages(call.connection, [run_id])[0]
    made.outputs = None
    return {"run": made}


def _known(call: Call, run_id: str, experiment_id: int) -> dict[str, Any] | None:
    """The run that an earlier try of this request has made, if there was one."""
    if not _OWN_ID.fullmatch(run_id):
        raise bad_value("run_id", run_id, "A client's own run_id is 32 hex digits.")
    found = run_messages(call.connection, [run_id])
    if found and found[0].info.experiment_id != str(experiment_id):
        raise MlflowError("RESOURCE_ALREADY_EXISTS", f"Run with id={run_id} already exists in another experiment.")
    return {"run": found[0]} if found else None


@endpoint("GET", "runs/get", OneRun)
def get(call: Call, asked: OneRun) -> dict[str, Any]:
    run_id = identity(asked)
    found = run_messages(call.connection, [run_id])
    if not found:
        raise missing(f"Run with id={run_id} not found")
    return {"run": found[0]}


@endpoint("POST", "runs/update", UpdateRun, write=True)
def update(call: Call, asked: UpdateRun) -> dict[str, Any]:
    run_id = identity(asked)
    writable(call, run_id)
    changed: dict[str, Any] = {}
    if asked.status is not None:
        changed["status"] = _status(asked.status)
    if asked.end_time is not None:
        changed["end_time"] = check_time(asked.end_time, "end_time")
    if changed:
        call.connection.execute(sa.update(runs).where(runs.c.run_id == run_id).values(**changed))
    if asked.run_name:
        tracked.set_tags(call.connection, run_id, dict([check_tag(KeyValue(key=RUN_NAME, value=asked.run_name))]))
    return {"run_info": head(call, run_id)}


def _status(given: str | int) -> str:
    if isinstance(given, int) and 1 <= given <= len(STATUSES):
        return STATUSES[given - 1]
    if given not in STATUSES:
        raise bad_value("status", given, f"It is one of {', '.join(STATUSES)}.")
    return str(given)


@endpoint("POST", "runs/delete", OneRun, write=True)
def delete(call: Call, asked: OneRun) -> dict[str, Any]:
    return _move(call, identity(asked), "deleted")


@endpoint("POST", "runs/restore", OneRun, write=True)
def restore(call: Call, asked: OneRun) -> dict[str, Any]:
    return _move(call, identity(asked), "active")


def _move(call: Call, run_id: str, stage: Literal["active", "deleted"]) -> dict[str, Any]:
    try:
        tracked.set_run_stage(call.connection, run_id, clock=call.clock, actor=call.actor, stage=stage)
    except NotFound:
        raise missing(f"Run with id={run_id} not found") from None
    return {}


@endpoint("POST", "runs/set-tag", RunKey, required=("key",), write=True)
def set_tag(call: Call, asked: RunKey) -> dict[str, Any]:
    run_id = identity(asked)
    found = check_tag(KeyValue(key=asked.key, value=asked.value))
    writable(call, run_id)
    tracked.set_tags(call.connection, run_id, dict([found]))
    return {}


@endpoint("POST", "runs/delete-tag", RunKey, required=("key",), write=True)
def delete_tag(call: Call, asked: RunKey) -> dict[str, Any]:
    run_id = identity(asked)
    writable(call, run_id)
    try:
        tracked.delete_tag(call.connection, run_id, asked.key or "")
    except NotFound:
        raise missing(f"No tag with name: {asked.key} in run with id {run_id}") from None
    return {}


@endpoint("POST", "runs/log-parameter", RunKey, required=("key",), write=True)
def log_param(call: Call, asked: RunKey) -> dict[str, Any]:
    run_id = identity(asked)
    key, value = check_param(KeyValue(key=asked.key, value=asked.value))
    writable(call, run_id)
    known = call.connection.scalar(sa.select(params.c.value).where(params.c.run_id == run_id, params.c.key == key))
    if known is not None and known != value:
        raise invalid(f"Changing param values is not allowed. Param with key='{key}' was already logged with value='{known}' for run ID='{run_id}'. "
                      f"Attempted logging new value '{value}'.")
    if known is None:
        call.connection.execute(sa.insert(params).values(run_id=run_id, key=key, value=value))
    return {}


@endpoint("POST", "runs/log-batch", LogBatch, required=("run_id",), write=True)
def log_batch(call: Call, asked: LogBatch) -> dict[str, Any]:
    run_id = check_run_id(asked.run_id or "")
    for index, metric in enumerate(asked.metrics):
        if not metric.key or metric.value is None or metric.timestamp is None:
            raise required_missing(f"metrics[{index}].{'key' if not metric.key else 'value' if metric.value is None else 'timestamp'}")
    check_keys(asked.params, "params")
    check_keys(asked.tags, "tags")
    given = [check_param(item, f"params[{index}]") for index, item in enumerate(asked.params)]
    tagged = [check_tag(item, f"tags[{index}]") for index, item in enumerate(asked.tags)]
    check_batch(asked.metrics, given, tagged)
    check_unique(key for key, _ in given)
    writable(call, run_id)
    if given:
        _log_params(call, run_id, given)
    if asked.metrics:
        log_points(call, run_id, asked.metrics)
    if tagged:
        tracked.set_tags(call.connection, run_id, dict(tagged))
    return {}


def _log_params(call: Call, run_id: str, given: Sequence[tuple[str, str]]) -> None:
    marks = ", ".join("?" * len(given))
    known = dict(direct(call.connection, f"SELECT key, value FROM params WHERE run_id = ? AND key IN ({marks})", (run_id, *(key for key, _ in given))))
    changed = [{"key": key, "old_value": known[key], "new_value": value} for key, value in given if known.get(key, value) != value]
    if changed:
        raise invalid(f"Changing param values is not allowed. Params were already logged='{changed}' for run ID='{run_id}'.")
    new = [(run_id, key, value) for key, value in given if key not in known]
    if new:
        direct_many(call.connection, "INSERT INTO params (run_id, key, value) VALUES (?, ?, ?)", new)


@endpoint("POST", "runs/log-model", LogModel, required=("run_id", "model_json"), write=True)
def log_model(call: Call, asked: LogModel) -> dict[str, Any]:
    """What clients before 3.0 do with a model: its description goes into a tag."""
    run_id, text = asked.run_id or "", asked.model_json or ""
    try:
        model = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        raise invalid(f"Malformed model info. \n {text[:500]} \n is not a valid JSON.") from None
    wanted = {"artifact_path", "flavors", "utc_time_created", "run_id"} - model.keys()
    if wanted:
        raise invalid(f"Model json is missing mandatory fields: {wanted}")
    writable(call, run_id)
    kept: dict[str, Any] = {key: model[key] for key in ("run_id", "utc_time_created", "artifact_path", "model_uuid") if key in model}
    flavors = model["flavors"] if isinstance(model["flavors"], dict) else {}
    kept["flavors"] = {name: {key: value for key, value in config.items() if key != "config"} if isinstance(config, dict) else config
                       for name, config in flavors.items()}
    known = _history(call.connection.scalar(sa.select(tags.c.value).where(tags.c.run_id == run_id, tags.c.key == HISTORY)))
    if kept not in known:  # as it is when a client tries again
        value = msgspec.json.encode([*known, kept]).decode()
        statement = insert(call.connection, tags).values(run_id=run_id, key=HISTORY, value=value)
        call.connection.execute(statement.on_conflict_do_update(index_elements=["run_id", "key"], set_={"value": value}))
    return {}


def _history(text: str | None) -> list[Any]:
    """The models that the tag tells of; none where a client has written something else there."""
    try:
        return msgspec.json.decode(text, type=list[Any]) if text else []
    except (msgspec.DecodeError, RecursionError):
        return []


@endpoint("POST", "runs/search", SearchRuns)
def search(call: Call, asked: SearchRuns) -> dict[str, Any]:
    found = search_run_ids(
        call.connection, experiments=[experiment_number(text) for text in asked.experiment_ids], filter=asked.filter or "", order_by=asked.order_by,
        view=view_of(asked.run_view_type), limit=page_size(asked.max_results, 1000), after=asked.page_token or None)
    return some({"runs": run_messages(call.connection, found.ids), "next_page_token": found.next})
