"""Registered models: versions with the digests of their files, aliases and tags.

Every change is one transaction with its journal entry. Version numbers start at 1 and are never given twice,
also not after a version was deleted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from davy.core.digest import canonical_json, digest_json
from davy.errors import Conflict, InvalidInput, NotFound, nearest
from davy.registry.definitions import put_feature_set
from davy.registry.reference import Reference, check_alias, check_name, parse_reference
from davy.registry.signature import Signature
from davy.schema.tables import aliases, model_version_tags, model_versions, registered_models, traffic
from davy.store import journal
from davy.store.database import insert
from davy.store.garbage import claim

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from davy.core.clock import Clock
    from davy.features.definition import FeatureSet
    from davy.store.blobs import Blobs

_VERSION = model_versions.c


class ModelVersion(msgspec.Struct, frozen=True):
    """One version of a model. Times are microseconds.

    Attributes:
        format: how a worker loads it, such as `lightgbm`, `sklearn` or `pickle`; None for one that was not registered natively.
        files: relative path -> blob digest.
        feature_set: the digest of the feature set that computes its input.
        digest: over format, files, signature and feature set.
        run_id: the run that made it.
    """

    name: str
    version: int
    format: str | None
    files: dict[str, str]
    signature: Signature | None
    feature_set: str | None
    training_set: str | None
    digest: str | None
    run_id: str | None
    created: int
    updated: int
    actor: str
    status: str = "READY"
    description: str = ""
    tags: dict[str, str] = {}
    aliases: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"


class ModelSummary(msgspec.Struct, frozen=True):
    """A registered model: how many versions it has, the newest, and where its aliases point."""

    name: str
    versions: int
    latest: int | None
    aliases: dict[str, int]
    created: int
    updated: int
    description: str = ""


def store_files(blobs: Blobs, files: Mapping[str, bytes | Path]) -> dict[str, str]:
    """Put a model's files into the blobs; returns relative path -> digest, ready for `register`. Do this before the transaction."""
    for path in files:
        if not path or path.startswith("/") or "\\" in path or any(part in ("", ".", "..") for part in path.split("/")):
            raise InvalidInput(f"{path!r} can't be the path of a model's file.", "It is relative, with '/', without '..'.", "Rename the file.")
    return {path: blobs.put(content) if isinstance(content, bytes) else blobs.put_file(content)[0] for path, content in files.items()}


def register(connection: sa.Connection, *, clock: Clock, actor: str, name: str, format: str, files: Mapping[str, str], signature: Signature,
             feature_set: FeatureSet, run_id: str | None = None, training_set: str | None = None, description: str = "",
             tags: Mapping[str, str] | None = None, blobs: Blobs | None = None) -> ModelVersion:
    """Make the next version of the model `name`, and the model if it is new.

    Args:
        files: relative path -> digest of a blob that is stored already (see `store_files`).
        training_set: the digest of a record kept by `put_training_set`.
        blobs: where the files were stored, so that none is taken that was collected since.

    Raises:
        InvalidInput: no files, or columns that are not those of the feature set.
        Unavailable: a file was collected since it was stored: store it again, then try again.
    """
    check_name(name)
    if not files:
        raise InvalidInput(f"The model {name!r} came without files.", "A version has at least one file.", "Save the model first.")
    if signature.names != tuple(feature_set.outputs):
        raise InvalidInput(f"The signature's columns are {', '.join(signature.names)}.", f"The feature set's outputs are {', '.join(feature_set.outputs)}.",
                           "Train again on this feature set.")
    if blobs is not None:
        claim(connection, blobs, files.values())
    put_feature_set(connection, feature_set, clock=clock)
    now = clock.now() // 1000
    _ensure_model(connection, name, now)
    last = connection.scalar(sa.select(sa.func.max(_VERSION.version)).where(_VERSION.name == name)) or 0
    content = {"format": format, "files": dict(files), "signature": signature, "feature_set": feature_set.digest}
    digest = digest_json(content)
    version = last + 1
    connection.execute(sa.insert(model_versions).values(
        name=name, version=version, creation_time=now, last_update_time=now, user_id=actor, current_stage="None", description=description,
        source=f"models:/{name}/{version}", storage_location=None, run_id=run_id, status="READY", deleted=False, format=format,
        files=canonical_json(dict(files)).decode(), signature=canonical_json(signature).decode(), feature_set=feature_set.digest,
        training_set=training_set, digest=digest))
    for key, value in (tags or {}).items():
        connection.execute(sa.insert(model_version_tags).values(name=name, version=version, key=key, value=str(value)))
    journal.append(connection, clock=clock, actor=actor, action="version.register", subject=name,
                   details={"version": version, "digest": digest, "run": run_id, "training_set": training_set, "feature_set": feature_set.digest})
    return get_version(connection, name, version)


