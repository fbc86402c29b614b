"""An online store in this process's memory: for tests, notebooks and one-off computations."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Tables = dict[str, dict[bytes, bytes]]


class _View:
    def __init__(self, tables: Mapping[str, Mapping[bytes, bytes]]) -> None:
        self._tables = tables

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._tables.get(table, {}).get(key)


class _Changes(_View):
    """A transaction: the tables that it touched are copied, the others shared."""

    def __init__(self, tables: Tables) -> None:
        self.tables = dict(tables)
        super().__init__(self.tables)
        self._own: set[str] = set()

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._owned(table)[key] = bytes(value)

    def delete(self, table: str, key: bytes) -> None:
        self._owned(table).pop(key, None)

    def drop(self, table: str) -> None:
        self.tables.pop(table, None)
        self._own.discard(table)

    def _owned(self, table: str) -> dict[bytes, bytes]:
        if table not in self._own:
            self.tables[table] = dict(self.tables.get(table, {}))
            self._own.add(table)
        return self.tables[table]


class MemoryStore:
    """Copy-on-write dictionaries. Each transaction copies the tables that it writes: meant for small state."""

    def __init__(self) -> None:
        self._tables: Tables = {}
        self._writing = threading.Lock()

    @contextmanager
    def snapshot(self) -> Iterator[_View]:
        yield _View(self._tables)

    @contextmanager
    def transaction(self) -> Iterator[_Changes]:
        with self._writing:
            changes = _Changes(self._tables)
            yield changes
            self._tables = changes.tables

    def tables(self) -> list[str]:
        return sorted(name for name, rows in self._tables.items() if rows)

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass
