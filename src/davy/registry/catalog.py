"""Registered models as a whole: made, read, described, renamed and deleted."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from davy.errors import Conflict, InvalidInput
from davy.registry.aliases import NONE, Protection, drop_aliases, read_aliases
from davy.registry.models import PROMPT_TAG, ModelVersion, require_model
from davy.registry.reference import LONGEST_NAME
from davy.registry.stages import latest_versions, newest_of_models
from davy.registry.tags import check_tag, told
from davy.schema.tables import aliases, model_versions, registered_model_tags, registered_models, releases, traffic
from davy.store import journal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from davy.core.clock import Clock

_MODEL, _TAG = registered_models.c, registered_model_tags.c
_LOOKUP = 400
_by_name = sa.select(registered_models).where(_MODEL.name == sa.bindparam("name"))
_tags_of = sa.select(_TAG.key, _TAG.value).where(_TAG.name == sa.bindparam("name")).order_by(_TAG.key)
_NAMES: sa.BindParameter[Any] = sa.bindparam("names", expanding=True)
_some = sa.select(registered_models).where(_MODEL.name.in_(_NAMES))
_tags_of_some = sa.select(registered_model_tags).where(_TAG.name.in_(_NAMES)).order_by(_TAG.key)
_aliases_of_some = sa.select(aliases).where(aliases.c.name.in_(_NAMES)).order_by(aliases.c.alias)
_add = sa.insert(registered_models)
_add_tag = sa.insert(registered_model_tags)


class RegisteredModel(msgspec.Struct, frozen=True):
    """A registered model. Times are microseconds.

    Attributes:
        latest: the newest version of each stage, by number; without their aliases, which `aliases` has.
    """

    name: str
    created: int
    updated: int
    description: str
    tags: dict[str, str]
    aliases: dict[str, int]
    latest: tuple[ModelVersion, ...] = ()

    @property
    def is_prompt(self) -> bool:
        """Whether MLflow keeps a prompt under this name."""
        return self.tags.get(PROMPT_TAG) == "true"


def check_model_name(name: str) -> str:
    """The name, if a model may be registered under it.

    This takes what MLflow takes; what Davy's own training registers is named more strictly (`check_name`).

    Raises:
        InvalidInput: it can't.
    """
    if not name.strip() or len(name) > LONGEST_NAME or any(letter in name for letter in "/:\x00") or posixpath.normpath(name) != name or name in (".", ".."):
        raise InvalidInput(f"{name!r} can't be a model's name.", f"A name has 1 to {LONGEST_NAME} characters without '/' and ':', and is not a path.",
                           "Rename the model.")
    return name


def find_model(connection: sa.Connection, name: str) -> RegisteredModel | None:
    """The registered model of that name, if there is one."""
    row = connection.execute(_by_name, {"name": name}).first()
    if row is None:
        return None
    tags = {tag.key: tag.value for tag in connection.execute(_tags_of, {"name": name})}
    return RegisteredModel(row.name, row.creation_time * 1000, row.last_update_time * 1000, row.description or "", tags, read_aliases(connection, name),
                           tuple(latest_versions(connection, name)))


def create_model(connection: sa.Connection, *, clock: Clock, actor: str, name: str, description: str = "", tags: Mapping[str, str] | None = None) -> None:
    """Make a model without a version.

    Raises:
        InvalidInput: it can't be called so, or have such a tag. Conflict: the name is taken.
    """
    check_model_name(name)
    for key, value in (tags or {}).items():
        check_tag(key, value)
    if connection.execute(_by_name, {"name": name}).first() is not None:
        raise Conflict(f"There is a model {name!r} already.", "Names are unique.", "Use it, or take another name.")
    now = clock.now() // 1000
    connection.execute(_add, {"name": name, "creation_time": now, "last_update_time": now, "description": description})
    if tags:
        connection.execute(_add_tag, [{"name": name, "key": key, "value": value} for key, value in tags.items()])
    journal.append(connection, clock=clock, actor=actor, action="model.create", subject=name,
                   details={"tags": {key: told(value) for key, value in tags.items()}} if tags else {})


def describe_model(connection: sa.Connection, *, clock: Clock, actor: str, name: str, description: str) -> None:
    """Set a model's description.

    Raises:
        NotFound: no such model.
    """
    require_model(connection, name)
    connection.execute(sa.update(registered_models).where(_MODEL.name == name).values(description=description, last_update_time=clock.now() // 1000))
    journal.append(connection, clock=clock, actor=actor, action="model.describe", subject=name, details={"description": told(description)})


def rename_model(connection: sa.Connection, *, clock: Clock, actor: str, name: str, to: str, protection: Protection = NONE) -> None:
    """Give a model another name. Versions, tags, aliases and gates go along; the journal has an entry under both names.

    Raises:
        NotFound: no such model. InvalidInput: it can't be called so.
        Conflict: the name is taken, or the model has served or is being released, so that requests and logs name it.
        Forbidden: a protected alias would have to go along, or would come about.
    """
    check_model_name(to)
    require_model(connection, name)
    if to != name and connection.execute(_by_name, {"name": to}).first() is not None:
        raise Conflict(f"There is a model {to!r} already.", "Names are unique.", "Take another name.")
    now = clock.now() // 1000
    if to != name:
        _refuse_served(connection, name, "renamed")
        for alias in read_aliases(connection, name):
            protection.check(name, alias)
            protection.check(to, alias)
    connection.execute(sa.update(registered_models).where(_MODEL.name == name).values(name=to, last_update_time=now))
    connection.execute(sa.update(model_versions).where(model_versions.c.name == to, model_versions.c.deleted.is_(False)).values(last_update_time=now))
    if to != name:
        journal.append(connection, clock=clock, actor=actor, action="model.rename", subject=name, details={"to": to})
        journal.append(connection, clock=clock, actor=actor, action="model.rename", subject=to, details={"from": name})


def delete_model(connection: sa.Connection, *, clock: Clock, actor: str, name: str, protection: Protection = NONE) -> None:
    """Delete a model with all its versions, tags, aliases and gates, for good. Files and the journal's entries stay.

    Raises:
        NotFound: no such model. Conflict: it has served or is being released. Forbidden: one of its aliases is protected.
    """
    require_model(connection, name)
    _refuse_served(connection, name, "deleted")
    drop_aliases(connection, clock=clock, actor=actor, name=name, protection=protection, because="the model was deleted")
    numbers = connection.execute(sa.select(sa.func.count(), sa.func.max(model_versions.c.version)).where(
        model_versions.c.name == name, model_versions.c.deleted.is_(False))).one()
    connection.execute(sa.delete(registered_models).where(_MODEL.name == name))
    journal.append(connection, clock=clock, actor=actor, action="model.delete", subject=name, details={"versions": numbers[0], "last": numbers[1]})


def read_models(connection: sa.Connection, names: Sequence[str]) -> list[RegisteredModel]:
    """The models of these names, in their order; unknown ones are left out. A fixed number of queries for each few hundred."""
    found: dict[str, RegisteredModel] = {}
    for start in range(0, len(names), _LOOKUP):
        part = {"names": list(names[start:start + _LOOKUP])}
        tags: dict[str, dict[str, str]] = {}
        pointed: dict[str, dict[str, int]] = {}
        latest: dict[str, list[ModelVersion]] = {}
        for tag in connection.execute(_tags_of_some, part):
            tags.setdefault(tag.name, {})[tag.key] = tag.value
        for alias in connection.execute(_aliases_of_some, part):
            pointed.setdefault(alias.name, {})[alias.alias] = alias.version
        for version in newest_of_models(connection, part["names"]):
            latest.setdefault(version.name, []).append(version)
        for row in connection.execute(_some, part):
            found[row.name] = RegisteredModel(row.name, row.creation_time * 1000, row.last_update_time * 1000, row.description or "", tags.get(row.name, {}),
                                              pointed.get(row.name, {}), tuple(latest.get(row.name, ())))
    return [found[name] for name in names if name in found]


def _refuse_served(connection: sa.Connection, name: str, what: str) -> None:
    served = connection.execute(sa.select(traffic.c.model).where(traffic.c.model == name)).first()
    released = connection.execute(sa.select(releases.c.id).where(releases.c.model == name, releases.c.ended.is_(None))).first()
    if served is not None or released is not None:
        raise Conflict(f"{name!r} {'takes traffic' if served is not None else 'is being released'}.",
                       f"A model that serves, or has served, is not {what}: predictions, releases and clients name it.",
                       "Register the versions under another name instead.")