def resolve(connection: sa.Connection, reference: str | Reference) -> ModelVersion:
    """The version that `late`, `late@2` or `late@production` means now.

    Raises:
        NotFound: no such model, version or alias; names the nearest.
    """
    wanted = parse_reference(reference) if isinstance(reference, str) else reference
    if wanted.version is not None:
        return get_version(connection, wanted.model, wanted.version)
    if wanted.alias is not None:
        version = connection.scalar(sa.select(aliases.c.version).where(aliases.c.name == wanted.model, aliases.c.alias == wanted.alias))
        if version is None:
            _require_model(connection, wanted.model)
            known = connection.scalars(sa.select(aliases.c.alias).where(aliases.c.name == wanted.model)).all()
            raise NotFound(f"The model {wanted.model!r} has no alias {wanted.alias!r}.", nearest(wanted.alias, known),
                           f"Correct the alias, or write a number: {wanted.model}@1")
        return get_version(connection, wanted.model, version)
    latest = connection.scalar(sa.select(sa.func.max(_VERSION.version)).where(_VERSION.name == wanted.model, _VERSION.deleted.is_(False)))
    if latest is None:
        _require_model(connection, wanted.model)
        raise NotFound(f"The model {wanted.model!r} has no version.", "Training registers one.", f"Train it: davy train {wanted.model}")
    return get_version(connection, wanted.model, latest)


def get_version(connection: sa.Connection, name: str, version: int) -> ModelVersion:
    """That version of that model.

    Raises:
        NotFound: there is none, or it was deleted.
    """
    row = connection.execute(sa.select(model_versions).where(_VERSION.name == name, _VERSION.version == version, _VERSION.deleted.is_(False))).first()
    if row is None:
        _require_model(connection, name)
        known = connection.scalars(sa.select(_VERSION.version).where(_VERSION.name == name, _VERSION.deleted.is_(False)).order_by(_VERSION.version)).all()
        raise NotFound(f"The model {name!r} has no version {version}.", f"It has {', '.join(map(str, known)) or 'none'}.", "Correct the number.")
    return _versions(connection, [row])[0]


def list_versions(connection: sa.Connection, name: str | None = None, *, run_id: str | None = None, limit: int | None = None) -> list[ModelVersion]:
    """Versions, the newest first: of one model, of one run, or all."""
    query = sa.select(model_versions).where(_VERSION.deleted.is_(False)).order_by(_VERSION.creation_time.desc(), _VERSION.name, _VERSION.version.desc())
    if name is not None:
        query = query.where(_VERSION.name == name)
    if run_id is not None:
        query = query.where(_VERSION.run_id == run_id)
    return _versions(connection, connection.execute(query.limit(limit)).all())


def list_models(connection: sa.Connection) -> list[ModelSummary]:
    """All registered models by name."""
    counts = {row.name: row for row in connection.execute(
        sa.select(_VERSION.name, sa.func.count().label("versions"), sa.func.max(_VERSION.version).label("latest"))
        .where(_VERSION.deleted.is_(False)).group_by(_VERSION.name))}
    pointed: dict[str, dict[str, int]] = {}
    for row in connection.execute(sa.select(aliases).order_by(aliases.c.alias)):
        pointed.setdefault(row.name, {})[row.alias] = row.version
    found = []
    for row in connection.execute(sa.select(registered_models).order_by(registered_models.c.name)):
        count = counts.get(row.name)
        found.append(ModelSummary(row.name, count.versions if count else 0, count.latest if count else None, pointed.get(row.name, {}),
                                  row.creation_time * 1000, row.last_update_time * 1000, row.description or ""))
    return found


