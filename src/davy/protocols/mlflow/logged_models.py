"""`logged-models...`: models that runs have made, with params, tags and metrics of their own."""

from __future__ import annotations

from typing import Any

from davy.errors import NotFound
from davy.protocols.mlflow.api import Call, endpoint
from davy.protocols.mlflow.checks import bad_value, experiment_number, page_size
from davy.protocols.mlflow.experiments import active, find
from davy.protocols.mlflow.registry_messages import pairs
from davy.protocols.mlflow.wire import KeyValue, Message, invalid, missing, number, some
from davy.tracking import logged_models as tracked
from davy.tracking.logged_models import NOT_IN_NAME, LoggedModel, ModelMetric, Status
from davy.tracking.logged_search import Dataset, LoggedOrder, search_logged_models

STATUSES: tuple[Status, ...] = ("PENDING", "READY", "UPLOAD_FAILED")
_PREFIX = "LOGGED_MODEL_"


class ModelMetricMessage(Message, kw_only=True):
    key: str
    value: float | str
    timestamp: int
    step: int
    dataset_name: str | None = None
    dataset_digest: str | None = None
    model_id: str
    run_id: str


class LoggedModelInfo(Message, kw_only=True):
    model_id: str
    experiment_id: str
    name: str
    creation_timestamp_ms: int
    last_updated_timestamp_ms: int
    artifact_uri: str
    status: str
    status_message: str | None = None
    model_type: str
    source_run_id: str
    tags: list[KeyValue] = []


class LoggedModelData(Message):
    params: list[KeyValue] = []
    metrics: list[ModelMetricMessage] = []


class LoggedModelMessage(Message):
    info: LoggedModelInfo
    data: LoggedModelData


class CreateLoggedModel(Message):
    experiment_id: str | None = None
    name: str | None = None
    model_type: str | None = None
    source_run_id: str | None = None
    params: list[KeyValue] = []
    tags: list[KeyValue] = []


class OneLoggedModel(Message):
    model_id: str | None = None
    allow_deleted: str | bool | None = None


class Finalize(Message):
    model_id: str | None = None
    status: str | int | None = None


class DatasetFilter(Message):
    dataset_name: str | None = None
    dataset_digest: str | None = None


class OrderItem(DatasetFilter):
    field_name: str | None = None
    ascending: bool | None = None


class SearchLoggedModels(Message):
    experiment_ids: list[str] = []
    filter: str | None = None
    datasets: list[DatasetFilter] = []
    max_results: int | None = None
    order_by: list[OrderItem] = []
    page_token: str | None = None


class LoggedModelTags(Message):
    model_id: str | None = None
    tags: list[KeyValue] = []


class LoggedModelTag(Message):
    model_id: str | None = None
    tag_key: str | None = None


class LoggedModelParams(Message):
    model_id: str | None = None
    params: list[KeyValue] = []


def logged_model_message(found: LoggedModel) -> LoggedModelMessage:
    """A logged model as MLflow has it."""
    info = LoggedModelInfo(
        model_id=found.id, experiment_id=str(found.experiment_id), name=found.name, creation_timestamp_ms=found.created // 1000,
        last_updated_timestamp_ms=found.updated // 1000, artifact_uri=found.artifact_uri, status=_PREFIX + found.status, status_message=found.status_message,
        model_type=found.model_type or "", source_run_id=found.source_run_id or "", tags=pairs(found.tags.items()))
    return LoggedModelMessage(info=info, data=LoggedModelData(params=pairs(found.params.items()), metrics=[_metric(point) for point in found.metrics]))


def present(call: Call, model_id: str | None, *, deleted: bool = False) -> LoggedModel:
    """The logged model that the request names."""
    found = tracked.find_logged_model(call.connection, model_id or "", deleted=deleted)
    if found is None:
        raise missing(f"Logged model with ID '{model_id}' not found.")
    return found


@endpoint("POST", "logged-models", CreateLoggedModel, required=("experiment_id",), write=True)
def create(call: Call, asked: CreateLoggedModel) -> dict[str, Any]:
    name = asked.name or None
    if name is not None and any(letter in name for letter in NOT_IN_NAME):
        raise invalid(f"Invalid model name ({name!r}) provided. Model name must be a non-empty string and cannot contain the following characters: "
                      f"{NOT_IN_NAME}")
    experiment = active(find(call, asked.experiment_id))
    found = tracked.create_logged_model(
        call.connection, clock=call.clock, experiment_id=experiment.id, name=name, model_type=asked.model_type, source_run_id=asked.source_run_id,
        params=_params(asked.params), tags=_texts(asked.tags))
    return {"model": logged_model_message(found)}


