"""Finding registered models and their versions by a filter.

Prompts are registered models too, told by a tag; they are found only when the filter asks for that tag.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from davy.registry.models import PROMPT_TAG, is_prompt
from davy.schema.tables import model_version_tags, model_versions, registered_model_tags, registered_models
from davy.search.fields import Attribute, Keyed, Target
from davy.search.language import Language
from davy.search.order import Part
from davy.search.select import Selection, conditions, select_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    import sqlalchemy as sa

    from davy.search.tree import Node

MOST_MODELS, MOST_VERSIONS = 1000, 200_000
_NOT_PROMPT = {PROMPT_TAG: "false"}
_model, _version = registered_models.c, model_versions.c


class ModelPage(msgspec.Struct, frozen=True):
    """The names of some models, and the token of the next page."""

    names: list[str]
    next: str | None


class VersionPage(msgspec.Struct, frozen=True):
    """The names and numbers of some versions, and the token of the next page."""

    versions: list[tuple[str, int]]
    next: str | None


class Registry(Language):
    """Models and versions have attributes and tags, of which MLflow speaks in these words."""

    def bad_entity(self, found: str) -> str:
        return f"Invalid entity type '{found}'. Valid entity types are {('attribute', 'tag', 'tags')}"

    def bad_comparator(self, target: Target, op: str, allowed: Sequence[str]) -> str:
        named = f"attribute {target.key}" if target.kind == "number" else target.entity
        return f"Invalid comparator for {named}: {op}"


class Models(Registry):
    """Of models, an order names a key."""

    def bad_attribute(self, key: str, known: Sequence[str], ordering: bool) -> str:
        if not ordering:
            return super().bad_attribute(key, known, ordering)
        return f"Invalid order by key '{key}' specified. Valid keys are '{sorted(known)}'"


_ENTITIES = {"attribute": "attribute", "tag": "tag", "tags": "tag"}
_UPDATED = Attribute(_model.last_update_time, "number")
MODELS = Models(
    entities=_ENTITIES,
    attributes={"name": Attribute(_model.name), "creation_timestamp": Attribute(_model.creation_time, "number"),
                "last_updated_timestamp": _UPDATED, "timestamp": _UPDATED},
    others={"tag": Keyed(registered_model_tags, ("name",), (_model.name,), absent=_NOT_PROMPT)},
)
VERSIONS = Registry(
    entities=_ENTITIES,
    attributes={"name": Attribute(_version.name), "version_number": Attribute(_version.version, "number", quoted=True),
                "run_id": Attribute(_version.run_id, nullable=True), "source_path": Attribute(_version.source, nullable=True),
                "creation_timestamp": Attribute(_version.creation_time, "number"),
                "last_updated_timestamp": Attribute(_version.last_update_time, "number")},
    others={"tag": Keyed(model_version_tags, ("name", "version"), (_version.name, _version.version), absent=_NOT_PROMPT)},
    ordered=("name", "version_number", "creation_timestamp", "last_updated_timestamp"),
)
_MODELS = Selection(MODELS, registered_models, (Part(_model.name, False, "text"),), (_model.name,))
_VERSIONS = Selection(VERSIONS, model_versions, (Part(_version.name, False, "text"), Part(_version.version, True, "integer")),
                      (_version.name, _version.version))


def search_models(connection: sa.Connection, *, filter: str = "", order_by: Sequence[str] = (), limit: int = 100, after: str | None = None) -> ModelPage:
    """A page of registered models; without an order, by name.

    Raises:
        InvalidInput: the filter or the order can't be read, or the token is another search's.
    """
    tree, keys = MODELS.read(filter), MODELS.order(order_by)
    where = [] if _asks_for_prompts(MODELS, filter, tree) else [~is_prompt(_model.name)]
    found, following = select_page(connection, _MODELS, text=filter, tree=tree, keys=keys, limit=limit, most=MOST_MODELS, after=after, where=where,
                                   bound=[list(order_by)])
    return ModelPage([row[0] for row in found], following)


def search_versions(connection: sa.Connection, *, filter: str = "", order_by: Sequence[str] = (), limit: int = 10_000,
                    after: str | None = None) -> VersionPage:
    """A page of versions that are not deleted; without an order, what changed last first.

    Raises:
        InvalidInput: the filter or the order can't be read, or the token is another search's.
    """
    tree, keys = VERSIONS.read(filter), VERSIONS.order(order_by or ["last_updated_timestamp DESC"])
    where: list[sa.ColumnElement[bool]] = [_version.deleted.is_(False)]
    if not _asks_for_prompts(VERSIONS, filter, tree):
        where.append(~is_prompt(_version.name))
    found, following = select_page(connection, _VERSIONS, text=filter, tree=tree, keys=keys, limit=limit, most=MOST_VERSIONS, after=after, where=where,
                                   bound=[list(order_by)])
    return VersionPage([(row[0], row[1]) for row in found], following)


def _asks_for_prompts(language: Language, text: str, tree: Node | None) -> bool:
    for condition in conditions(tree):
        check = language.check(text, condition)
        if check.target.entity == "tag" and check.target.key == PROMPT_TAG:
            values = [str(value).lower() for value in check.values]
            if (check.op in ("=", "IN") and "true" in values) or (check.op == "!=" and values == ["false"]):
                return True
    return False
