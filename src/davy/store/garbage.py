"""How a blob that nothing points at is collected while others go on storing, and pointing at, blobs.

A blob is *condemned* in a write transaction that has seen that nothing points at it, then deleted, then *buried*.
Whoever is about to point at a blob *claims* it in the transaction that does so. Write transactions wait for each
other: a claim either comes before, and the collector sees the pointer, or after, and the claim sees the sentence. A
blob that comes in without any pointer yet is protected by its age: only what was put a while ago is condemned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from davy.core.clock import SystemClock
from davy.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from davy.store.blobs import Blobs

LEASE_SECONDS = 300
_LOOKUP = 500
_CLOCK = SystemClock()  # a sentence is about processes that really live and die, whatever moment a driven clock shows
_table = sa.table("collected_blobs", sa.column("digest"), sa.column("began"), sa.column("ended"))


def claim(connection: sa.Connection, blobs: Blobs, digests: Iterable[str]) -> None:
    """Call this in the write transaction that makes something point at these blobs, after they were stored.

    Raises:
        Unavailable: one of them has been collected since it was stored. Store it again, then try again.
    """
    asked = sorted(set(digests))
    for start in range(0, len(asked), _LOOKUP):
        some = asked[start:start + _LOOKUP]
        for row in connection.execute(sa.select(_table).where(_table.c.digest.in_(some))).all():
            dying = row.ended is None and row.began > _now() - LEASE_SECONDS
            if dying or not blobs.exists(row.digest):
                raise Unavailable(f"The blob {row.digest} was collected while it was stored again.", "This happens once at most.", "Try again.")
            connection.execute(sa.delete(_table).where(_table.c.digest == row.digest))


def condemn(connection: sa.Connection, digests: Collection[str]) -> None:
    """Sentence these blobs, at which nothing points: the caller has seen so in this very write transaction.

    Afterwards they must be deleted within `LEASE_SECONDS`, or else not at all, and `bury` called.
    """
    if digests:
        connection.execute(sa.delete(_table).where(_table.c.digest.in_(list(digests))))
        connection.execute(sa.insert(_table), [{"digest": digest, "began": _now(), "ended": None} for digest in digests])


def bury(connection: sa.Connection, digests: Collection[str]) -> None:
    """Note that these condemned blobs are deleted."""
    if digests:
        connection.execute(sa.update(_table).where(_table.c.digest.in_(list(digests))).values(ended=_now()))


def dig_out(connection: sa.Connection, keep_seconds: int) -> int:
    """Forget those that were buried longer ago, and those whose collector has died; returns how many."""
    old = _now() - keep_seconds
    return int(connection.execute(sa.delete(_table).where(sa.or_(_table.c.ended < old, sa.and_(_table.c.ended.is_(None), _table.c.began < old)))).rowcount)


def _now() -> int:
    return _CLOCK.now() // 1_000_000
