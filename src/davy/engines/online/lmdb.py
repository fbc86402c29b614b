"""The embedded online store: LMDB, one file, one writer, readers in any process without locks.

Commits are not synced one by one: what a commit holds is in the log already. A marker file remembers which
start of the machine the unsynced writes belong to; when the machine went down before they reached the disk,
the store opens empty and the log fills it again.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import lmdb

from davy.errors import StorageFull, Unavailable

if TYPE_CHECKING:
    from types import TracebackType

MAP_BYTES = 1 << 37
MAX_TABLES = 4096
MAX_READERS = 1024
LOCK_BYTES = 1 << 17
SPARE_BYTES = 1 << 20
_FULL = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class _Environment:
    """An open LMDB environment, shared by all stores of one path in this process (LMDB allows one only)."""

    opened: ClassVar[dict[str, _Environment]] = {}
    guard = threading.Lock()

    def __init__(self, path: Path) -> None:
        self.key = str(path)
        self.users = 0
        self.marker = path / "unsynced"
        self.writing = threading.Lock()
        self.written = False
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._forget_unsynced(path)
            _reserve(path / "lock.mdb")
            self.env = lmdb.open(self.key, map_size=MAP_BYTES, max_dbs=MAX_TABLES, max_readers=MAX_READERS, sync=False, metasync=False, readahead=False)
            self.env.reader_check()
        except (lmdb.Error, OSError) as failure:
            raise _storage_error(failure) from failure
        self.handles: dict[str, Any] = {}
        self.adopting = threading.Lock()
        self.promoting: threading.Thread | None = None

    def _forget_unsynced(self, path: Path) -> None:
        """Begin empty where the machine went down before the last writes were on disk."""
        if self.marker.exists() and self.marker.read_text() != _boot():
            for name in ("data.mdb", "lock.mdb"):
                (path / name).unlink(missing_ok=True)
            self.marker.unlink()

    @classmethod
    def acquire(cls, path: Path) -> _Environment:
        with cls.guard:
            found = cls.opened.get(str(path))
            if found is None:
                found = cls.opened[str(path)] = cls(path)
            found.users += 1
            return found

    def release(self) -> None:
        with _Environment.guard:
            self.users -= 1
            if self.users == 0:
                del _Environment.opened[self.key]
                if self.promoting is not None:
                    self.promoting.join()
                try:
                    self.sync()
                finally:
                    self.env.close()

    def sync(self) -> None:
        """All commits of all processes are on disk afterwards; nobody writes meanwhile."""
        with self.writing:
            if not self.written:
                return
            try:
                with self.env.begin(write=True):
                    self.env.sync(True)
                    self.marker.unlink(missing_ok=True)
            except (lmdb.Error, OSError) as failure:
                raise _storage_error(failure) from failure
            self.written = False

    def mark(self) -> None:
        """Before an unsynced write, inside its transaction: remember which start of the machine it belongs to.

        Another process may have synced and removed the marker since the last write of this one.
        """
        if not (self.written and self.marker.exists()):
            beside = self.marker.with_suffix(f".{os.getpid()}")
            with beside.open("w") as file:
                file.write(_boot())
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.marker)  # whole or not at all: who opens meanwhile must not take half a marker for another start
            self.written = True

    def handle(self, table: str, transaction: Any) -> Any:
        """The table's handle in this transaction, or None where no such table exists as of it."""
        try:
            return self.env.open_db(table.encode(), txn=transaction, create=False)
        except (lmdb.NotFoundError, lmdb.ReadonlyError):
            return None

    def adopt(self, handles: dict[str, Any]) -> None:
        """Share handles that a committed writing transaction has opened. The dictionary is replaced, never changed:
        a transaction that began before can't use them."""
        if handles:
            with self.adopting:
                self.handles = {**self.handles, **handles}

    def promote(self, tables: list[str]) -> None:
        """Open tables that readers have found for good: a handle that was opened in a reading transaction ends with it.

        It takes a writing transaction, which may have to wait for another process: so a thread does it, and readers go on.
        """
        if self.promoting is None or not self.promoting.is_alive():
            self.promoting = threading.Thread(target=self._promote, args=(tables,), name="lmdb-tables", daemon=True)
            self.promoting.start()

    def _promote(self, tables: list[str]) -> None:
        with self.writing, suppress(lmdb.Error), self.env.begin(write=True) as transaction:
            found = {table: handle for table in tables if (handle := self.handle(table, transaction)) is not None}
            transaction.commit()
            self.adopt(found)


