"""The embedded online store: LMDB, one file, one writer, readers in any process without locks.

All tables share LMDB's one unnamed tree, each under its name as a prefix. Named trees would need handles, which may not be
opened while another transaction of the process opens one: a reader that met a new table could spoil the handles of all others.

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
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import lmdb

from davy.errors import StorageFull, Unavailable

if TYPE_CHECKING:
    from types import TracebackType

MAP_BYTES = 1 << 37
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
            self.env = lmdb.open(self.key, map_size=MAP_BYTES, max_readers=MAX_READERS, sync=False, metasync=False, readahead=False)
            self.env.reader_check()
        except (lmdb.Error, OSError) as failure:
            raise _storage_error(failure) from failure

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


@cache
def _prefix(table: str) -> bytes:
    """What the keys of this table begin with. A table's name holds no zero byte."""
    return table.encode() + b"\0"


class _Snapshot:
    __slots__ = ("_environment", "_transaction")

    def __init__(self, environment: _Environment) -> None:
        self._environment = environment

    def __enter__(self) -> _Snapshot:
        self._transaction = self._environment.env.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._transaction.abort()

    def get(self, table: str, key: bytes) -> bytes | None:
        value: bytes | None = self._transaction.get(_prefix(table) + key)
        return value


class _Transaction(_Snapshot):
    __slots__ = ()

    def __enter__(self) -> _Transaction:
        environment = self._environment
        environment.writing.acquire()
        try:
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
            else:
                self._transaction.abort()
        except lmdb.Error as failure:
            raise _storage_error(failure, self._environment.key) from failure
        finally:
            self._environment.writing.release()

    def put(self, table: str, key: bytes, value: bytes) -> None:
        try:
            self._transaction.put(_prefix(table) + key, value)
        except lmdb.Error as failure:
            raise _storage_error(failure) from failure

    def delete(self, table: str, key: bytes) -> None:
        try:
            self._transaction.delete(_prefix(table) + key)
        except lmdb.Error as failure:
            raise _storage_error(failure) from failure

    def drop(self, table: str) -> None:
        prefix = _prefix(table)
        try:
            with self._transaction.cursor() as cursor:
                more = cursor.set_range(prefix)
                while more and cursor.key().startswith(prefix):
                    cursor.delete()
                    more = bool(cursor.key())
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
        found = []
        with self._open().env.begin() as transaction, transaction.cursor() as cursor:
            more = cursor.first()
            while more:
                name = cursor.key().partition(b"\0")[0]
                found.append(name.decode())
                more = cursor.set_range(name + b"\1")
        return found

    def sync(self) -> None:
        self._open().sync()

    def close(self) -> None:
        environment, self._environment = self._environment, None
        if environment is not None:
            environment.release()
