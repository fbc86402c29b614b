"""The metadata database: SQLAlchemy Core over SQLite in write-ahead mode.

`begin()` is one write transaction, `read()` one consistent snapshot; both may be used from any thread and any
number of processes. A write takes SQLite's write lock at its start (`BEGIN IMMEDIATE`), so that writers queue
up to `BUSY_SECONDS` instead of failing half-way with "database is locked"; readers never wait for writers.

Durability: `synchronous=FULL`. What `begin()` has committed survives `kill -9` and the loss of power; each
commit costs one fsync, so callers write in batches.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.dialects import postgresql, sqlite

from davy.errors import ConfigError, Conflict, CorruptData, DavyError, StorageFull, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

BUSY_SECONDS = 30.0
_LOW_SPACE = 1 << 20
_PRAGMAS = ("PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON", "PRAGMA temp_store=MEMORY", "PRAGMA cache_size=-16384",
            "PRAGMA journal_size_limit=67108864")
_AFTER, _READS = "davy_after_commit", "davy_query_only"


class Database:
    """One open database.

    Args:
        url: `sqlite:///path/to/file`, or the file's path, in which `?` and `#` are no syntax.
        head: the revision of the schema that this code speaks.
        migrations: the folder of Alembic scripts that lead there.
    """

    def __init__(self, url: str | Path, *, head: str, migrations: Path) -> None:
        parsed = _parse(url)
        self.path = Path(str(parsed.database)).absolute()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"The folder of {self.path} can't be made: {error.strerror}.", "It must be a folder that can be written.",
                              "Mend storage.database in davy.toml, or the folder.") from error
        self.head, self.migrations = head, migrations
        self._engine = sa.create_engine(parsed.set(database=str(self.path)), pool_size=8, max_overflow=56, pool_timeout=BUSY_SECONDS,
                                        connect_args={"timeout": BUSY_SECONDS, "isolation_level": None, "check_same_thread": False})
        event.listen(self._engine, "connect", _prepare)
        event.listen(self._engine, "begin", _start)
        self._local = threading.local()
        self._watch: sqlite3.Connection | None = None
        self._watch_lock = threading.Lock()
        _OPEN.add(self)

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """One write transaction: committed at the end of the block, rolled back when it raises.

        Raises:
            StorageFull: the disk is full; nothing of the block was written.
            Conflict: a constraint of the schema was broken.
            CorruptData: the file is not the database that was written.
            Unavailable: another process held the write lock for longer than `BUSY_SECONDS`.
            RuntimeError: this thread is in such a block already, so that it would wait for itself.
        """
        if getattr(self._local, "writing", False):
            raise RuntimeError("begin() inside begin() on one thread would wait for itself; pass the open connection on.")
        self._local.writing = True
        try:
            callbacks = yield from self._transaction()
        finally:
            self._local.writing = False
        for callback in callbacks:
            callback()

    def _transaction(self) -> Generator[sa.Connection, None, list[Callable[[], None]]]:
        with self._translated(), self._engine.connect().execution_options(davy_write=True) as connection:
            try:
                with connection.begin():
                    yield connection
                return list(connection.info.get(_AFTER, ()))
            finally:
                connection.info.pop(_AFTER, None)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One snapshot, which refuses to write: all its queries see the same committed state."""
        with self._translated(), self._engine.connect() as connection, connection.begin():
            yield connection

    def version(self) -> int:
        """A number that changes when anybody, in this or another process, has committed. Costs microseconds."""
        with self._watch_lock, self._translated():
            if self._watch is None:
                self._watch = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            return int(self._watch.execute("PRAGMA data_version").fetchone()[0])

    def migrate(self) -> None:
        """Bring the schema to `head`. Safe when several processes open a new database at once.

        Raises:
            Conflict: a newer version of Davy has made this database.
        """
        with self.read() as connection:
            if _revision(connection) == self.head:
                return
        with self.begin() as connection:
            if _revision(connection) != self.head:
                _upgrade(connection, self.migrations)

    def close(self) -> None:
        """Close all connections. Closing twice is a no-op."""
        self._engine.dispose()
        with self._watch_lock:
            if self._watch is not None:
                self._watch.close()
                self._watch = None

    def _forget(self) -> None:
        """In a forked child: drop the parent's connections without touching them."""
        self._engine.dispose(close=False)
        self._watch, self._watch_lock, self._local = None, threading.Lock(), threading.local()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except exc.DBAPIError as error:
            cause = error.orig
            raise (_explain(cause, self.path) if isinstance(cause, sqlite3.Error) else error) from error
        except sqlite3.Error as error:
            raise _explain(error, self.path) from error
        except exc.TimeoutError as error:
            raise Unavailable(f"All connections to {self.path} stayed busy for {BUSY_SECONDS:.0f} s.", "", "Try again.") from error


def after_commit(connection: sa.Connection, callback: Callable[[], None]) -> None:
    """Call this once the transaction of `connection` is on disk; never when it is rolled back."""
    connection.info.setdefault(_AFTER, []).append(callback)


def insert(connection: sa.Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows `on_conflict_do_update` and `on_conflict_do_nothing` in this database's dialect."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def file_of(connection: sa.Connection) -> Path | None:
    """The file behind this connection, if a file it is."""
    url = connection.engine.url
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


_OPEN: weakref.WeakSet[Database] = weakref.WeakSet()


def _forget_all() -> None:
    for database in list(_OPEN):
        database._forget()


os.register_at_fork(after_in_child=_forget_all)


def _parse(url: str | Path) -> sa.URL:
    if isinstance(url, Path):
        return sa.URL.create("sqlite", database=str(url))
    try:
        parsed = sa.make_url(url)
    except exc.ArgumentError as error:
        raise ConfigError(f"{url!r} is not the URL of a database.", "It is sqlite:///path/to/file.", "Mend storage.database in davy.toml.") from error
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise ConfigError(f"The database {parsed.render_as_string()!r} can't be opened.", "It is a SQLite file: sqlite:///path/to/file.",
                          "Mend storage.database in davy.toml.")
    return parsed


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
    for pragma in _PRAGMAS:
        connection.execute(pragma)


def _start(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get("davy_write", False)
    if connection.info.get(_READS, False) is write:
        connection.exec_driver_sql(f"PRAGMA query_only={0 if write else 1}")
    connection.info[_READS] = not write
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _revision(connection: sa.Connection) -> str | None:
    if connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").first() is None:
        return None
    found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").first()
    return None if found is None else str(found[0])


def _upgrade(connection: sa.Connection, migrations: Path) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    present = _revision(connection)
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    if present is not None and present not in known:
        raise Conflict(f"The database {file_of(connection)} has the schema {present!r}, which this version of Davy does not know.",
                       f"It knows {', '.join(sorted(known))}; a newer version has opened the database.", "Upgrade: pip install -U davy")
    command.upgrade(config, "head")


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
        return Unavailable(f"{path} stayed locked by another process for {BUSY_SECONDS:.0f} s.", "", "Try again.")
    if code == sqlite3.SQLITE_CONSTRAINT:
        return Conflict(f"The change contradicts what is stored: {error}.", "", "Read the present state, then try again.")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return Unavailable(f"{path} can't be opened or written: {error}.", "The file and its folder must be writable.", f"Check: ls -ld {path.parent} {path}")
    return Unavailable(f"{path} failed with {name}: {error}.", "", "Check the disk, then try again.")


def _space(path: Path) -> int:
    try:
        found = os.statvfs(path.parent)
    except OSError:
        return _LOW_SPACE
    return found.f_bavail * found.f_frsize
