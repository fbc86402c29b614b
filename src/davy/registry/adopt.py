"""Adopting a version that MLflow's protocol has registered, so that it can be judged, released and served as a native one.

What the protocol registers is a source. The first time that somebody wants to gate, release or ask the version, its
files are looked up among the artifacts, what MLflow wrote about them is put into Davy's words (see mlmodel.py), and all
that is written into the version at once. From then on its content is fixed: what the client writes to the same
place later is another file.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import sqlalchemy as sa

from davy.core.digest import canonical_json, digest_json
from davy.errors import InvalidInput, NotFound
from davy.features.definition import FeatureSet
from davy.registry.definitions import get_feature_set, put_feature_set
from davy.registry.mlmodel import FILE, LARGEST, Described, Folder
from davy.registry.models import ModelVersion, get_version, list_versions, resolve, touch
from davy.registry.signature import Column, Signature
from davy.registry.sources import PROMPT_SOURCES
from davy.schema.tables import logged_models, model_versions, runs
from davy.store import journal
from davy.store.garbage import claim
from davy.tracking.artifacts import list_artifacts
from davy.tracking.places import locate, uri_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from davy.home import Home
    from davy.registry.reference import Reference
    from davy.store.blobs import Blobs

_VERSION = model_versions.c
_SAME = {"float": frozenset(("double", "float64")), "decimal": frozenset(("double", "float64")), "int": frozenset(("long", "double", "int64", "float64")),
         "bool": frozenset(("boolean", "bool")), "str": frozenset(("string",)), "time": frozenset(("datetime",))}
_MODEL_ID = re.compile(r"m-[0-9a-f]{32}")


def adopt(home: Home, reference: str | Reference, *, actor: str | None = None) -> ModelVersion:
    """The version that this means, with format, files, signature and feature set; one that came from a source is adopted the first time.

    Raises:
        NotFound: no such version, or its files are not among the artifacts.
        InvalidInput: it has no signature, or one that Davy can't serve. UnsafeModel: only MLflow could load it, which is not allowed.
        CorruptData: what lies there is not what MLflow writes. MissingExtra: PyYAML is not installed.
    """
    with home.database.read() as connection:
        found = resolve(connection, reference)
        if found.format is not None:
            return found
        files = _files(connection, found)
    folder = Folder(found.reference, files, lambda path: _beginning(home.blobs, files[path]))
    described = folder.describe(allow_pyfunc=home.config.serving.allow_pyfunc)
    with home.database.begin() as connection:
        now = get_version(connection, found.name, found.version)
        if now.format is not None:
            return now
        kept = {name: files[path] for name, path in described.files.items()}
        claim(connection, home.blobs, kept.values())
        _write(connection, home, now, described, kept, actor or home.actor)
        return get_version(connection, found.name, found.version)


def _beginning(blobs: Blobs, digest: str) -> bytes:
    """A whole blob, verified, or the beginning of a large one, which may have any size."""
    if (blobs.size(digest) or 0) <= LARGEST:
        return blobs.get(digest)
    return b"".join(blobs.stream_range(digest, 0, LARGEST + 1))


def _write(connection: sa.Connection, home: Home, version: ModelVersion, described: Described, files: dict[str, str], actor: str) -> None:
    feature_set, signature = _features(connection, version.name, described)
    put_feature_set(connection, feature_set, clock=home.clock)
    digest = digest_json({"format": described.format, "files": files, "signature": signature, "feature_set": feature_set.digest})
    connection.execute(sa.update(model_versions).where(_VERSION.name == version.name, _VERSION.version == version.version).values(
        format=described.format, files=canonical_json(files).decode(), signature=canonical_json(signature).decode(), feature_set=feature_set.digest,
        digest=digest))
    touch(connection, version.name, home.clock.now() // 1000)
    journal.append(connection, clock=home.clock, actor=actor, action="version.adopt", subject=version.name,
                   details={"version": version.version, "digest": digest, "flavor": described.flavor, "format": described.format,
                            "run": version.run_id, "feature_set": feature_set.digest, "views": [view.name for view in feature_set.views]})


def _features(connection: sa.Connection, name: str, described: Described) -> tuple[FeatureSet, Signature]:
    """What computes its input: the features of the newest native version with the same columns in the same order, else the request alone."""
    columns = described.signature.columns
    for digest in dict.fromkeys(version.feature_set for version in list_versions(connection, name) if version.origin is None and version.feature_set):
        known = get_feature_set(connection, digest)
        if known.outputs == described.signature.names and all(
                described.typed[column.name] in _SAME.get(kind, ()) for column, kind in zip(columns, known.kinds, strict=True)):
            typed = tuple(Column(column.name, kind) for column, kind in zip(columns, known.kinds, strict=True))
            return known, Signature(typed, described.signature.output, described.signature.classes)
    made = FeatureSet((), described.request, (), (), (), described.signature.names, tuple(column.kind for column in columns))
    return made.sealed(), described.signature


def _files(connection: sa.Connection, version: ModelVersion) -> dict[str, str]:
    """The logged folder's files: relative path -> digest."""
    if version.source in PROMPT_SOURCES:
        raise InvalidInput(f"{version.reference} is a prompt.", "A gate judges what predicts.", "Name a version of a model.")
    looked = []
    for owner, path in _places(connection, version):
        prefix = f"{path}/" if path else ""
        files = {item.path[len(prefix):]: str(item.digest) for item in list_artifacts(connection, owner, path, deep=True)}
        if FILE in files:
            return files
        looked.append(f"{owner}/{path}".rstrip("/") if files else "")
    beside = [place for place in looked if place]
    if beside:
        raise NotFound(f"{version.reference} comes from {version.source}, where there is no {FILE}.", "That file is what MLflow writes beside a model.",
                       "Log the model with MLflow, such as mlflow.sklearn.log_model, then register it again.")
    raise NotFound(f"{version.reference} comes from {version.source}, and its files are not among Davy's artifacts.",
                   "A version can be served whose files were logged to this server: the run's artifact URI begins with mlflow-artifacts:/.",
                   "Log it again to an experiment whose artifacts this server keeps, or bring it over: davy import")


