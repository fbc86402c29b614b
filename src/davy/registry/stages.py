"""Stages: what a version was for before there were aliases. Old clients still set and ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from davy.errors import InvalidInput, NotFound
from davy.registry.models import ModelVersion, find_version, get_version, read_versions, touch
from davy.schema.tables import model_versions, registered_models
from davy.store import journal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from davy.core.clock import Clock

STAGES = ("None", "Staging", "Production", "Archived")
ACTIVE = ("Staging", "Production")
DELETED = "Deleted_Internal"
_VERSION = model_versions.c
_CANONICAL = {stage.lower(): stage for stage in STAGES}
_other = model_versions.alias()


def _newest(name: sa.ColumnElement[str]) -> list[sa.ScalarSelect[int]]:
    """The highest version of each stage: single steps into the index, however many versions there are."""
    return [sa.select(_other.c.version).where(_other.c.name == name, _other.c.current_stage == stage).order_by(_other.c.version.desc()).limit(1)
            .scalar_subquery() for stage in STAGES]


_latest = sa.select(model_versions).where(_VERSION.name == sa.bindparam("name"), _VERSION.version.in_(_newest(sa.bindparam("name")))).order_by(
    _VERSION.version)
_latest_of_some = sa.select(model_versions).join(registered_models, registered_models.c.name == _VERSION.name).where(
    registered_models.c.name.in_(sa.bindparam("names", expanding=True)), _VERSION.version.in_(_newest(registered_models.c.name))).order_by(_VERSION.version)
_move = sa.update(model_versions).where(_VERSION.name == sa.bindparam("which"), _VERSION.version == sa.bindparam("number")).values(
    current_stage=sa.bindparam("stage"), last_update_time=sa.bindparam("now"))


def canonical_stage(text: str) -> str:
    """The stage that is meant, in whatever case it is written.

    Raises:
        InvalidInput: there is no such stage.
    """
    if text.lower() not in _CANONICAL:
        raise InvalidInput(f"Invalid Model Version stage: {text}. Value must be one of {', '.join(STAGES)}.")
    return _CANONICAL[text.lower()]


def latest_versions(connection: sa.Connection, name: str, stages: Iterable[str] = ()) -> list[ModelVersion]:
    """The newest version of each of these stages (default: of each), by number."""
    wanted = {canonical_stage(stage) for stage in stages}
    return [version for version in read_versions(connection, connection.execute(_latest, {"name": name}).all()) if not wanted or version.stage in wanted]


def newest_of_models(connection: sa.Connection, names: Sequence[str]) -> list[ModelVersion]:
    """The newest version of each stage of each of these models, by number; a few hundred names at a time."""
    return read_versions(connection, connection.execute(_latest_of_some, {"names": list(names)}).all())


def transition(connection: sa.Connection, *, clock: Clock, actor: str, name: str, version: int, stage: str, archive: bool = False) -> ModelVersion:
    """Give a version another stage.

    Args:
        archive: also archive all other versions of that stage, which is an active one.

    Raises:
        InvalidInput: no such stage, or one that nothing is archived for. NotFound: no such version.
    """
    wanted = canonical_stage(stage)
    if archive and wanted not in ACTIVE:
        raise InvalidInput(f"Model version transition cannot archive existing model versions because '{stage}' is not an Active stage. "
                           f"Valid stages are {list(ACTIVE)}")
    found = find_version(connection, name, version)
    if found is None:
        raise NotFound(f"Model Version (name={name}, version={version}) not found")
    now = clock.now() // 1000
    archived: list[int] = []
    if archive:
        query = sa.select(_VERSION.version).where(_VERSION.name == name, _VERSION.current_stage == wanted, _VERSION.version != version)
        archived = list(connection.scalars(query))
    for number in archived:
        connection.execute(_move, {"which": name, "number": number, "stage": "Archived", "now": now})
    connection.execute(_move, {"which": name, "number": version, "stage": wanted, "now": now})
    touch(connection, name, now)
    journal.append(connection, clock=clock, actor=actor, action="version.stage", subject=name,
                   details={"version": version, "before": found.stage, "stage": wanted, **({"archived": archived} if archived else {})})
    return get_version(connection, name, version)
