"""`model-versions/...`: versions registered from a source, their stages and tags."""

from __future__ import annotations

from typing import Any

from davy.errors import NotFound
from davy.protocols.mlflow.api import Call, endpoint
from davy.protocols.mlflow.checks import check_name, page_size
from davy.protocols.mlflow.registry_messages import check_model_name, check_registry_tag, check_version, present_version, protection, version_message
from davy.protocols.mlflow.wire import KeyValue, Message, missing, some
from davy.registry import stages, tags, versions
from davy.registry.models import PROMPT_TAG, find_version, require_model, versions_of
from davy.registry.search import MOST_VERSIONS, search_versions
from davy.registry.sources import check_source
from davy.tracking.logged_models import note_version


class CreateVersion(Message):
    name: str | None = None
    source: str | None = None
    run_id: str | None = None
    tags: list[KeyValue] = []
    run_link: str | None = None
    description: str | None = None
    model_id: str | None = None


class OneVersion(Message):
    name: str | None = None
    version: str | None = None


class UpdateVersion(OneVersion):
    description: str | None = None


class TransitionStage(OneVersion):
    stage: str | None = None
    archive_existing_versions: bool | None = None


class SearchVersions(Message):
    filter: str | None = None
    max_results: int | None = None
    order_by: list[str] = []
    page_token: str | None = None


class VersionTag(OneVersion):
    key: str | None = None
    value: str | None = None


@endpoint("POST", "model-versions/create", CreateVersion, required=("name", "source"), write=True)
def create(call: Call, asked: CreateVersion) -> dict[str, Any]:
    name = check_model_name(asked.name)
    given = dict(check_registry_tag(tag, of_version=True) for tag in asked.tags)
    source = check_source(call.connection, asked.source or "", run_id=asked.run_id, model_id=asked.model_id, tags=given)
    try:
        require_model(call.connection, name)
    except NotFound:
        raise missing(f"Registered Model with name={name} not found") from None
    found = versions.create_version(call.connection, clock=call.clock, actor=call.actor, name=name, source=source, tags=given,
                                    description=asked.description or "", run_link=asked.run_link or "")
    if source.model_id and given.get(PROMPT_TAG, "").lower() != "true":
        note_version(call.connection, source.model_id, name, found.version)
    return {"model_version": version_message(found)}


@endpoint("GET", "model-versions/get", OneVersion, required=("name", "version"))
def get(call: Call, asked: OneVersion) -> dict[str, Any]:
    return {"model_version": version_message(present_version(call, asked.name, asked.version))}


@endpoint("GET", "model-versions/get-download-uri", OneVersion)
def get_download_uri(call: Call, asked: OneVersion) -> dict[str, Any]:
    found = present_version(call, asked.name, asked.version)
    if found.download_uri is None:
        raise missing(f"Model Version (name={found.name}, version={found.version}) has no files that MLflow's clients could read: no run has them.")
    return {"artifact_uri": found.download_uri}


@endpoint("PATCH", "model-versions/update", UpdateVersion, required=("name", "version"), write=True)
def update(call: Call, asked: UpdateVersion) -> dict[str, Any]:
    found = present_version(call, asked.name, asked.version)
    versions.describe(call.connection, clock=call.clock, actor=call.actor, name=found.name, version=found.version, description=asked.description)
    return _now(call, found.name, found.version)


@endpoint("POST", "model-versions/transition-stage", TransitionStage, required=("name", "version", "stage"), write=True)
def transition(call: Call, asked: TransitionStage) -> dict[str, Any]:
    name = check_model_name(asked.name)
    found = stages.transition(call.connection, clock=call.clock, actor=call.actor, name=name, version=check_version(name, asked.version),
                              stage=asked.stage or "", archive=bool(asked.archive_existing_versions))
    return {"model_version": version_message(found)}


@endpoint("DELETE", "model-versions/delete", OneVersion, required=("name", "version"), write=True)
def delete(call: Call, asked: OneVersion) -> dict[str, Any]:
    found = present_version(call, asked.name, asked.version)
    versions.delete_version(call.connection, clock=call.clock, actor=call.actor, name=found.name, version=found.version, protection=protection(call))
    return {}


@endpoint("GET", "model-versions/search", SearchVersions)
@endpoint("POST", "model-versions/search", SearchVersions)
def search(call: Call, asked: SearchVersions) -> dict[str, Any]:
    found = search_versions(call.connection, filter=asked.filter or "", order_by=asked.order_by,
                            limit=page_size(asked.max_results, 10_000, MOST_VERSIONS), after=asked.page_token or None)
    shown = [version_message(version, aliases=False) for version in versions_of(call.connection, found.versions)]
    return some({"model_versions": shown, "next_page_token": found.next})


@endpoint("POST", "model-versions/set-tag", VersionTag, required=("name", "version", "key"), write=True)
def set_tag(call: Call, asked: VersionTag) -> dict[str, Any]:
    key, value = check_registry_tag(KeyValue(key=asked.key, value=asked.value), of_version=True)
    found = present_version(call, asked.name, asked.version)
    tags.set_tag(call.connection, clock=call.clock, actor=call.actor, name=found.name, version=found.version, key=key, value=value)
    return {}


@endpoint("DELETE", "model-versions/delete-tag", VersionTag, required=("name", "version", "key"), write=True)
def delete_tag(call: Call, asked: VersionTag) -> dict[str, Any]:
    key = check_name(asked.key or "", "key")
    found = present_version(call, asked.name, asked.version)
    tags.set_tag(call.connection, clock=call.clock, actor=call.actor, name=found.name, version=found.version, key=key, value=None)
    return {}


def _now(call: Call, name: str, version: int) -> dict[str, Any]:
    found = find_version(call.connection, name, version)
    assert found is not None
    return {"model_version": version_message(found)}