def _places(connection: sa.Connection, version: ModelVersion) -> Iterator[tuple[str, str]]:
    """(owner, folder) where its files may lie, the likeliest first."""
    uris: list[str] = [uri for uri in dict.fromkeys((version.download_uri, version.source)) if uri]
    for uri in uris:
        parts = urlsplit(uri)
        path = parts.path.strip("/")
        if parts.scheme == "models" and _MODEL_ID.fullmatch(path):
            yield path, ""
        elif parts.scheme == "runs":
            run, _, folder = path.partition("/")
            yield run, folder
            yield from ((model, "") for model in _logged_as(connection, run, folder))
        elif (inside := uri_path(uri)) is not None:
            place = locate(connection, inside)
            yield place.owner, place.path
        elif version.run_id and f"{uri}/".startswith(f"{(root := _root(connection, version.run_id))}/"):
            yield version.run_id, uri[len(root) + 1:]
    if version.model_id:
        yield version.model_id, ""


def _root(connection: sa.Connection, run: str) -> str:
    """Where a run's files lie; of one that isn't there, nowhere."""
    return connection.scalar(sa.select(runs.c.artifact_uri).where(runs.c.run_id == run)) or "nowhere:"


def _logged_as(connection: sa.Connection, run: str, name: str) -> list[str]:
    """The logged models that a run has made under this name, the newest first: MLflow 3 keeps a model's files there, not in the run."""
    column = logged_models.c
    query = sa.select(column.model_id).where(column.source_run_id == run, column.name == name, column.lifecycle_stage == "active")
    return list(connection.scalars(query.order_by(column.creation_time.desc(), column.model_id)))
