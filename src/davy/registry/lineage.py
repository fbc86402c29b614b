"""The way back from a version: to its run, its training set, its features and its commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from davy.errors import NotFound
from davy.registry.definitions import get_feature_set, get_training_set
from davy.registry.models import ModelVersion, resolve
from davy.store import journal
from davy.tracking.artifacts import list_artifacts
from davy.tracking.runs import get_run

if TYPE_CHECKING:
    import sqlalchemy as sa

    from davy.registry.reference import Reference


def lineage(connection: sa.Connection, version: str | Reference | ModelVersion) -> dict[str, Any]:
    """Everything that led to a version, JSON-able; a part that was never recorded is None.

    Returns:
        model, version, digest, format, files, aliases, tags, registered {time, actor, seq, digest},
        run {id, name, experiment, status, user, started, ended, params, metrics, tags, artifacts},
        training_set {digest, rows, details}, feature_set {digest, outputs, views, streams}, commit.
    """
    found = version if isinstance(version, ModelVersion) else resolve(connection, version)
    run = _run(connection, found.run_id)
    return {
        "model": found.name, "version": found.version, "digest": found.digest, "format": found.format, "files": found.files,
        "aliases": list(found.aliases), "tags": found.tags, "registered": _registered(connection, found), "run": run,
        "training_set": _training_set(connection, found.training_set), "feature_set": _feature_set(connection, found.feature_set),
        "commit": run["commit"] if run else None,
    }


def _registered(connection: sa.Connection, version: ModelVersion) -> dict[str, Any] | None:
    before: int | None = None
    while page := journal.entries(connection, subject=version.name, action="version.register", before=before):
        for entry in page:
            if entry.details.get("version") == version.version:
                return {"time": entry.time, "actor": entry.actor, "seq": entry.seq, "digest": entry.digest}
        before = page[-1].seq
    return None


def _run(connection: sa.Connection, run_id: str | None) -> dict[str, Any] | None:
    if run_id is None:
        return None
    try:
        run = get_run(connection, run_id)
    except NotFound:
        return None
    files = [artifact.path for artifact in list_artifacts(connection, run.id, deep=True)]
    return {"id": run.id, "name": run.name, "experiment": run.experiment, "status": run.status, "user": run.user, "started": run.started, "ended": run.ended,
            "params": run.params, "metrics": run.metrics, "tags": run.tags, "artifacts": files, "commit": run.commit}


def _training_set(connection: sa.Connection, digest: str | None) -> dict[str, Any] | None:
    if digest is None:
        return None
    record = get_training_set(connection, digest)
    return {"digest": record.digest, "rows": record.rows, "details": record.details}


def _feature_set(connection: sa.Connection, digest: str | None) -> dict[str, Any] | None:
    if digest is None:
        return None
    found = get_feature_set(connection, digest)
    return {"digest": digest, "outputs": list(found.outputs), "views": {view.name: view.digest for view in found.views},
            "streams": [stream.name for stream in found.streams]}
