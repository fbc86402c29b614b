"""Versions as clients of MLflow's protocol make and change them: registered from a source, described, deleted.

The same number never means two versions: deleting hides one for good, with what it said about itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from davy.errors import Conflict
from davy.registry.aliases import NONE, Protection, drop_aliases
from davy.registry.models import ModelVersion, get_version, next_number, require_model, require_version, touch
from davy.registry.stages import DELETED
from davy.registry.tags import check_tag, told
from davy.schema.tables import model_version_tags, model_versions, releases, traffic
from davy.store import journal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from davy.core.clock import Clock
    from davy.registry.sources import Source

_VERSION = model_versions.c
_add = sa.insert(model_versions)
_add_tag = sa.insert(model_version_tags)
_describe = sa.update(model_versions).where(_VERSION.name == sa.bindparam("which"), _VERSION.version == sa.bindparam("number")).values(
    description=sa.bindparam("text"), last_update_time=sa.bindparam("now"))


def create_version(connection: sa.Connection, *, clock: Clock, actor: str, name: str, source: Source, description: str = "", run_link: str = "",
                   tags: Mapping[str, str] | None = None) -> ModelVersion:
    """Make the next version of a registered model from what lies at a source.

    This can't tell a repeated request from a second wish: each makes a version.

    Raises:
        NotFound: no such model. InvalidInput: a tag that can't be.
    """
    tags = tags or {}
    for key, value in tags.items():
        check_tag(key, value)
    require_model(connection, name)
    now = clock.now() // 1000
    touch(connection, name, now)
    number = next_number(connection, name)
    connection.execute(_add, {
        "name": name, "version": number, "creation_time": now, "last_update_time": now, "user_id": actor, "current_stage": "None", "description": description,
        "source": source.uri, "storage_location": source.location, "run_id": source.run_id or None, "run_link": run_link, "status": "READY", "deleted": False,
        "model_id": source.model_id or None})
    if tags:
        connection.execute(_add_tag, [{"name": name, "version": number, "key": key, "value": value} for key, value in tags.items()])
    journal.append(connection, clock=clock, actor=actor, action="version.register", subject=name,
                   details={"version": number, "source": told(source.uri), "run": source.run_id or None, "logged_model": source.model_id or None})
    return ModelVersion(
        name, number, None, {}, None, None, None, None, source.run_id or None, now * 1000, now * 1000, actor, description=description,
        tags=dict(sorted(tags.items())), origin=source.uri, location=source.location, run_link=run_link, model_id=source.model_id or None)


def describe(connection: sa.Connection, *, clock: Clock, actor: str, name: str, version: int, description: str | None) -> None:
    """Set a version's description.

    Raises:
        NotFound: no such version.
    """
    require_version(connection, name, version)
    connection.execute(_describe, {"which": name, "number": version, "text": description, "now": clock.now() // 1000})
    journal.append(connection, clock=clock, actor=actor, action="version.describe", subject=name,
                   details={"version": version, "description": told(description)})


def delete_version(connection: sa.Connection, *, clock: Clock, actor: str, name: str, version: int, protection: Protection = NONE) -> None:
    """Hide a version for good, with its aliases; its number is not given again and its files stay in the blobs.

    What came from a source forgets it, its run and its words; a native version keeps what its predictions are explained by.

    Raises:
        NotFound: no such version. Forbidden: a protected alias points at it.
        Conflict: the version takes traffic, or is part of an open release.
    """
    found = get_version(connection, name, version)
    weights = connection.execute(sa.select(traffic.c.weights, traffic.c.shadow).where(traffic.c.model == name)).first()
    if weights is not None and (weights.shadow == version or msgspec.json.decode(weights.weights, type=dict[str, float]).get(found.reference, 0) > 0):
        raise Conflict(f"{found.reference} takes traffic.", "A version that answers requests is not deleted.", "Move the traffic first.")
    if connection.scalar(sa.select(releases.c.id).where(releases.c.model == name, releases.c.ended.is_(None),
                                                        sa.or_(releases.c.version == version, releases.c.stable == version))) is not None:
        raise Conflict(f"{found.reference} is part of a release that is on its way.", "The release may give it traffic.", f"End it first: davy abort {name}")
    if found.aliases:
        drop_aliases(connection, clock=clock, actor=actor, name=name, version=version, protection=protection, because=f"version {version} was deleted")
    now = clock.now() // 1000
    gone = {"deleted": True, "current_stage": DELETED, "last_update_time": now}
    if found.format is None:
        gone |= {"description": None, "source": "REDACTED-SOURCE-PATH", "storage_location": None, "run_id": "REDACTED-RUN-ID", "run_link": "REDACTED-RUN-LINK",
                 "model_id": None, "user_id": "", "status_message": None}
    connection.execute(sa.update(model_versions).where(_VERSION.name == name, _VERSION.version == version).values(gone))
    touch(connection, name, now)
    journal.append(connection, clock=clock, actor=actor, action="version.delete", subject=name, details={"version": version, "digest": found.digest})
