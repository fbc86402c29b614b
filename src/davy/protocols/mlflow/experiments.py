"""`experiments/...`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from davy.errors import Conflict
from davy.protocols.mlflow.api import Call, endpoint
from davy.protocols.mlflow.checks import LONGEST_NAME, check_experiment_tag, check_length, experiment_number, page_size, view_of
from davy.protocols.mlflow.wire import KeyValue, Message, MlflowError, invalid, missing, some
from davy.tracking import experiments
from davy.tracking.search import search_experiments

if TYPE_CHECKING:
    from davy.tracking.records import Experiment

_LONGEST_LOCATION = 2048


class ExperimentMessage(Message):
    experiment_id: str | None = None
    name: str | None = None
    artifact_location: str | None = None
    lifecycle_stage: str | None = None
    last_update_time: int | None = None
    creation_time: int | None = None
    tags: list[KeyValue] = []


class CreateExperiment(Message):
    name: str | None = None
    artifact_location: str | None = None
    tags: list[KeyValue] = []


class OneExperiment(Message):
    experiment_id: str | None = None


class NamedExperiment(Message):
    experiment_name: str | None = None


class UpdateExperiment(Message):
    experiment_id: str | None = None
    new_name: str | None = None


class ExperimentTag(Message):
    experiment_id: str | None = None
    key: str | None = None
    value: str | None = None


class SearchExperiments(Message):
    max_results: int | None = None
    page_token: str | None = None
    filter: str | None = None
    order_by: list[str] = []
    view_type: str | int | None = None


class SearchDatasets(Message):
    experiment_ids: list[str] = []


class DatasetSummary(Message):
    experiment_id: str | None = None
    name: str | None = None
    digest: str | None = None
    context: str | None = None


def message(found: Experiment) -> ExperimentMessage:
    """The experiment as MLflow has it."""
    return ExperimentMessage(experiment_id=str(found.id), name=found.name, artifact_location=found.artifact_location, lifecycle_stage=found.lifecycle,
                             last_update_time=found.updated // 1000, creation_time=found.created // 1000,
                             tags=[KeyValue(key=key, value=value) for key, value in found.tags.items()])


def find(call: Call, identity: str | None, stage: str | None = None) -> Experiment:
    """The experiment of that id; with a stage, only one in it.

    Raises:
        MlflowError: RESOURCE_DOES_NOT_EXIST.
    """
    number = experiment_number(identity)
    found = experiments.find_experiment(call.connection, number)
    if found is None or (stage is not None and found.lifecycle != stage):
        raise missing(f"No Experiment with id={number} exists")
    return found


def active(found: Experiment) -> Experiment:
    """The experiment, if it takes changes."""
    if found.lifecycle != "active":
        raise invalid(f"The experiment {found.id} must be in the 'active' state. Current state is {found.lifecycle}.")
    return found


@endpoint("POST", "experiments/create", CreateExperiment, required=("name",), write=True)
def create(call: Call, asked: CreateExperiment) -> dict[str, str]:
    name = _check_name(asked.name or "")
    tags = dict(check_experiment_tag(tag) for tag in asked.tags)
    location = _check_location(asked.artifact_location)
    try:
        found = experiments.create_experiment(call.connection, clock=call.clock, actor=call.actor, name=name, tags=tags, artifact_location=location)
    except Conflict as error:
        raise MlflowError("RESOURCE_ALREADY_EXISTS", f"Experiment(name={name}) already exists. Error: {error.came}") from None
    return {"experiment_id": str(found.id)}


@endpoint("GET", "experiments/get", OneExperiment, required=("experiment_id",))
def get(call: Call, asked: OneExperiment) -> dict[str, Any]:
    return {"experiment": message(find(call, asked.experiment_id))}


@endpoint("GET", "experiments/get-by-name", NamedExperiment, required=("experiment_name",))
def get_by_name(call: Call, asked: NamedExperiment) -> dict[str, Any]:
    found = experiments.find_experiment(call.connection, asked.experiment_name or "")
    if found is None:
        raise missing(f"Could not find experiment with name '{asked.experiment_name}'")
    return {"experiment": message(found)}


@endpoint("POST", "experiments/update", UpdateExperiment, required=("experiment_id", "new_name"), write=True)
def update(call: Call, asked: UpdateExperiment) -> dict[str, Any]:
    name = _check_name(asked.new_name or "")
    found = find(call, asked.experiment_id)
    if found.lifecycle != "active":
        raise MlflowError("INVALID_STATE", "Cannot rename a non-active experiment.")
    try:
        experiments.rename_experiment(call.connection, clock=call.clock, actor=call.actor, identity=found.id, name=name)
    except Conflict as error:
        raise MlflowError("RESOURCE_ALREADY_EXISTS", f"Experiment(name={name}) already exists. Error: {error.came}") from None
    return {}


@endpoint("POST", "experiments/delete", OneExperiment, required=("experiment_id",), write=True)
def delete(call: Call, asked: OneExperiment) -> dict[str, Any]:
    found = find(call, asked.experiment_id, "active")
    experiments.set_experiment_stage(call.connection, clock=call.clock, actor=call.actor, identity=found.id, stage="deleted")
    return {}


@endpoint("POST", "experiments/restore", OneExperiment, required=("experiment_id",), write=True)
def restore(call: Call, asked: OneExperiment) -> dict[str, Any]:
    found = find(call, asked.experiment_id, "deleted")
    experiments.set_experiment_stage(call.connection, clock=call.clock, actor=call.actor, identity=found.id, stage="active")
    return {}


@endpoint("POST", "experiments/set-experiment-tag", ExperimentTag, required=("experiment_id", "key"), write=True)
def set_tag(call: Call, asked: ExperimentTag) -> dict[str, Any]:
    key, value = check_experiment_tag(KeyValue(key=asked.key, value=asked.value))
    experiments.set_experiment_tag(call.connection, active(find(call, asked.experiment_id)).id, key, value)
    return {}


@endpoint("POST", "experiments/delete-experiment-tag", ExperimentTag, required=("experiment_id", "key"), write=True)
def delete_tag(call: Call, asked: ExperimentTag) -> dict[str, Any]:
    found = active(find(call, asked.experiment_id))
    if not experiments.delete_experiment_tag(call.connection, found.id, asked.key or ""):
        raise missing(f"No tag with name: {asked.key} in experiment with id {asked.experiment_id}")
    return {}


@endpoint("GET", "experiments/search", SearchExperiments)
@endpoint("POST", "experiments/search", SearchExperiments)
def search(call: Call, asked: SearchExperiments) -> dict[str, Any]:
    found = search_experiments(call.connection, filter=asked.filter or "", order_by=asked.order_by, view=view_of(asked.view_type),
                               limit=page_size(asked.max_results, 1000), after=asked.page_token or None)
    return some({"experiments": [message(one) for one in found.experiments], "next_page_token": found.next})


@endpoint("POST", "experiments/search-datasets", SearchDatasets)
def search_datasets(call: Call, asked: SearchDatasets) -> dict[str, Any]:
    from davy.tracking.inputs import dataset_summaries

    if not asked.experiment_ids:
        raise invalid("SearchDatasets request must specify at least one experiment_id.")
    if len(asked.experiment_ids) > 20:
        raise invalid(f"SearchDatasets request cannot specify more than 20 experiment_ids. Received {len(asked.experiment_ids)} experiment_ids.")
    found = dataset_summaries(call.connection, [experiment_number(text) for text in asked.experiment_ids])
    return {"dataset_summaries": [DatasetSummary(experiment_id=str(row[0]), name=row[1], digest=row[2], context=row[3]) for row in found]} if found else {}


def _check_name(name: str) -> str:
    return check_length("name", name, LONGEST_NAME)


def _check_location(location: str | None) -> str:
    """A root for artifacts that leads nowhere else; empty means the server's own."""
    if not location:
        return ""
    check_length("Artifact location", location, _LONGEST_LOCATION)
    plain, before = location, ""
    while plain != before:
        plain, before = unquote(plain), plain
    if plain.startswith("runs:"):
        raise invalid(f"Artifact location cannot be a runs:/ URI. Given: '{location}'")
    if "#" in plain:
        raise invalid("'artifact_location' URL can't include fragments or params.")
    if re.search(r"[\x00-\x1f\x7f\\]", plain) or ".." in re.split(r"[/?&=;]", plain):
        raise invalid(f"Invalid artifact_location: {location!r}. It may not contain '..', a backslash or control characters.")
    if "?" in location and urlsplit(location).scheme in ("", "file", "mlflow-artifacts"):
        raise invalid(f"Invalid artifact_location: {location!r}. It may not have a query.")
    return location.rstrip("/")
