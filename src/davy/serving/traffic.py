"""The traffic as it stands in the database: which versions of a model answer, with what weight. Read only; `davy.release` writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from davy.schema.tables import traffic

if TYPE_CHECKING:
    from sqlalchemy import Connection


class Traffic(msgspec.Struct, frozen=True):
    """The weights of one model's versions, all of which sum to 1.

    Attributes:
        revision: goes up by one with each change.
        updated: microseconds.
    """

    model: str
    revision: int
    weights: dict[str, float]
    updated: int
    actor: str

    @property
    def versions(self) -> dict[int, float]:
        """Version number -> weight."""
        return {int(reference.rpartition("@")[2]): weight for reference, weight in self.weights.items()}


def read_traffic(connection: Connection, model: str | None = None) -> list[Traffic]:
    """The traffic of one model, or of all that have some, by name."""
    query = sa.select(traffic).order_by(traffic.c.model)
    if model is not None:
        query = query.where(traffic.c.model == model)
    return [Traffic(row.model, row.revision, msgspec.json.decode(row.weights), row.updated, row.actor) for row in connection.execute(query)]