def set_alias(connection: sa.Connection, *, clock: Clock, actor: str, name: str, alias: str, version: int) -> None:
    """Let the alias mean this version from now on."""
    check_alias(alias)
    get_version(connection, name, version)
    before = connection.scalar(sa.select(aliases.c.version).where(aliases.c.name == name, aliases.c.alias == alias))
    if before == version:
        return
    statement = insert(connection, aliases).values(name=name, alias=alias, version=version)
    connection.execute(statement.on_conflict_do_update(index_elements=["name", "alias"], set_={"version": version}))
    _touch(connection, name, clock.now() // 1000)
    journal.append(connection, clock=clock, actor=actor, action="alias.set", subject=name, details={"alias": alias, "version": version, "before": before})


def delete_alias(connection: sa.Connection, *, clock: Clock, actor: str, name: str, alias: str) -> None:
    """Take the alias away. If the model has no such alias, this is a no-op."""
    before = connection.scalar(sa.select(aliases.c.version).where(aliases.c.name == name, aliases.c.alias == alias))
    if before is None:
        _require_model(connection, name)
        return
    connection.execute(sa.delete(aliases).where(aliases.c.name == name, aliases.c.alias == alias))
    _touch(connection, name, clock.now() // 1000)
    journal.append(connection, clock=clock, actor=actor, action="alias.delete", subject=name, details={"alias": alias, "before": before})


def alias_history(connection: sa.Connection, name: str, alias: str | None = None, *, limit: int = 100) -> list[journal.Entry]:
    """Who pointed the model's aliases where and when, the newest first."""
    found = journal.entries(connection, subject=name, action="alias.", limit=limit)
    return [entry for entry in found if alias is None or entry.details.get("alias") == alias]


def set_tag(connection: sa.Connection, *, clock: Clock, actor: str, name: str, version: int, key: str, value: str | None) -> None:
    """Set a version's tag, or remove it with None."""
    get_version(connection, name, version)
    where = (model_version_tags.c.name == name, model_version_tags.c.version == version, model_version_tags.c.key == key)
    connection.execute(sa.delete(model_version_tags).where(*where))
    if value is not None:
        connection.execute(sa.insert(model_version_tags).values(name=name, version=version, key=key, value=value))
    _touch(connection, name, clock.now() // 1000, version)
    journal.append(connection, clock=clock, actor=actor, action="version.tag", subject=name, details={"version": version, "key": key, "value": value})


def describe(connection: sa.Connection, *, clock: Clock, actor: str, name: str, version: int, description: str) -> None:
    """Set a version's description."""
    get_version(connection, name, version)
    connection.execute(sa.update(model_versions).where(_VERSION.name == name, _VERSION.version == version).values(description=description))
    _touch(connection, name, clock.now() // 1000, version)
    journal.append(connection, clock=clock, actor=actor, action="version.describe", subject=name, details={"version": version, "description": description})


def delete_version(connection: sa.Connection, *, clock: Clock, actor: str, name: str, version: int) -> None:
    """Hide a version for good; its number is not given again and its files stay in the blobs.

    Raises:
        Conflict: the version takes traffic, or an alias points at it.
    """
    found = get_version(connection, name, version)
    weights = connection.scalar(sa.select(traffic.c.weights).where(traffic.c.model == name))
    holders = [f"the alias {alias!r}" for alias in found.aliases]
    if weights is not None and msgspec.json.decode(weights, type=dict[str, float]).get(found.reference, 0) > 0:
        holders.append("the traffic")
    if holders:
        raise Conflict(f"{found.reference} is held by {' and '.join(holders)}.", "Only a version that nothing points at can be deleted.",
                       "Move the alias or the traffic first.")
    connection.execute(sa.update(model_versions).where(_VERSION.name == name, _VERSION.version == version).values(deleted=True))
    _touch(connection, name, clock.now() // 1000, version)
    journal.append(connection, clock=clock, actor=actor, action="version.delete", subject=name, details={"version": version, "digest": found.digest})


def _ensure_model(connection: sa.Connection, name: str, now: int) -> None:
    statement = insert(connection, registered_models).values(name=name, creation_time=now, last_update_time=now)
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"last_update_time": now}))


def _require_model(connection: sa.Connection, name: str) -> None:
    known = connection.scalars(sa.select(registered_models.c.name)).all()
    if name not in known:
        raise NotFound(f"There is no model {name!r}.", nearest(name, known), "Correct the name, or train it.")


def _touch(connection: sa.Connection, name: str, now: int, version: int | None = None) -> None:
    connection.execute(sa.update(registered_models).where(registered_models.c.name == name).values(last_update_time=now))
    if version is not None:
        connection.execute(sa.update(model_versions).where(_VERSION.name == name, _VERSION.version == version).values(last_update_time=now))


def _versions(connection: sa.Connection, rows: Iterable[sa.Row[Any]]) -> list[ModelVersion]:
    found = list(rows)
    names = {row.name for row in found}
    tags: dict[tuple[str, int], dict[str, str]] = {}
    pointed: dict[tuple[str, int], list[str]] = {}
    for name in names:
        for tag in connection.execute(sa.select(model_version_tags).where(model_version_tags.c.name == name).order_by(model_version_tags.c.key)):
            tags.setdefault((tag.name, tag.version), {})[tag.key] = tag.value
        for alias in connection.execute(sa.select(aliases).where(aliases.c.name == name).order_by(aliases.c.alias)):
            pointed.setdefault((alias.name, alias.version), []).append(alias.alias)
    return [ModelVersion(
        name=row.name, version=row.version, format=row.format, files=msgspec.json.decode(row.files) if row.files else {},
        signature=msgspec.json.decode(row.signature, type=Signature) if row.signature else None, feature_set=row.feature_set,
        training_set=row.training_set, digest=row.digest, run_id=row.run_id, created=row.creation_time * 1000, updated=row.last_update_time * 1000,
        actor=row.user_id, status=row.status, description=row.description or "", tags=tags.get((row.name, row.version), {}),
        aliases=tuple(pointed.get((row.name, row.version), ()))) for row in found]