@endpoint("GET", "logged-models/{model_id}", OneLoggedModel, required=("model_id",))
def get(call: Call, asked: OneLoggedModel) -> dict[str, Any]:
    return {"model": logged_model_message(present(call, asked.model_id, deleted=str(asked.allow_deleted).lower() == "true"))}


@endpoint("PATCH", "logged-models/{model_id}", Finalize, required=("model_id", "status"), write=True)
def finalize(call: Call, asked: Finalize) -> dict[str, Any]:
    model_id = asked.model_id or ""
    tracked.finalize_logged_model(call.connection, model_id, clock=call.clock, status=_status(asked.status))
    return {"model": logged_model_message(present(call, model_id, deleted=True))}


@endpoint("DELETE", "logged-models/{model_id}", OneLoggedModel, required=("model_id",), write=True)
def delete(call: Call, asked: OneLoggedModel) -> dict[str, Any]:
    tracked.delete_logged_model(call.connection, asked.model_id or "", clock=call.clock, actor=call.actor)
    return {}


@endpoint("POST", "logged-models/search", SearchLoggedModels, required=("experiment_ids",))
def search(call: Call, asked: SearchLoggedModels) -> dict[str, Any]:
    found = search_logged_models(
        call.connection, experiments=[experiment_number(text) for text in asked.experiment_ids], filter=asked.filter or "",
        datasets=[_dataset(item) for item in asked.datasets], order_by=[_order(item) for item in asked.order_by],
        limit=page_size(asked.max_results or None, 100), after=asked.page_token or None)
    models = tracked.read_logged_models(call.connection, found.ids)
    return some({"models": [logged_model_message(model) for model in models], "next_page_token": found.next})


@endpoint("PATCH", "logged-models/{model_id}/tags", LoggedModelTags, required=("model_id",), write=True)
def set_tags(call: Call, asked: LoggedModelTags) -> dict[str, Any]:
    tracked.set_model_tags(call.connection, asked.model_id or "", _texts(asked.tags))
    return {}


@endpoint("DELETE", "logged-models/{model_id}/tags/{tag_key:path}", LoggedModelTag, required=("model_id", "tag_key"), write=True)
def delete_tag(call: Call, asked: LoggedModelTag) -> dict[str, Any]:
    try:
        tracked.delete_model_tag(call.connection, asked.model_id or "", asked.tag_key or "")
    except NotFound as error:
        raise missing(error.came) from None
    return {}


@endpoint("POST", "logged-models/{model_id}/params", LoggedModelParams, required=("model_id",), write=True)
def log_params(call: Call, asked: LoggedModelParams) -> dict[str, Any]:
    tracked.log_model_params(call.connection, asked.model_id or "", _params(asked.params))
    return {}


def _dataset(item: DatasetFilter) -> Dataset:
    if not item.dataset_name:
        raise invalid("`dataset_name` in the `datasets` clause must be specified.")
    return Dataset(item.dataset_name, item.dataset_digest or None)


def _order(item: OrderItem) -> LoggedOrder:
    if not item.field_name:
        raise invalid("`field_name` in the `order_by` clause must be specified.")
    if item.dataset_digest and not item.dataset_name:
        raise invalid("`dataset_digest` can only be specified if `dataset_name` is also specified.")
    return LoggedOrder(item.field_name, item.ascending is not False, Dataset(item.dataset_name, item.dataset_digest or None) if item.dataset_name else None)


def _params(given: list[KeyValue]) -> dict[str, str]:
    """Params by key; the same key twice is fine with the same value."""
    found: dict[str, str] = {}
    for item in given:
        key, value = item.key or "", item.value or ""
        if found.setdefault(key, value) != value:
            raise invalid(f"Duplicate parameter keys have been submitted: ['{key}']. Please ensure the request contains only one param value per param key.")
    return found


def _texts(given: list[KeyValue]) -> dict[str, str]:
    return {item.key or "": item.value or "" for item in given}


def _status(given: str | int | None) -> Status:
    if isinstance(given, int) and 1 <= given <= len(STATUSES):
        return STATUSES[given - 1]
    for status in STATUSES:
        if given == _PREFIX + status:
            return status
    raise bad_value("status", given, f"It is one of {', '.join(_PREFIX + status for status in STATUSES)}.")


def _metric(point: ModelMetric) -> ModelMetricMessage:
    return ModelMetricMessage(key=point.key, value=number(point.value), timestamp=point.timestamp, step=point.step, dataset_name=point.dataset_name,
                              dataset_digest=point.dataset_digest, model_id=point.model_id, run_id=point.run_id)
