"""Registered models, their versions, and the feature sets and training sets behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from davy.features.describe import describe, describe_view
from davy.gate.record import standing
from davy.registry.alias_history import alias_history
from davy.registry.aliases import read_aliases
from davy.registry.catalog import find_model
from davy.registry.definitions import get_feature_set, get_training_set
from davy.registry.lineage import lineage
from davy.registry.models import PROMPT_TAG, count_versions, get_version, list_models, list_versions, require_model, versions_of
from davy.registry.search import search_models
from davy.release.releases import read_releases
from davy.release.status import told
from davy.serving.traffic import Traffic, read_traffic
from davy.store.journal import entries
from davy.tracking.runs import read_runs
from davy.web.answers import PERIOD, newest_predictions, requests
from davy.web.render import page

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from starlette.requests import Request
    from starlette.responses import Response

    from davy.home import Home
    from davy.registry.models import ModelVersion

MOVES, SHOWN, MOST_PROMPTS = 10, 100, 1000
PROMPT_TEXT = "mlflow.prompt.text"
_SHOWN = frozenset(("digest", "feature_set", "rows", "watermarks", "as_known", "start", "end", "columns"))
_KNEW = {"ingest": "what had arrived before its time", "event": "all that had happened before its time (hindsight)"}


def all_models(home: Home, request: Request) -> Response:
    """`/models`: each with its versions, aliases and traffic."""
    with home.database.read() as connection:
        traffic = {item.model: item for item in read_traffic(connection)}
        found = list_models(connection)
        prompts = search_models(connection, filter=f"tags.`{PROMPT_TAG}` = 'true'", limit=MOST_PROMPTS)
    return page(request, "models.html", project=home.config.project, now=home.clock.now(), models=found, traffic=traffic, prompts=prompts.names,
                more=prompts.next is not None)


def model(home: Home, request: Request) -> Response:
    """`/models/late`: its versions, its traffic's history and its newest predictions."""
    name = request.path_params["name"]
    now = home.clock.now()
    with home.database.read() as connection:
        require_model(connection, name)
        registered = find_model(connection, name)
        traffic = _traffic(read_traffic(connection, name))
        versions, count = _shown(connection, name, traffic), count_versions(connection, name)
        moves = alias_history(connection, name)[:MOVES]
        history = entries(connection, subject=name)
        gates = {version.version: standing(connection, name, version.version) for version in versions}
        runs = {run.id: run.name for run in read_runs(connection, [version.run_id for version in versions if version.run_id])}
    return page(request, "model.html", project=home.config.project, now=now, name=name, versions=versions, traffic=traffic, history=history, moves=moves,
                answered=requests(home, name, now - PERIOD), newest=newest_predictions(home, name, now), runs=runs, gates=gates,
                live=traffic.versions if traffic else {}, count=count, registered=registered)


def _shown(connection: Connection, name: str, traffic: Traffic | None) -> list[ModelVersion]:
    """The newest versions, then the older ones at which an alias or the traffic points."""
    newest = list_versions(connection, name, limit=SHOWN)
    held = {*read_aliases(connection, name).values(), *(traffic.versions if traffic else ())} - {version.version for version in newest}
    return [*newest, *versions_of(connection, [(name, number) for number in sorted(held, reverse=True)])]


def version(home: Home, request: Request) -> Response:
    """`/models/late/2`: what it takes, what it was made of, and whether it is live."""
    name, number = request.path_params["name"], request.path_params["version"]
    now = home.clock.now()
    with home.database.read() as connection:
        found = get_version(connection, name, number)
        line = lineage(connection, found)
        features = get_feature_set(connection, found.feature_set) if found.feature_set else None
        traffic = _traffic(read_traffic(connection, name))
        history = [entry for entry in entries(connection, subject=name) if _concerns(entry.details, name, number)]
        gate = standing(connection, name, number)
        released = [told(item) for item in read_releases(connection, name) if item.version == number]
    return page(request, "version.html", project=home.config.project, now=now, found=found, line=line, standing=gate, releases=released,
                prompt=found.tags.get(PROMPT_TEXT),
                words=describe(features) if features else {},
                weight=traffic.versions.get(number, 0.0) if traffic else 0.0, traffic=traffic, history=history,
                answered=requests(home, name, now - PERIOD).get(number), newest=newest_predictions(home, name, now, number))


def feature_set(home: Home, request: Request) -> Response:
    """`/feature-sets/DIGEST`: the definitions that a version computes with."""
    with home.database.read() as connection:
        found = get_feature_set(connection, request.path_params["digest"])
    views = [{"spec": view, "features": describe_view(view)} for view in found.views]
    return page(request, "feature_set.html", project=home.config.project, found=found, words=describe(found), views=views)


def training_set(home: Home, request: Request) -> Response:
    """`/training-sets/DIGEST`: what a model was trained on, and how to build it again."""
    with home.database.read() as connection:
        found = get_training_set(connection, request.path_params["digest"])
        users = [version for version in list_versions(connection) if version.training_set == found.digest]
    rest = {key: value for key, value in found.details.items() if key not in _SHOWN}
    told = {"start": None, "end": None, **found.details}
    return page(request, "training_set.html", project=home.config.project, found=found, users=users, rest=rest, start=told["start"], end=told["end"],
                seen=told.get("watermarks") or {}, columns=told.get("columns") or {}, knew=_KNEW.get(str(told.get("as_known")), "not recorded"))


def _traffic(found: list[Traffic]) -> Traffic | None:
    return found[0] if found else None


def _concerns(details: dict[str, Any], name: str, number: int) -> bool:
    """Whether a journal entry of the model is about this version: as its subject, in an alias, or in the traffic before or after."""
    told = (details.get("version"), details.get("before"), details.get("weights"))
    return number in told or any(f"{name}@{number}" in item for item in told if isinstance(item, dict))
