"""Where a path beneath `mlflow-artifacts:/` leads: to the files of a run or logged model, of an experiment as such, or of nobody.

A run's files lie beneath its artifact URI, and so do a logged model's. Every other path whose first part is an
experiment's number belongs to that experiment (traces lie there), and what is left to nobody, whose name is `-`.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import msgspec
import sqlalchemy as sa

from davy.errors import Conflict, NotFound
from davy.schema.tables import artifacts, experiments, logged_models, runs
from davy.tracking.artifacts import list_artifacts, remove_artifacts
from davy.tracking.records import Artifact

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEME, NOBODY, MODELS = "mlflow-artifacts", "-", "models"
_RUN, _MODEL, _NUMBER = re.compile(r"[0-9a-f]{32}"), re.compile(r"m-[0-9a-f]{32}"), re.compile(r"0|[1-9][0-9]{0,17}")


class Place(msgspec.Struct, frozen=True):
    """The file or folder `path` (empty: all of it) of `owner`: an id of a run or logged model, an experiment's number, or `-`."""

    kind: Literal["run", "model", "experiment", "nobody"]
    owner: str
    path: str


def locate(connection: sa.Connection, path: str) -> Place:
    """Where this path leads. Whether there is anything is another question."""
    parts = path.split("/") if path else []
    for index, (name, after) in enumerate(pairwise(parts)):
        if after == "artifacts" and (kind := _owned(connection, name, "/".join(parts[:index + 2]))):
            return Place(kind, name, "/".join(parts[index + 2:]))
    if parts and _experiment(connection, parts[0]) is not None:
        return Place("experiment", parts[0], "/".join(parts[1:]))
    return Place("nobody", NOBODY, path)


def writable_place(connection: sa.Connection, path: str) -> Place:
    """Where this path leads, if something may be written there.

    Raises:
        NotFound: it lies beneath a run, logged model or experiment that does not exist.
        Conflict: the run or logged model is deleted.
    """
    found, parts = locate(connection, path), path.split("/")
    if found.kind == "run":
        check_run(connection, found.owner)
    elif found.kind == "model":
        check_model(connection, found.owner)
    elif _NUMBER.fullmatch(parts[0]):
        if _experiment(connection, parts[0]) is None:
            raise NotFound(f"No Experiment with id={parts[0]} exists")
        if len(parts) > 2 and parts[2] == "artifacts" and _RUN.fullmatch(parts[1]):
            raise _no_run(parts[1])
        if len(parts) > 3 and parts[1] == MODELS and parts[3] == "artifacts" and _MODEL.fullmatch(parts[2]):
            raise _no_model(parts[2])
    return found


def check_run(connection: sa.Connection, run_id: str) -> None:
    """Refuse a run that does not exist or is deleted."""
    stage = connection.scalar(sa.select(runs.c.lifecycle_stage).where(runs.c.run_id == run_id))
    if stage is None:
        raise _no_run(run_id)
    if stage != "active":
        raise Conflict(f"The run {run_id} must be in the 'active' state. Current state is {stage}.")


def check_model(connection: sa.Connection, model_id: str) -> None:
    """Refuse a logged model that does not exist or is deleted."""
    if connection.scalar(sa.select(logged_models.c.lifecycle_stage).where(logged_models.c.model_id == model_id)) != "active":
        raise _no_model(model_id)


def list_place(connection: sa.Connection, path: str) -> list[Artifact]:
    """What lies in the folder at this path, by base name; above the runs and logged models, the folders that lead to them.

    A folder that does not exist is empty, and so is a file.
    """
    place = locate(connection, path)
    found = {item.path.rsplit("/", 1)[-1]: item for item in list_artifacts(connection, place.owner, place.path)}
    if place.kind in ("experiment", "nobody"):
        for name in _leading(connection, path):
            found.setdefault(name, Artifact(name, is_dir=True))
    return [msgspec.structs.replace(found[name], path=name) for name in sorted(found)]


def remove_below(connection: sa.Connection, uri: str) -> int:
    """Take all files beneath a URI out of the index; returns how many. Beneath a URI outside the proxy nothing is indexed."""
    path = uri_path(uri)
    if not path:
        return 0
    place = locate(connection, path)
    return remove_artifacts(connection, place.owner, place.path)


def uri_path(uri: str) -> str | None:
    """The path of an `mlflow-artifacts:` URI without slashes at its ends; None for every other URI."""
    parts = urlsplit(uri)
    return parts.path.strip("/") if parts.scheme == SCHEME else None


def _owned(connection: sa.Connection, name: str, root: str) -> Literal["run", "model"] | None:
    """What the id names, if its files lie beneath `root`."""
    if _RUN.fullmatch(name):
        uri = connection.scalar(sa.select(runs.c.artifact_uri).where(runs.c.run_id == name))
        return "run" if uri is not None and uri_path(uri) == root else None
    if _MODEL.fullmatch(name):
        uri = connection.scalar(sa.select(logged_models.c.artifact_uri).where(logged_models.c.model_id == name))
        return "model" if uri is not None and uri_path(uri) == root else None
    return None


def _experiment(connection: sa.Connection, number: str) -> int | None:
    if not _NUMBER.fullmatch(number):
        return None
    return connection.scalar(sa.select(experiments.c.experiment_id).where(experiments.c.experiment_id == int(number)))


def _leading(connection: sa.Connection, path: str) -> Iterator[str]:
    """The folders right beneath this path in which runs or logged models have files, and experiments by number."""
    above = f"{path}/" if path else ""
    for row in connection.execute(sa.select(experiments.c.experiment_id, experiments.c.artifact_location)).all():
        location = uri_path(row.artifact_location)
        if not path and _has(connection, str(row.experiment_id)):
            yield str(row.experiment_id)
        root = f"{location}/" if location else ""
        if location is None or not (root.startswith(above) or above.startswith(root)):
            continue
        inside = above[len(root):].rstrip("/")
        if len(root) > len(above):
            if next(_owners(connection, row.experiment_id), None) is not None:
                yield root[len(above):].split("/")[0]
        elif not inside:
            yield from {MODELS if kind == MODELS else owner for kind, owner in _owners(connection, row.experiment_id)}
        elif inside == MODELS:
            yield from (owner for kind, owner in _owners(connection, row.experiment_id) if kind == MODELS)
        elif any(inside in (owner, f"{MODELS}/{owner}") for _, owner in _owners(connection, row.experiment_id)):
            yield "artifacts"


def _owners(connection: sa.Connection, experiment_id: int) -> Iterator[tuple[str, str]]:
    """The runs and logged models of an experiment that have files."""
    for kind, table, key in (("runs", runs, runs.c.run_id), (MODELS, logged_models, logged_models.c.model_id)):
        has = sa.exists().where(artifacts.c.owner == key)
        for owner in connection.scalars(sa.select(key).where(table.c.experiment_id == experiment_id, has).order_by(key)):
            yield kind, owner


def _has(connection: sa.Connection, owner: str) -> bool:
    return connection.scalar(sa.select(sa.literal(1)).where(artifacts.c.owner == owner).limit(1)) is not None


def _no_run(run_id: str) -> NotFound:
    return NotFound(f"Run with id={run_id} not found")


def _no_model(model_id: str) -> NotFound:
    return NotFound(f"Logged model with ID '{model_id}' not found.")