def _reserve(path: Path) -> None:
    """Give the table of readers its place on disk. It is a mapped file: a process that writes to it on a full disk would be killed."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, LOCK_BYTES)
    finally:
        os.close(descriptor)


@cache
def _boot() -> str:
    """Which start of the machine this is; the same in all its processes."""
    if _BOOT.exists():
        return _BOOT.read_text()
    return subprocess.run(["sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=True).stdout  # macOS


class _Snapshot:
    __slots__ = ("_environment", "_handles", "_new", "_transaction")

    def __init__(self, environment: _Environment) -> None:
        self._environment = environment
        self._new: dict[str, Any] = {}

    def __enter__(self) -> _Snapshot:
        self._handles = self._environment.handles  # before the transaction: it can't use handles that are opened after its beginning
        self._transaction = self._environment.env.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._transaction.commit()
        if self._new:
            self._environment.promote([*self._new])

    def get(self, table: str, key: bytes) -> bytes | None:
        handle = self._handles.get(table) or self._handle(table)
        if handle is None:
            return None
        value: bytes | None = self._transaction.get(key, None, handle)
        return value

    def _handle(self, table: str) -> Any:
        handle = self._handles.get(table) or self._new.get(table)
        if handle is None:
            handle = self._environment.handle(table, self._transaction)
            if handle is not None:
                self._new[table] = handle
        return handle


class _Transaction(_Snapshot):
    __slots__ = ()

    def __enter__(self) -> _Transaction:
        environment = self._environment
        environment.writing.acquire()
        try:
            self._handles = environment.handles
            self._transaction = environment.env.begin(write=True)
            try:
                environment.mark()
            except BaseException:
                self._transaction.abort()
                raise
        except BaseException as failure:
            environment.writing.release()
            if isinstance(failure, (lmdb.Error, OSError)):
                raise _storage_error(failure) from failure
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._transaction.commit()
                self._environment.adopt(self._new)
            else:
                self._transaction.abort()
        except lmdb.Error as failure:
            raise _storage_error(failure, self._environment.key) from failure
        finally:
            self._environment.writing.release()

    def put(self, table: str, key: bytes, value: bytes) -> None:
        try:
            handle = self._handle(table)
            if handle is None:
                handle = self._new[table] = self._environment.env.open_db(table.encode(), txn=self._transaction)
            self._transaction.put(key, value, db=handle)
        except lmdb.Error as failure:
            raise _storage_error(failure) from failure

    def delete(self, table: str, key: bytes) -> None:
        try:
            handle = self._handle(table)
            if handle is not None:
                self._transaction.delete(key, db=handle)
        except lmdb.Error as failure:
            raise _storage_error(failure) from failure

    def drop(self, table: str) -> None:
        try:
            handle = self._handle(table)
            if handle is not None:
                self._transaction.drop(handle, delete=False)
        except lmdb.Error as failure:
            raise _storage_error(failure) from failure


def _storage_error(failure: lmdb.Error | OSError, folder: str = "") -> Exception:
    """LMDB passes the system's error on as text, and calls a write that was cut short an input/output error."""
    full = isinstance(failure, lmdb.MapFullError) or any(text in str(failure) for text in _FULL)
    if folder and os.strerror(errno.EIO) in str(failure):
        full = shutil.disk_usage(folder).free < SPARE_BYTES or resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY
    kind = StorageFull if full else Unavailable
    return kind(
        f"The online store could not write: {failure}.",
        "What was acknowledged is in the log and is not lost.",
        "Free disk space and try again." if full else "Try again.",
    )


class LmdbStore:
    """Online state in one folder on the local disk."""

    def __init__(self, path: Path) -> None:
        self._environment: _Environment | None = _Environment.acquire(path.resolve())

    def _open(self) -> _Environment:
        if self._environment is None:
            raise Unavailable("The online store is closed.", "", "Open the home again.")
        return self._environment

    def snapshot(self) -> _Snapshot:
        return _Snapshot(self._open())

    def transaction(self) -> _Transaction:
        return _Transaction(self._open())

    def tables(self) -> list[str]:
        env = self._open().env
        with env.begin() as transaction:
            names = [bytes(key).decode() for key in transaction.cursor().iternext(values=False)]
        with self.snapshot() as snapshot:
            kept = []
            for name in names:
                handle = snapshot._handle(name)
                if handle is not None and snapshot._transaction.stat(handle)["entries"]:
                    kept.append(name)
        return sorted(kept)

    def sync(self) -> None:
        self._open().sync()

    def close(self) -> None:
        environment, self._environment = self._environment, None
        if environment is not None:
            environment.release()
