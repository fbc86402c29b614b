"""What an alias meant, when, since whom and why: read back from the journal, across renames of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from davy.core.time import format_time
from davy.errors import NotFound
from davy.registry.models import require_model
from davy.store import journal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import sqlalchemy as sa

    from davy.store.journal import Entry

_PAGE = 1000


class AliasChange(msgspec.Struct, frozen=True):
    """One move of an alias; `version` None: it was taken away. `time` is microseconds.

    Attributes:
        model: the model's name at that time.
        evidence: what was known when it was moved: `release`, `gate` and its `verdict`, `reason`, or `because` of what it went.
        seq: the number of the journal's entry, and `digest` its digest.
    """

    time: int
    model: str
    alias: str
    version: int | None
    before: int | None
    actor: str
    evidence: dict[str, Any]
    seq: int
    digest: str


def alias_history(connection: sa.Connection, name: str, alias: str | None = None) -> list[AliasChange]:
    """All moves of a model's alias, or of all its aliases, the newest first.

    Raises:
        NotFound: no model is called so, nor was one that is gone and had an alias.
    """
    found: list[AliasChange] = []
    subject: str | None = name
    before: int | None = None
    while subject is not None:
        since, former = _named(connection, subject, before)
        found += [_change(entry) for entry in _moves(connection, subject, since, before) if alias in (None, entry.details.get("alias"))]
        subject, before = former, since - 1
    if not found:
        require_model(connection, name)
    return found


def alias_at(connection: sa.Connection, name: str, alias: str, moment: int) -> AliasChange:
    """The move that was in force at a moment (microseconds): its `version` is what the alias meant then, None after it was taken away.

    Raises:
        NotFound: the alias had not been set by then, or the model is unknown.
    """
    return in_force(alias_history(connection, name, alias), name, alias, moment)


def in_force(changes: Sequence[AliasChange], name: str, alias: str, moment: int) -> AliasChange:
    """Of an alias's moves, the newest first, the last one that was made by a moment.

    Raises:
        NotFound: there is none.
    """
    for change in changes:
        if change.time <= moment:
            return change
    if changes:
        raise NotFound(f"{name}@{alias} had not been set by {format_time(moment)}.", f"It was first set at {format_time(changes[-1].time)}.",
                       f"See its history: davy alias {name} {alias} --history")
    raise NotFound(f"{name}@{alias} has never been set.", "", f"See what was: davy alias {name} --history")


def _named(connection: sa.Connection, subject: str, before: int | None) -> tuple[int, str | None]:
    """Since which entry the model has had this name, and what it was called before; a rename writes an entry under both names, the old one first."""
    for entry in journal.entries(connection, subject=subject, action="model.rename", before=before, limit=1):
        return entry.seq, entry.details.get("from")
    return 0, None


def _moves(connection: sa.Connection, subject: str, since: int, before: int | None) -> Iterator[Entry]:
    while page := journal.entries(connection, subject=subject, action="alias.", before=before, limit=_PAGE):
        for entry in page:
            if entry.seq <= since:
                return
            yield entry
        before = page[-1].seq


def _change(entry: Entry) -> AliasChange:
    told = entry.details
    return AliasChange(entry.time, entry.subject, told["alias"], told.get("version"), told.get("before"), entry.actor, told.get("evidence") or {}, entry.seq,
                       entry.digest)
