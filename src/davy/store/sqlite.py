"""SQLite in write-ahead mode.

A write takes SQLite's write lock at its start (`BEGIN IMMEDIATE`), so that writers queue up to `BUSY_SECONDS`
instead of failing half-way with "database is locked"; readers never wait for writers. They take turns in waiting (see
turns.py), because SQLite would let one who writes without a pause keep out all others.

A durable write runs with `synchronous=FULL`: one fsync a commit. A lazy one runs with `synchronous=NORMAL`, whose
commit is in the operating system's hands at once, and so outlives `kill -9`; a thread brings it to the disk.
"""

from __future__ import annotations

import atexit
import os
import sqlite3
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event

from davy.errors import ConfigError, Conflict, CorruptData, InvalidInput, StorageFull, Unavailable
from davy.store.backend import BUSY_SECONDS, LAZY_SECONDS, MODE
from davy.store.turns import Turns

if TYPE_CHECKING:
    from davy.errors import DavyError
    from davy.store.backend import Mode

_LOW_SPACE = 1 << 20
_PRAGMAS = ("PRAGMA foreign_keys=ON", "PRAGMA temp_store=MEMORY", "PRAGMA cache_size=-16384", "PRAGMA journal_size_limit=67108864")
_SETTINGS: dict[str, tuple[str, str]] = {
    "read": ("PRAGMA query_only=1", ""),
    "write": ("PRAGMA query_only=0", "PRAGMA synchronous=FULL"),
    "lazy": ("PRAGMA query_only=0", "PRAGMA synchronous=NORMAL"),
}
_QUERY_ONLY, _SYNCHRONOUS = "davy_query_only", "davy_synchronous"


class SqliteBackend:
    """One SQLite file. The folder that it lies in is made where there is none."""

    def __init__(self, url: sa.URL) -> None:
        path = Path(str(url.database)).absolute()
        self.file: Path | None = path
        self.place = str(path)
        self._path, self._url = path, url.set(database=str(path))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"The folder of {path} can't be made: {error.strerror}.", "It must be a folder that can be written.",
                              "Mend storage.database in davy.toml, or the folder.") from error
        self._watch: sqlite3.Connection | None = None
        self._watch_lock = threading.Lock()
        self._turns = Turns(path.with_name(f"{path.name}-turns"))
        self._start_syncer()

    def _start_syncer(self) -> None:
        self._syncer = _Syncer(self._path)
        self._letting_go = weakref.finalize(self, self._syncer.end)
        self._letting_go.atexit = False  # _close_all waits for it

    def engine(self) -> sa.Engine:
        """A pool of connections, each set up by `_prepare`."""
        engine = sa.create_engine(self._url, pool_size=8, max_overflow=56, pool_timeout=BUSY_SECONDS, hide_parameters=True,
                                  connect_args={"timeout": BUSY_SECONDS, "isolation_level": None, "check_same_thread": False})
        event.listen(engine, "connect", _prepare)
        return engine

    def start(self, connection: sa.Connection) -> None:
        """Begin; what a connection is set to by a pragma is only sent where it changes, and before the transaction, as SQLite demands."""
        mode: Mode = connection.get_execution_options().get(MODE, "read")
        if mode != "read":
            self._syncer.check()
        driver: Any = connection.connection.driver_connection  # every transaction begins here, and SQLAlchemy's own part costs more than SQLite's
        info = connection.info
        for name, pragma in zip((_QUERY_ONLY, _SYNCHRONOUS), _SETTINGS[mode], strict=True):
            if pragma and info.get(name) != pragma:
                driver.execute(pragma)
                info[name] = pragma
        if mode == "read":
            driver.execute("BEGIN")
            return
        if not self._turns.take(BUSY_SECONDS):
            raise _locked(self._path)
        try:
            driver.execute("BEGIN IMMEDIATE")
        finally:
            self._turns.give()

    def committed(self, mode: Mode) -> None:
        """A lazy commit is brought to the disk soon."""
        if mode == "lazy":
            self._syncer.notice()

    def version(self) -> int:
        """SQLite's own counter of others' commits, as seen by a connection that never commits. Costs microseconds."""
        with self._watch_lock:
            if self._watch is None:
                self._watch = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            return int(self._watch.execute("PRAGMA data_version").fetchone()[0])

    def explain(self, error: BaseException) -> DavyError | None:
        """Our error for SQLite's, and for a whole number that it has no room for."""
        if isinstance(error, OverflowError) and "SQLite" in str(error):
            return InvalidInput("A number is too large to be stored.", "Whole numbers have 64 bits.")
        return _explain(error, self._path) if isinstance(error, sqlite3.Error) else None

    def close(self) -> None:
        """Sync, then let go of the watching connection."""
        try:
            self._syncer.close()
        finally:
            self._turns.close()
            with self._watch_lock:
                if self._watch is not None:
                    self._watch.close()
                    self._watch = None

    def forget(self) -> None:
        """Leave the parent its connection and its thread, and whatever lock that thread held."""
        self._watch, self._watch_lock = None, threading.Lock()
        self._turns = Turns(self._path.with_name(f"{self._path.name}-turns"))
        self._letting_go.detach()
        _SYNCERS.discard(self._syncer)
        self._start_syncer()


