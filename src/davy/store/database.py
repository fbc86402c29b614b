"""The metadata database: SQLAlchemy Core over SQLite, or another kind of database that is a `Backend`.

`begin()` is one write transaction, `read()` one consistent snapshot; both may be used from any thread and any
number of processes. Writers wait for each other, so that what a block has read stays true until its end; readers
never wait for writers.

Durability: what `begin()` has committed survives `kill -9` and the loss of power; each commit costs one fsync, so
callers write in batches. What `begin(lazy=True)` has committed survives `kill -9` at once, and the loss of power
within `LAZY_SECONDS`.
"""

from __future__ import annotations

import os
import re
import threading
import weakref
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.dialects import postgresql, sqlite

from davy.errors import ConfigError, Conflict, InvalidInput, Unavailable
from davy.store.backend import BUSY_SECONDS, MODE
from davy.store.postgres import NAMES, PostgresBackend
from davy.store.sqlite import SqliteBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from davy.store.backend import Backend, Mode

_AFTER, _FOLDER = "davy_after_commit", "davy_folder"
_PASSWORD = re.compile(r":[^:/]*@")
_URLS = "It is sqlite:///path/to/file or postgresql://user:password@host/database."


class Database:
    """One open database.

    Args:
        url: `sqlite:///path/to/file`, or the file's path, in which `?` and `#` are no syntax; or `postgresql://user:password@host/database`.
        head: the revision of the schema that this code speaks.
        migrations: the folder of Alembic scripts that lead there.
        folder: where files that go with the database are kept, if it isn't a file itself, beside which they are.
    """

    def __init__(self, url: str | Path, *, head: str, migrations: Path, folder: Path | None = None) -> None:
        self._backend = _backend(url)
        self.path = self._backend.file
        self.head, self.migrations = head, migrations
        self._engine = self._backend.engine()
        self._engine.update_execution_options(**{_FOLDER: folder if self.path is None else self.path.parent})
        event.listen(self._engine, "begin", self._backend.start)
        self._local = threading.local()
        _OPEN.add(self)
        weakref.finalize(self, self._engine.dispose)

    @contextmanager
    def begin(self, *, lazy: bool = False) -> Iterator[sa.Connection]:
        """One write transaction: committed at the end of the block, rolled back when it raises.

        Args:
            lazy: don't wait for the disk. The commit survives `kill -9` at once, and the loss of power within `LAZY_SECONDS`.

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
            callbacks = yield from self._transaction("lazy" if lazy else "write")
        finally:
            self._local.writing = False
        for callback in callbacks:
            callback()

    def _transaction(self, mode: Mode) -> Generator[sa.Connection, None, list[Callable[[], None]]]:
        with self.translated(), self._begun(mode) as (connection, transaction):
            try:
                with transaction:
                    yield connection
                self._backend.committed(mode)
                return list(connection.info.get(_AFTER, ()))
            finally:
                connection.info.pop(_AFTER, None)

    @contextmanager
    def _begun(self, mode: Mode) -> Iterator[tuple[sa.Connection, sa.Transaction]]:
        """A connection on which the transaction has begun. Where one from the pool has died meanwhile, nothing was done on it yet: take another."""
        again = True
        while True:
            with self._engine.connect().execution_options(**{MODE: mode}) as connection:
                try:
                    transaction = connection.begin()
                except exc.DBAPIError as error:
                    if again and error.connection_invalidated:
                        again = False
                        continue
                    raise
                yield connection, transaction
                return

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One snapshot, which refuses to write: all its queries see the same committed state."""
        with self.translated(), self._begun("read") as (connection, transaction), transaction:
            yield connection

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raise the database's errors as ours. `begin` and `read` do it by themselves."""
        try:
            yield
        except exc.TimeoutError as error:
            raise Unavailable(f"All connections to {self._backend.place} stayed busy for {BUSY_SECONDS:.0f} s.", "", "Try again.") from error
        except UnicodeEncodeError as error:
            if error.reason != "surrogates not allowed":
                raise
            raise InvalidInput("A text has half a character (a lone surrogate).", "Texts are Unicode.") from error
        except Exception as error:
            told = self._backend.explain(error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error)
            if told is None:
                raise
            raise told from error

    def version(self) -> int:
        """A number that changes when anybody, in this or another process, has committed. Costs microseconds."""
        with self.translated():
            return self._backend.version()

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
                _upgrade(connection, self.migrations, self._backend.place)

    def close(self) -> None:
        """Bring to the disk what was committed lazily, and close all connections. Closing twice is a no-op."""
        try:
            self._backend.close()
        finally:
            self._engine.dispose()

    def _forget(self) -> None:
        """In a forked child: drop the parent's connections without touching them."""
        self._engine.dispose(close=False)
        self._backend.forget()
        self._local = threading.local()


def after_commit(connection: sa.Connection, callback: Callable[[], None]) -> None:
    """Call this once the transaction of `connection` is on disk; never when it is rolled back."""
    callbacks(connection).append(callback)


def callbacks(connection: sa.Connection) -> list[Callable[[], None]]:
    """What is to be called once the transaction of `connection` is on disk; who undoes a part of it takes that part's out again."""
    found: list[Callable[[], None]] = connection.info.setdefault(_AFTER, [])
    return found


def direct(connection: sa.Connection, text: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """The rows of a statement run on the driver itself, for the few that run thousands of times a second: SQLAlchemy's own part costs ten times more.

    Args:
        text: with `?` for each parameter, whatever the database.
    """
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        return list(driver.execute(text, parameters))
    cursor = driver.execute(text.replace("?", "%s"), parameters)
    return list(cursor.fetchall()) if cursor.description is not None else []


def direct_many(connection: sa.Connection, text: str, rows: Sequence[Sequence[Any]]) -> None:
    """A statement for each of these rows of parameters, run as by `direct`."""
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        driver.executemany(text, rows)
    else:
        driver.cursor().executemany(text.replace("?", "%s"), rows)


def insert(connection: sa.Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows `on_conflict_do_update` and `on_conflict_do_nothing` in this database's dialect."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def folder_of(connection: sa.Connection) -> Path | None:
    """Where files that go with the database are kept: beside its own file, or where it was opened to keep them."""
    folder: Path | None = connection.get_execution_options().get(_FOLDER)
    return folder


_OPEN: weakref.WeakSet[Database] = weakref.WeakSet()


def _forget_all() -> None:
    for database in list(_OPEN):
        database._forget()


os.register_at_fork(after_in_child=_forget_all)


def _backend(url: str | Path) -> Backend:
    if isinstance(url, Path):
        return SqliteBackend(sa.URL.create("sqlite", database=str(url)))
    try:
        parsed = sa.make_url(url)
    except exc.ArgumentError as error:
        raise ConfigError(f"{_PASSWORD.sub(':***@', url)!r} is not the URL of a database.", _URLS, "Mend storage.database in davy.toml.") from error
    if parsed.drivername in NAMES:
        return PostgresBackend(parsed)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise ConfigError(f"The database {parsed.render_as_string()!r} can't be opened.", _URLS, "Mend storage.database in davy.toml.")
    return SqliteBackend(parsed)


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: sa.Row[Any] | None = connection.execute(sa.select(sa.column("version_num")).select_from(sa.table("alembic_version"))).first()
    return None if found is None else str(found[0])


def _upgrade(connection: sa.Connection, migrations: Path, place: str) -> None:
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
        raise Conflict(f"The database {place} has the schema {present!r}, which this version of Davy does not know.",
                       f"It knows {', '.join(sorted(known))}; a newer version has opened the database.", "Upgrade: pip install -U davy")
    command.upgrade(config, "head")
