"""The contract of an online store: named tables of bytes, read in snapshots, written in atomic transactions.

It speaks tables, keys and bytes, never features. There is one writer of a home at a time; any number of
readers in any number of processes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Snapshot(Protocol):
    """All tables as of one moment. What it returns stays valid after it ends."""

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value, or None where the table or the key does not exist."""
        ...


class Transaction(Snapshot, Protocol):
    """A snapshot that sees its own writes; they become visible all at once when it ends, or not at all when it raises."""

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Set the value. The table comes into being with its first key."""
        ...

    def delete(self, table: str, key: bytes) -> None:
        """Remove the key. If no such key exists, this is a no-op."""
        ...

    def drop(self, table: str) -> None:
        """Remove the table with all its keys. If no such table exists, this is a no-op."""
        ...


class OnlineStore(Protocol):
    """Where online feature state lives.

    Committed writes survive the end of every process. They need not survive the end of the machine: the state
    can be built anew from the log. A store that can't vouch for its last writes must open empty, never damaged.
    """

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """Read all tables as of now. Snapshots are cheap (about a microsecond) and may be open on several threads."""
        ...

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Write atomically. Transactions of one store do not overlap: a second one waits."""
        ...

    def tables(self) -> list[str]:
        """The names of the tables that exist, sorted."""
        ...

    def sync(self) -> None:
        """Return when all committed writes are on disk."""
        ...

    def close(self) -> None:
        """Sync and let go. Closing twice is a no-op."""
        ...
