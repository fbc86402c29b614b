"""`registered-models/...`: models, their tags and aliases."""

from __future__ import annotations

from typing import Any

from davy.errors import NotFound
from davy.protocols.mlflow.api import Call, endpoint
from davy.protocols.mlflow.checks import check_name, page_size
from davy.protocols.mlflow.registry_messages import (
    check_alias_name,
    check_model_name,
    check_registry_tag,
    model_message,
    present_model,
    present_version,
    protection,
    version_message,
)
from davy.protocols.mlflow.wire import KeyValue, Message, MlflowError, invalid, missing, some
from davy.registry import aliases, catalog, stages, tags
from davy.registry.models import PROMPT_TAG, find_alias, find_newest, require_model
from davy.registry.search import MOST_MODELS, search_models


class CreateModel(Message):
    name: str | None = None
    tags: list[KeyValue] = []
    description: str | None = None


class OneModel(Message):
    name: str | None = None


class UpdateModel(Message):
    name: str | None = None
    description: str | None = None


class RenameModel(Message):
    name: str | None = None
    new_name: str | None = None


class LatestVersions(Message):
    name: str | None = None
    stages: list[str] = []


class SearchModels(Message):
    filter: str | None = None
    max_results: int | None = None
    order_by: list[str] = []
    page_token: str | None = None


class ModelTag(Message):
    name: str | None = None
    key: str | None = None
    value: str | None = None


class Alias(Message):
    name: str | None = None
    alias: str | None = None
    version: str | None = None


@endpoint("POST", "registered-models/create", CreateModel, required=("name",), write=True)
def create(call: Call, asked: CreateModel) -> dict[str, Any]:
    name = check_model_name(asked.name)
    given = dict(check_registry_tag(tag) for tag in asked.tags)
    known = catalog.find_model(call.connection, name)
    if known is not None:
        raise _taken(name, known.is_prompt, given.get(PROMPT_TAG) == "true")
    catalog.create_model(call.connection, clock=call.clock, actor=call.actor, name=name, description=asked.description or "", tags=given)
    return {"registered_model": model_message(present_model(call, name))}


@endpoint("GET", "registered-models/get", OneModel, required=("name",))
def get(call: Call, asked: OneModel) -> dict[str, Any]:
    return {"registered_model": model_message(present_model(call, asked.name))}


@endpoint("PATCH", "registered-models/update", UpdateModel, required=("name",), write=True)
def update(call: Call, asked: UpdateModel) -> dict[str, Any]:
    name = _known(call, asked.name)
    catalog.describe_model(call.connection, clock=call.clock, actor=call.actor, name=name, description=asked.description or "")
    return {"registered_model": model_message(present_model(call, name))}


@endpoint("POST", "registered-models/rename", RenameModel, required=("name", "new_name"), write=True)
def rename(call: Call, asked: RenameModel) -> dict[str, Any]:
    to = check_model_name(asked.new_name, "new_name")
    name = _known(call, asked.name)
    if to != name and catalog.find_model(call.connection, to) is not None:
        raise MlflowError("RESOURCE_ALREADY_EXISTS", f"Registered Model (name={to}) already exists.")
    catalog.rename_model(call.connection, clock=call.clock, actor=call.actor, name=name, to=to, protection=protection(call))
    return {"registered_model": model_message(present_model(call, to))}


@endpoint("DELETE", "registered-models/delete", OneModel, required=("name",), write=True)
def delete(call: Call, asked: OneModel) -> dict[str, Any]:
    catalog.delete_model(call.connection, clock=call.clock, actor=call.actor, name=_known(call, asked.name), protection=protection(call))
    return {}


@endpoint("POST", "registered-models/get-latest-versions", LatestVersions, required=("name",))
@endpoint("GET", "registered-models/get-latest-versions", LatestVersions, required=("name",))
def latest_versions(call: Call, asked: LatestVersions) -> dict[str, Any]:
    found = stages.latest_versions(call.connection, _known(call, asked.name), asked.stages)
    return some({"model_versions": [version_message(version) for version in found]})


@endpoint("GET", "registered-models/search", SearchModels)
@endpoint("POST", "registered-models/search", SearchModels)
def search(call: Call, asked: SearchModels) -> dict[str, Any]:
    found = search_models(call.connection, filter=asked.filter or "", order_by=asked.order_by, limit=page_size(asked.max_results, 100, MOST_MODELS),
                          after=asked.page_token or None)
    return some({"registered_models": [model_message(model) for model in catalog.read_models(call.connection, found.names)], "next_page_token": found.next})


@endpoint("POST", "registered-models/set-tag", ModelTag, required=("name", "key"), write=True)
def set_tag(call: Call, asked: ModelTag) -> dict[str, Any]:
    name = check_model_name(asked.name)
    key, value = check_registry_tag(KeyValue(key=asked.key, value=asked.value))
    tags.set_model_tag(call.connection, clock=call.clock, actor=call.actor, name=_known(call, name), key=key, value=value)
    return {}


@endpoint("DELETE", "registered-models/delete-tag", ModelTag, required=("name", "key"), write=True)
def delete_tag(call: Call, asked: ModelTag) -> dict[str, Any]:
    name = check_model_name(asked.name)
    key = check_name(asked.key or "", "key")
    tags.set_model_tag(call.connection, clock=call.clock, actor=call.actor, name=_known(call, name), key=key, value=None)
    return {}


@endpoint("POST", "registered-models/alias", Alias, required=("name", "alias", "version"), write=True)
def set_alias(call: Call, asked: Alias) -> dict[str, Any]:
    name = check_model_name(asked.name)
    alias = check_alias_name(asked.alias, to_set=True)
    version = present_version(call, name, asked.version).version
    aliases.set_alias(call.connection, clock=call.clock, actor=call.actor, name=name, alias=alias, version=version, protection=protection(call))
    return {}


@endpoint("DELETE", "registered-models/alias", Alias, required=("name", "alias"), write=True)
def delete_alias(call: Call, asked: Alias) -> dict[str, Any]:
    name = check_model_name(asked.name)
    alias = check_alias_name(asked.alias)
    aliases.delete_alias(call.connection, clock=call.clock, actor=call.actor, name=_known(call, name), alias=alias, protection=protection(call))
    return {}


@endpoint("GET", "registered-models/alias", Alias, required=("name", "alias"))
def get_by_alias(call: Call, asked: Alias) -> dict[str, Any]:
    name, alias = check_model_name(asked.name), check_alias_name(asked.alias)
    newest = alias.lower() == "latest"
    found = find_newest(call.connection, name) if newest else find_alias(call.connection, name, alias)
    if found is None:
        _known(call, name)
        raise missing(f"Latest version not found for model {name}.") if newest else invalid(f"Registered model alias {alias} not found.")
    return {"model_version": version_message(found)}


def _known(call: Call, name: str | None) -> str:
    """The name, if a model has it; cheaper than the model."""
    name = check_model_name(name)
    try:
        require_model(call.connection, name)
    except NotFound:
        raise missing(f"Registered Model with name={name} not found") from None
    return name


def _taken(name: str, known_prompt: bool, new_prompt: bool) -> MlflowError:
    old, new = ("Prompt" if prompt else "Registered Model" for prompt in (known_prompt, new_prompt))
    if old != new:
        return MlflowError("RESOURCE_ALREADY_EXISTS", f"Tried to create a {new.lower()} with name {name!r}, but the name is already taken by a {old.lower()}. "
                                                      "MLflow does not allow creating a model and a prompt with the same name.")
    return MlflowError("RESOURCE_ALREADY_EXISTS", f"{new} (name={name}) already exists.")
