"""Registered models and their versions: registered from training, resolved, and read.

Version numbers start at 1 and are never given twice, also not after a version was deleted. What MLflow's
protocol registers from a source lies in the same table, without format, files and signature (see versions.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from davy.core.digest import canonical_json, digest_json
from davy.errors import InvalidInput, NotFound, nearest
from davy.registry.definitions import put_feature_set
from davy.registry.reference import Reference, check_name, parse_reference
from davy.registry.signature import Signature
from davy.schema.tables import aliases, artifacts, model_version_tags, model_versions, registered_model_tags, registered_models, runs
from davy.store import journal
from davy.store.database import insert
from davy.store.garbage import claim

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from davy.core.clock import Clock
    from davy.features.definition import FeatureSet
    from davy.store.blobs import Blobs

PROMPT_TAG = "mlflow.prompt.is_prompt"
_VERSION, _TAG, _ALIAS = model_versions.c, model_version_tags.c, aliases.c
_LOOKUP, _MOST_TOLD = 400, 50

# Statements are built once: building one costs more than running it.
_NAME: sa.BindParameter[Any] = sa.bindparam("name")
_NUMBER: sa.BindParameter[Any] = sa.bindparam("version")
_NUMBERS: sa.BindParameter[Any] = sa.bindparam("numbers", expanding=True)
_live = _VERSION.deleted.is_(False)
_by_number = sa.select(model_versions).where(_VERSION.name == _NAME, _VERSION.version == _NUMBER, _live)
_by_alias = sa.select(model_versions).join(aliases, sa.and_(_ALIAS.name == _VERSION.name, _ALIAS.version == _VERSION.version)).where(
    _ALIAS.name == _NAME, _ALIAS.alias == sa.bindparam("alias"), _live)
_newest = sa.select(model_versions).where(_VERSION.name == _NAME, _live).order_by(_VERSION.version.desc()).limit(1)
_tags_of_one = sa.select(_TAG.key, _TAG.value).where(_TAG.name == _NAME, _TAG.version == _NUMBER).order_by(_TAG.key)
_aliases_of_one = sa.select(_ALIAS.alias).where(_ALIAS.name == _NAME, _ALIAS.version == _NUMBER).order_by(_ALIAS.alias)
_some = sa.select(model_versions).where(_VERSION.name == _NAME, _VERSION.version.in_(_NUMBERS), _live)
_tags_of_some = sa.select(_TAG.version, _TAG.key, _TAG.value).where(_TAG.name == _NAME, _TAG.version.in_(_NUMBERS)).order_by(_TAG.version, _TAG.key)
_aliases_of_some = sa.select(_ALIAS.version, _ALIAS.alias).where(_ALIAS.name == _NAME, _ALIAS.version.in_(_NUMBERS)).order_by(_ALIAS.alias)
_is_there = sa.select(sa.literal(1)).where(_VERSION.name == _NAME, _VERSION.version == _NUMBER, _live)
_model_is_there = sa.select(sa.literal(1)).where(registered_models.c.name == _NAME)
_last = sa.select(sa.func.max(_VERSION.version)).where(_VERSION.name == _NAME)
_touch_model = sa.update(registered_models).where(registered_models.c.name == sa.bindparam("which")).values(last_update_time=sa.bindparam("now"))


class ModelVersion(msgspec.Struct, frozen=True):
    """One version of a model. Times are microseconds.

    Attributes:
        format: how a worker loads it, such as `lightgbm`, `sklearn` or `pickle`; None for one from a source that was not adopted yet (see adopt.py).
        files: relative path -> blob digest.
        feature_set: the digest of the feature set that computes its input.
        digest: over format, files, signature and feature set.
        run_id: the run that made it.
        stage: MLflow's former way to say what a version is for.
        origin: the URI that it was registered from; None for a native version.
        location: where its files are, when that is not `origin`; of a native version, in its run.
        model_id: the logged model that it was registered from.
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
    description: str | None = None
    tags: dict[str, str] = {}
    aliases: tuple[str, ...] = ()
    stage: str = "None"
    origin: str | None = None
    location: str | None = None
    run_link: str | None = None
    model_id: str | None = None

    @property
    def reference(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def source(self) -> str:
        """The URI that it was registered from; of a native version the folder of its files, which its run has."""
        if self.format is None or self.origin is not None:
            return self.origin or ""
        return self.location or f"models:/{self.name}/{self.version}"

    @property
    def download_uri(self) -> str | None:
        """Where a client finds its files; None for a native version whose run does not have them."""
        return self.location or (self.origin if self.format is None else None)


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
    statement = insert(connection, registered_models).values(name=name, creation_time=now, last_update_time=now)
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"last_update_time": now}))
    version = next_number(connection, name)
    content = {"format": format, "files": dict(files), "signature": signature, "feature_set": feature_set.digest}
    digest = digest_json(content)
    connection.execute(sa.insert(model_versions).values(
        name=name, version=version, creation_time=now, last_update_time=now, user_id=actor, current_stage="None", description=description,
        source=None, storage_location=_folder(connection, run_id), run_id=run_id, status="READY", deleted=False, format=format,
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
        found = find_alias(connection, wanted.model, wanted.alias)
        if found is None:
            require_model(connection, wanted.model)
            known = connection.scalars(sa.select(_ALIAS.alias).where(_ALIAS.name == wanted.model)).all()
            raise NotFound(f"The model {wanted.model!r} has no alias {wanted.alias!r}.", nearest(wanted.alias, known),
                           f"Correct the alias, or write a number: {wanted.model}@1")
        return found
    newest = find_newest(connection, wanted.model)
    if newest is None:
        require_model(connection, wanted.model)
        raise NotFound(f"The model {wanted.model!r} has no version.", "Training registers one.", f"Train it: davy train {wanted.model}")
    return newest


def get_version(connection: sa.Connection, name: str, version: int) -> ModelVersion:
    """That version of that model.

    Raises:
        NotFound: there is none, or it was deleted.
    """
    found = find_version(connection, name, version)
    if found is None:
        raise _no_version(connection, name, version)
    return found


def find_version(connection: sa.Connection, name: str, version: int) -> ModelVersion | None:
    """That version of that model, if there is one that was not deleted."""
    return _one(connection, connection.execute(_by_number, {"name": name, "version": version}).first())


def find_alias(connection: sa.Connection, name: str, alias: str) -> ModelVersion | None:
    """The version that the alias means, if the model has such an alias."""
    return _one(connection, connection.execute(_by_alias, {"name": name, "alias": alias}).first())


def find_newest(connection: sa.Connection, name: str) -> ModelVersion | None:
    """The version with the highest number, if the model has one."""
    return _one(connection, connection.execute(_newest, {"name": name}).first())


def list_versions(connection: sa.Connection, name: str | None = None, *, run_id: str | None = None, limit: int | None = None) -> list[ModelVersion]:
    """Versions, the newest first: of one model, of one run, or all."""
    query = sa.select(model_versions).where(_live)
    if name is not None:
        query = query.where(_VERSION.name == name).order_by(_VERSION.version.desc())
    else:
        query = query.order_by(_VERSION.creation_time.desc(), _VERSION.name, _VERSION.version.desc())
    if run_id is not None:
        query = query.where(_VERSION.run_id == run_id)
    return read_versions(connection, connection.execute(query.limit(limit)).all())


def count_versions(connection: sa.Connection, name: str) -> int:
    """How many versions the model has."""
    return int(connection.scalar(sa.select(sa.func.count()).select_from(model_versions).where(_VERSION.name == name, _live)) or 0)


def versions_of(connection: sa.Connection, keys: Sequence[tuple[str, int]]) -> list[ModelVersion]:
    """The versions of these names and numbers, in their order; those that are gone are left out."""
    rows = [row for name, numbers in _by_model(keys) for row in connection.execute(_some, {"name": name, "numbers": numbers})]
    found = {(version.name, version.version): version for version in read_versions(connection, rows)}
    return [found[key] for key in keys if key in found]


def list_models(connection: sa.Connection) -> list[ModelSummary]:
    """All registered models by name, without prompts."""
    counts = {row.name: row for row in connection.execute(
        sa.select(_VERSION.name, sa.func.count().label("versions"), sa.func.max(_VERSION.version).label("latest")).where(_live).group_by(_VERSION.name))}
    pointed: dict[str, dict[str, int]] = {}
    for row in connection.execute(sa.select(aliases).order_by(_ALIAS.alias)):
        pointed.setdefault(row.name, {})[row.alias] = row.version
    found = []
    for row in connection.execute(sa.select(registered_models).where(~is_prompt(registered_models.c.name)).order_by(registered_models.c.name)):
        count = counts.get(row.name)
        found.append(ModelSummary(row.name, count.versions if count else 0, count.latest if count else None, pointed.get(row.name, {}),
                                  row.creation_time * 1000, row.last_update_time * 1000, row.description or ""))
    return found


def is_prompt(name: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Whether the model of that name is a prompt: MLflow keeps those in the registry too, by a tag."""
    tag = registered_model_tags.alias().c
    return sa.exists().where(tag.name == name, tag.key == PROMPT_TAG, tag.value == "true")


def require_model(connection: sa.Connection, name: str) -> None:
    """Refuse a name that no model has.

    Raises:
        NotFound: there is none; names the nearest.
    """
    if connection.scalar(_model_is_there, {"name": name}) is None:
        known = connection.scalars(sa.select(registered_models.c.name)).all()
        raise NotFound(f"There is no model {name!r}.", nearest(name, known), "Correct the name, or train it.")


def require_version(connection: sa.Connection, name: str, version: int) -> None:
    """Refuse a version that does not exist, or was deleted.

    Raises:
        NotFound: there is none; names those that there are.
    """
    if connection.scalar(_is_there, {"name": name, "version": version}) is None:
        raise _no_version(connection, name, version)


def next_number(connection: sa.Connection, name: str) -> int:
    """The number of the model's next version."""
    return int(connection.scalar(_last, {"name": name}) or 0) + 1


def touch(connection: sa.Connection, name: str, now: int) -> None:
    """Write down when a model was last changed (milliseconds)."""
    connection.execute(_touch_model, {"which": name, "now": now})


def read_versions(connection: sa.Connection, rows: Iterable[sa.Row[Any]]) -> list[ModelVersion]:
    """The records of rows of `model_versions`, in their order, with tags and aliases."""
    found = list(rows)
    tags: dict[tuple[str, int], dict[str, str]] = {}
    pointed: dict[tuple[str, int], list[str]] = {}
    keys = [(row.name, row.version) for row in found]
    for name, numbers in _by_model(keys):
        wanted = {"name": name, "numbers": numbers}
        for tag in connection.execute(_tags_of_some, wanted):
            tags.setdefault((name, tag.version), {})[tag.key] = tag.value
        for alias in connection.execute(_aliases_of_some, wanted):
            pointed.setdefault((name, alias.version), []).append(alias.alias)
    return [_record(row, tags.get(key, {}), pointed.get(key, ())) for row, key in zip(found, keys, strict=True)]


def _by_model(keys: Iterable[tuple[str, int]]) -> Iterator[tuple[str, list[int]]]:
    """Names with numbers, a few hundred at a time: for pairs, SQLite would walk the whole table."""
    numbers: dict[str, list[int]] = {}
    for name, number in keys:
        numbers.setdefault(name, []).append(number)
    for name, found in numbers.items():
        for start in range(0, len(found), _LOOKUP):
            yield name, found[start:start + _LOOKUP]


def _one(connection: sa.Connection, row: sa.Row[Any] | None) -> ModelVersion | None:
    if row is None:
        return None
    key = {"name": row.name, "version": row.version}
    tags = {tag.key: tag.value for tag in connection.execute(_tags_of_one, key)}
    return _record(row, tags, connection.scalars(_aliases_of_one, key).all())


def _record(row: sa.Row[Any], tags: dict[str, str], pointed: Sequence[str]) -> ModelVersion:
    return ModelVersion(
        name=row.name, version=row.version, format=row.format, files=msgspec.json.decode(row.files) if row.files else {},
        signature=msgspec.json.decode(row.signature, type=Signature) if row.signature else None, feature_set=row.feature_set,
        training_set=row.training_set, digest=row.digest, run_id=row.run_id, created=row.creation_time * 1000, updated=row.last_update_time * 1000,
        actor=row.user_id, status=row.status, description=row.description, tags=tags, aliases=tuple(pointed), stage=row.current_stage,
        origin=row.source, location=row.storage_location, run_link=row.run_link, model_id=row.model_id)


def _folder(connection: sa.Connection, run_id: str | None) -> str | None:
    """Where clients find the files of a version that training has made: its run keeps them too."""
    kept = sa.exists().where(artifacts.c.owner == runs.c.run_id, artifacts.c.path >= "model/", artifacts.c.path < "model0")
    root = connection.scalar(sa.select(runs.c.artifact_uri).where(runs.c.run_id == run_id, kept))
    return None if root is None else f"{root}/model"


def _no_version(connection: sa.Connection, name: str, version: int) -> NotFound:
    require_model(connection, name)
    known = connection.scalars(sa.select(_VERSION.version).where(_VERSION.name == name, _live).order_by(_VERSION.version)).all()
    told = ", ".join(map(str, known)) if len(known) <= _MOST_TOLD else f"{len(known)} versions, {known[0]} to {known[-1]}"
    return NotFound(f"The model {name!r} has no version {version}.", f"It has {told or 'none'}.", "Correct the number.")
