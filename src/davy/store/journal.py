"""The journal: an append-only, hash-chained record of every change of state.

An entry is appended in the same transaction as the change that it tells of, so that neither exists without
the other. Each entry's digest covers the digest before it. After the commit, the digest is also written to a
file of *heads* beside the database (where that is no file, in the home of the process that wrote), so that
cutting off the chain's end is seen as long as that file is left.
Who can rewrite both the database and the heads can't be seen from inside; keep a head elsewhere for that, and
give it to `verify(expected=...)`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from davy.core.digest import canonical_json, digest_bytes
from davy.store.database import after_commit, direct, folder_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from davy.core.clock import Clock

GENESIS = "sha256:" + "0" * 64
HEADS = "journal.heads"
_table = sa.table("journal", *(sa.column(name) for name in ("seq", "time", "actor", "action", "subject", "details", "previous", "digest")))


class Entry(msgspec.Struct, frozen=True):
    """Who did what to which subject, when (microseconds), on which evidence; `digest` covers all of it and `previous`."""

    seq: int
    time: int
    actor: str
    action: str
    subject: str
    details: dict[str, Any]
    previous: str
    digest: str


class Audit(msgspec.Struct, frozen=True):
    """The chain as found: how many entries, the last digest, and the first entry that is not as it was written (None: all are)."""

    entries: int
    head: str
    broken: int | None = None
    cause: str | None = None


def append(connection: sa.Connection, *, clock: Clock, actor: str, action: str, subject: str, details: Mapping[str, Any]) -> int:
    """Add an entry to the transaction of `connection`; returns its number, from 1 without gaps.

    Args:
        action: what was done, such as `alias.set`.
        subject: what it was done to, such as a model's name.
        details: JSON-able evidence.
    """
    last = direct(connection, "SELECT seq, digest FROM journal ORDER BY seq DESC LIMIT 1")
    seq, previous = (int(last[0][0]) + 1, str(last[0][1])) if last else (1, GENESIS)
    text = canonical_json(dict(details)).decode()
    now = clock.now()
    digest = _digest(seq, now, actor, action, subject, text, previous)
    direct(connection, "INSERT INTO journal (seq, time, actor, action, subject, details, previous, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
           (seq, now, actor, action, subject, text, previous, digest))
    path = heads_file(connection)
    if path is not None:
        after_commit(connection, lambda: _witness(path, seq, digest))
    return seq


def entries(connection: sa.Connection, *, subject: str | None = None, action: str | None = None, before: int | None = None,
            limit: int = 100) -> list[Entry]:
    """The newest entries first.

    Args:
        action: only this action, or with a trailing `.` all that start so: `alias.`.
        before: only entries with a smaller number, to turn the page.
    """
    query = sa.select(_table).order_by(_table.c.seq.desc()).limit(limit)
    if subject is not None:
        query = query.where(_table.c.subject == subject)
    if action is not None:
        query = query.where(_table.c.action.startswith(action, autoescape=True) if action.endswith(".") else _table.c.action == action)
    if before is not None:
        query = query.where(_table.c.seq < before)
    return [_entry(row) for row in connection.execute(query)]


def verify(connection: sa.Connection, *, expected: str | None = None) -> Audit:
    """Walk the whole chain; one read of the table.

    Args:
        expected: the digest of an entry that was noted elsewhere, which the chain must contain.
    """
    found = _walk(connection, expected)
    if found.broken is not None:
        # The snapshot of `connection` may be older than the heads, which others go on writing; a new one is not.
        with connection.engine.connect() as fresh, fresh.begin():
            return _walk(fresh, expected)
    return found


def _walk(connection: sa.Connection, expected: str | None) -> Audit:
    heads = _read_heads(heads_file(connection))
    seen = expected is None or expected == GENESIS
    count, previous = 0, GENESIS
    rows = connection.execute(sa.select(_table).order_by(_table.c.seq), execution_options={"yield_per": 1000})
    for row in rows:
        cause = _fault(row, count + 1, previous, heads.pop(count + 1, None))
        if cause is not None:
            rows.close()
            return Audit(count, previous, count + 1, cause)
        count, previous = count + 1, row.digest
        seen = seen or row.digest == expected
    if heads:
        return Audit(count, previous, count + 1, f"{max(heads) - count} entries at the end are missing: {HEADS} has seen entry {max(heads)}")
    if not seen:
        return Audit(count, previous, count + 1, f"no entry has the expected digest {expected}; entries are missing, or all were rewritten")
    return Audit(count, previous)


def heads_file(connection: sa.Connection) -> Path | None:
    """Where the digests are noted a second time."""
    folder = folder_of(connection)
    return None if folder is None else folder / HEADS


def _digest(seq: int, time: int, actor: str, action: str, subject: str, details: str, previous: str) -> str:
    return digest_bytes(previous.encode() + canonical_json([seq, time, actor, action, subject, details]))


def _fault(row: sa.Row[Any], seq: int, previous: str, head: str | None) -> str | None:
    if row.seq != seq:
        return f"entry {seq} is missing; the next one found is {row.seq}"
    if row.previous != previous:
        return f"entry {seq} does not follow the entry before it"
    try:
        digest = _digest(row.seq, row.time, row.actor, row.action, row.subject, row.details, row.previous)
    except (TypeError, AttributeError):
        return f"entry {seq} has a value of another type"
    if digest != row.digest:
        return f"entry {seq} was edited: its digest is not the digest of its content"
    if head is not None and head != digest:
        return f"entry {seq} was rewritten: {HEADS} has seen another digest for it"
    return None


def _witness(path: Path, seq: int, digest: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, f"{seq} {digest}\n".encode())
        finally:
            os.close(descriptor)
    except OSError:
        # The entry is committed; a full disk must not make the caller believe otherwise. The next head vouches for this one too.
        return


def _read_heads(path: Path | None) -> dict[int, str]:
    """The noted digests; a line torn by a full disk is no evidence and is left out."""
    if path is None or not path.exists():
        return {}
    found = {}
    for line in path.read_text(encoding="ascii", errors="replace").splitlines():
        seq, _, digest = line.partition(" ")
        if seq.isdigit() and len(digest) == len(GENESIS) and digest.startswith("sha256:"):
            found[int(seq)] = digest
    return found


def _entry(row: sa.Row[Any]) -> Entry:
    return Entry(row.seq, row.time, row.actor, row.action, row.subject, msgspec.json.decode(row.details), row.previous, row.digest)
