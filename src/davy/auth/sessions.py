"""Sessions: what a browser's cookie stands for. They live in the database, end when idle or old, and at logout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from davy.auth.secrets import digest_of, new_secret
from davy.auth.users import changed
from davy.schema.tables import sessions
from davy.store import journal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from davy.core.clock import Clock


def start_session(connection: sa.Connection, *, clock: Clock, owner: str, address: str, lasts: int, idle: int) -> str:
    """A new session's secret, for the cookie. Sessions that are over are cleared away.

    Args:
        address: where the login came from, for the journal.
        lasts: microseconds until it ends, however much it is used.
        idle: microseconds without use after which it ends.
    """
    now, secret = clock.now(), new_secret()
    connection.execute(sa.delete(sessions).where((sessions.c.expires <= now) | (sessions.c.used <= now - idle)))
    connection.execute(sa.insert(sessions).values(digest=digest_of(secret), owner=owner, created=now, used=now, expires=now + lasts))
    changed(connection)
    journal.append(connection, clock=clock, actor=owner, action="session.started", subject=owner, details={"address": address})
    return secret


def end_session(connection: sa.Connection, *, clock: Clock, secret: str) -> None:
    """Log out. An unknown session is a no-op."""
    digest = digest_of(secret)
    owner = connection.execute(sa.select(sessions.c.owner).where(sessions.c.digest == digest)).scalar()
    if owner is not None:
        connection.execute(sa.delete(sessions).where(sessions.c.digest == digest))
        changed(connection)
        journal.append(connection, clock=clock, actor=owner, action="session.ended", subject=owner, details={})


def note_seen(connection: sa.Connection, seen: Mapping[str, int]) -> None:
    """When each session, by its digest, was last used; other servers hear of it too, so that none takes it for idle."""
    moved = [connection.execute(sa.update(sessions).where(sessions.c.digest == digest, sessions.c.used < moment).values(used=moment)).rowcount
             for digest, moment in seen.items()]
    if any(moved):
        changed(connection)
