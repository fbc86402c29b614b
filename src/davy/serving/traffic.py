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
        release: id of the release in force, empty for none.
        stable: the version that answers what another one fails to; None leaves it to the heaviest.
        shadow: a version that is asked after each answer, and answers nobody.
    """

    model: str
    revision: int
    weights: dict[str, float]
    updated: int
    actor: str
    release: str = ""
    stable: int | None = None
    shadow: int | None = None

    @property
    def versions(self) -> dict[int, float]:
        """Version number -> weight."""
        return {int(reference.rpartition("@")[2]): weight for reference, weight in self.weights.items()}

    @property
    def standing(self) -> tuple[int, ...]:
        """All versions that are kept warm: those with traffic, the one that answers for them, and the shadow."""
        return tuple(sorted({*self.versions, *(version for version in (self.stable, self.shadow) if version is not None)}))


def read_traffic(connection: Connection, model: str | None = None) -> list[Traffic]:
    """The traffic of one model, or of all that have some, by name."""
    query = sa.select(traffic).order_by(traffic.c.model)
    if model is not None:
        query = query.where(traffic.c.model == model)
    return [Traffic(row.model, row.revision, msgspec.json.decode(row.weights), row.updated, row.actor, row.release, row.stable, row.shadow)
            for row in connection.execute(query)]