class _Syncer:
    """Brings the write-ahead file to the disk within `LAZY_SECONDS` of a lazy commit, by a thread that the first one starts.

    It opens that file anew by its path each time: where it is gone, its last user has moved all of it into the database and synced
    that. The database's own file is never opened here, because closing it would drop the locks that SQLite holds on it.
    """

    def __init__(self, file: Path) -> None:
        self._path = file.with_name(f"{file.name}-wal")
        self._changed = threading.Condition()
        self._waiting = self._closed = False
        self._thread: threading.Thread | None = None
        self._failed: OSError | None = None
        self._late: OSError | None = None  # it could not even begin, and is tried again: nothing is lost yet

    def notice(self) -> None:
        """Something was committed that is not on disk yet."""
        if self._waiting:
            return
        with self._changed:
            self._waiting = True
            if self._thread is None and not self._start():
                self._waiting = False
                self._sync()
                return
            self._changed.notify_all()

    def _start(self) -> bool:
        """Whether there is a thread: at the very end of a process nobody would wait for one, and some releases of Python start none."""
        if _at_end.is_set():
            return False
        thread = threading.Thread(target=self._run, name="davy-sync", daemon=True)
        self._thread = thread
        try:
            thread.start()
        except RuntimeError:
            self._thread = None
            return False
        _SYNCERS.add(self)
        return True

    def check(self) -> None:
        """Raise once what became of a sync that has failed: later ones, and durable commits, can't vouch for what it was to make safe."""
        error = self._failed or self._late
        self._failed = self._late = None
        if error is not None:
            raise Unavailable(f"{self._path} could not be brought to the disk: {error.strerror}.",
                              "Changes of the last moment were answered, and may be lost with the power.", "Check the disk, then try again.") from error

    def end(self) -> None:
        """Have the thread sync what is left, and end. There will be no more commits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def close(self) -> None:
        """Sync what is left. A later commit starts a thread anew."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._changed.notify_all()
        if thread is not None:
            thread.join()
        self.check()

    def _run(self) -> None:
        """A while after the first commit that waits, sync; so many commits cost one sync. At the end, sync at once."""
        me, ended = threading.current_thread(), False

        def ending() -> bool:
            return self._closed or self._thread is not me

        while not ended:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or ending())
                ended = self._changed.wait_for(ending, LAZY_SECONDS / 2)
                waiting, self._waiting = self._waiting, False  # before the sync, so that a commit during it asks for another one
            if waiting:
                self._sync()

    def _sync(self) -> None:
        try:
            descriptor = os.open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return
        except OSError as error:
            self._late, self._waiting = error, True
            return
        self._late = None
        try:
            os.fdatasync(descriptor) if hasattr(os, "fdatasync") else os.fsync(descriptor)
        except OSError as error:
            self._failed = error
        finally:
            os.close(descriptor)


_SYNCERS: weakref.WeakSet[_Syncer] = weakref.WeakSet()
_at_end = threading.Event()


def _close_all() -> None:
    _at_end.set()
    for syncer in list(_SYNCERS):
        syncer.close()


atexit.register(_close_all)


def _prepare(connection: sqlite3.Connection, record: Any) -> None:
    """Set up a new connection. Two first connections may race for write-ahead mode, for which SQLite does not wait by itself."""
    deadline = time.monotonic() + BUSY_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
    for pragma in (*_PRAGMAS, "PRAGMA synchronous=FULL"):
        connection.execute(pragma)


def _explain(error: sqlite3.Error, path: Path) -> DavyError:
    """Our error for SQLite's: what happened to which file, and what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code == sqlite3.SQLITE_FULL or name == "SQLITE_IOERR_WRITE" or (code == sqlite3.SQLITE_IOERR and _space(path) < _LOW_SPACE):
        return StorageFull(f"{path} can't grow: no space is left, or a quota or limit is reached.", "The change was not made; all earlier ones are safe.",
                           f"Free space, then try again: df -h {path.parent}")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return CorruptData(f"{path} is damaged: {error}.", "It is not the database that was written.",
                           "Restore the file, with its -wal beside it, from a backup.")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return _locked(path)
    if code == sqlite3.SQLITE_CONSTRAINT:
        return Conflict(f"The change contradicts what is stored: {error}.", "", "Read the present state, then try again.")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return Unavailable(f"{path} can't be opened or written: {error}.", "The file and its folder must be writable.", f"Check: ls -ld {path.parent} {path}")
    return Unavailable(f"{path} failed with {name}: {error}.", "", "Check the disk, then try again.")


def _locked(path: Path) -> Unavailable:
    return Unavailable(f"{path} stayed locked by another process for {BUSY_SECONDS:.0f} s.", "", "Try again.")


def _space(path: Path) -> int:
    try:
        found = os.statvfs(path.parent)
    except OSError:
        return _LOW_SPACE
    return found.f_bavail * found.f_frsize
