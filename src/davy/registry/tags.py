"""Tags of models and of versions. The last value wins; taking away what isn't there is a no-op.

A tag does not count as a change of the model: `updated` stays, as MLflow has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from davy.core.digest import digest_bytes
from davy.errors import InvalidInput
from davy.registry.models import require_model, require_version
from davy.schema.tables import model_version_tags, registered_model_tags
from davy.store import journal
from davy.store.database import insert
from davy.tracking.records import check_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from davy.core.clock import Clock

LONGEST_VALUE = 100_000
_TOLD = 1_000


def check_tag(key: str, value: str) -> None:
    """Refuse a tag that the registry does not take.

    Raises:
        InvalidInput: its key, or its length.
    """
    check_key("tag", key)
    if len(value) > LONGEST_VALUE:
        raise InvalidInput(f"The tag {key!r} has {len(value)} characters.", f"A tag in the registry has at most {LONGEST_VALUE}.", "Shorten it.")


def set_model_tag(connection: sa.Connection, *, clock: Clock, actor: str, name: str, key: str, value: str | None) -> None:
    """Set a registered model's tag, or take it away with None.

    Raises:
        NotFound: no such model. InvalidInput: such a tag can't be.
    """
    require_model(connection, name)
    if _write(connection, registered_model_tags, {"name": name}, key, value):
        journal.append(connection, clock=clock, actor=actor, action="model.tag", subject=name, details={"key": key, "value": told(value)})


def set_tag(connection: sa.Connection, *, clock: Clock, actor: str, name: str, version: int, key: str, value: str | None) -> None:
    """Set a version's tag, or take it away with None.

    Raises:
        NotFound: no such version. InvalidInput: such a tag can't be.
    """
    require_version(connection, name, version)
    if _write(connection, model_version_tags, {"name": name, "version": version}, key, value):
        journal.append(connection, clock=clock, actor=actor, action="version.tag", subject=name,
                       details={"version": version, "key": key, "value": told(value)})


def told(value: str | None) -> Any:
    """A value as the journal keeps it: a long one by its digest."""
    if value is None or len(value) <= _TOLD:
        return value
    return {"characters": len(value), "digest": digest_bytes(value.encode())}


def _write(connection: sa.Connection, table: sa.Table, owner: Mapping[str, Any], key: str, value: str | None) -> bool:
    """Write or remove one tag; returns whether that changed anything."""
    if value is None:
        where = [table.c[column] == wanted for column, wanted in {**owner, "key": key}.items()]
        return connection.execute(sa.delete(table).where(*where)).rowcount > 0
    check_tag(key, value)
    statement = insert(connection, table)
    statement = statement.on_conflict_do_update(index_elements=[*owner, "key"], set_={"value": statement.excluded.value},
                                                where=table.c.value != statement.excluded.value)
    return connection.execute(statement.execution_options(preserve_rowcount=True), {**owner, "key": key, "value": value}).rowcount > 0
