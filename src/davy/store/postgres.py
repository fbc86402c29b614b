"""PostgreSQL, through psycopg 3.

A write takes one advisory lock of the database at its start, as SQLite takes its write lock, in a transaction of the
level READ COMMITTED: each statement then sees all that was committed before the lock was granted, and nobody else can
commit until it is released. So whatever holds with SQLite because there is one writer (numbers that are the largest plus
one, the journal's chain, "is there one already?") holds here for the same reason, no transaction fails because of another
one, and none has to be carried out twice. A read is REPEATABLE READ, READ ONLY: one snapshot, which waits for nobody.

A lazy write is a durable one: what PostgreSQL has answered before its disk is lost when its server process is killed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event, exc

from davy.errors import ConfigError, Conflict, InvalidInput, MissingExtra, StorageFull, Unavailable
from davy.store.backend import BUSY_SECONDS, MODE

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

    from davy.errors import DavyError
    from davy.store.backend import Mode

NAMES = ("postgresql", "postgres", "postgresql+psycopg")
WRITERS = 0x64617679
_CONNECT_SECONDS, _NONE = 10, "none"
_MEND = "Mend storage.database in davy.toml."
_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_WRITE = f"BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = {{patience:.0f}}; SELECT pg_advisory_xact_lock({WRITERS})"
_CONNECT = {"connect_timeout": _CONNECT_SECONDS, "application_name": "davy", "client_encoding": "utf8",
            "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}
# The server too must notice within a minute that a client's machine is gone: till then it keeps the writers' lock for it.
_SESSION = "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3; SET tcp_user_timeout = 60000"


class PostgresBackend:
    """A database on a PostgreSQL server. It must be there; its tables are made.

    Args:
        patience: how many seconds a writer waits for the others.
    """

    file: Path | None = None

    def __init__(self, url: sa.URL, *, patience: float = BUSY_SECONDS) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise MissingExtra("The database is a PostgreSQL, and psycopg is not installed.", "", "pip install 'davy[postgres]'") from error
        if not url.database:
            raise ConfigError(f"The database {url.render_as_string()!r} has no name.", "It is postgresql://user:password@host/database.", _MEND)
        self._url = url.set(drivername="postgresql+psycopg")
        self.place = url.set(drivername="postgresql", query={}).render_as_string(hide_password=True)
        self._begin = {"read": _READ, "write": _WRITE.format(patience=patience * 1000)}
        self._begin["lazy"] = self._begin["write"]
        self._error: type[Exception] = psycopg.Error
        self._engine: sa.Engine | None = None

    def engine(self) -> sa.Engine:
        """A pool of connections on which nothing is begun but by `start`. Few: writers wait for each other anyway."""
        given = {name: value for name, value in _CONNECT.items() if name not in self._url.query}
        self._engine = sa.create_engine(self._url, pool_size=4, max_overflow=12, pool_timeout=BUSY_SECONDS, hide_parameters=True,
                                        connect_args={"autocommit": True, **given},
                                        execution_options={"preserve_rowcount": True})  # of an INSERT too, as with SQLite
        self._engine.dialect.colspecs = {**self._engine.dialect.colspecs, sa.Integer: _Whole}
        event.listen(self._engine, "connect", _prepare)
        event.listen(self._engine, "commit", _refuse_failed)
        return self._engine

    def start(self, connection: sa.Connection) -> None:
        """Begin, and take the lock of writers, in one round trip."""
        mode = connection.get_execution_options().get(MODE, "read")
        if mode != _NONE:
            connection.exec_driver_sql(self._begin[mode])

    def committed(self, mode: Mode) -> None:
        """It is on the server's disk."""

    def version(self) -> int:
        """From the snapshot of now, which changes when any transaction that has written ends. One round trip."""
        try:
            return self._snapshot()
        except exc.DBAPIError as error:
            if error.connection_invalidated:  # it had died in the pool
                return self._snapshot()
            raise

    def _snapshot(self) -> int:
        assert self._engine is not None
        with self._engine.connect().execution_options(**{MODE: _NONE}) as connection:
            return hash(connection.exec_driver_sql("SELECT pg_current_snapshot()::text").scalar())

    def explain(self, error: BaseException) -> DavyError | None:
        """Our error for PostgreSQL's, by its code; errors of connecting have none, and are told by their text."""
        if not isinstance(error, self._error):
            return None
        state, text = getattr(error, "sqlstate", None), str(error).strip().removeprefix("connection failed: ").removeprefix("connection is bad: ")
        return _of_connecting(self.place, text) if state is None else _of_statement(self.place, state, text.splitlines()[0])

    def close(self) -> None:
        """Nothing is left to do."""

    def forget(self) -> None:
        """psycopg itself leaves a parent's connections alone, but complains when one is deleted: keep them."""
        if self._engine is not None:
            _PARENTS.append(self._engine.pool)


class _Whole(sa.BigInteger):
    """Whole numbers are sent as ones of 64 bits also where a table only says that they are whole."""

    render_bind_cast = True


_PARENTS: list[sa.Pool] = []


def _prepare(connection: psycopg.Connection, record: Any) -> None:
    """Set up a new connection. Sums of whole numbers come as `numeric`, which no column of ours is: let them be numbers of Python, as from SQLite."""
    from psycopg.adapt import Loader

    class Number(Loader):
        def load(self, data: Any) -> int | float:
            text = bytes(data)
            return float(text) if b"." in text or b"N" in text else int(text)

    connection.adapters.register_loader("numeric", Number)
    connection.execute(_SESSION)


def _refuse_failed(connection: sa.Connection) -> None:
    """A block that has swallowed an error of the database would be rolled back by its COMMIT without a word."""
    if connection.connection.dbapi_connection.info.transaction_status.name == "INERROR":  # type: ignore[union-attr]
        raise RuntimeError("An error of the database was swallowed inside begin(); put what may fail into connection.begin_nested().")


def _of_statement(place: str, state: str, text: str) -> DavyError:
    again = "Try again."
    if state == "53100":
        return StorageFull(f"{place} can't grow: {text}", "The change was not made; all earlier ones are safe.", "Free space on the server, then try again.")
    if state[:2] == "23":
        return Conflict(f"The change contradicts what is stored: {text}", "", "Read the present state, then try again.")
    if state[:2] in ("22", "54"):
        return InvalidInput(f"A value can't be stored: {text}", "Whole numbers have 64 bits, texts no NUL, and what is looked up by is short.")
    if state in ("55P03", "40001", "40P01"):
        return Unavailable(f"{place} is busy: {text}", "Writers wait for each other.", again)
    if state == "25006":
        return Unavailable(f"{place} is read-only here: {text}", "Writing needs begin(), and a server that is no standby.", "Check the server.")
    if state in ("42501", "3F000"):
        return ConfigError(f"{place} refuses: {text}", "The user may make and change tables in it.", f"GRANT ALL ON SCHEMA public TO the user. {_MEND}")
    return Unavailable(f"{place} failed with {state}: {text}", "", f"Check the server, then t{again[1:]}")


def _of_connecting(place: str, text: str) -> DavyError:
    if "NUL (0x00)" in text:
        return InvalidInput("A text has a NUL character.", "PostgreSQL stores texts without NUL.")
    lines = text.splitlines()
    last = lines[-1].rpartition("FATAL:")[2].strip() if "FATAL:" in text else lines[0]
    if "authentication failed" in text or "no password supplied" in text or "no pg_hba.conf entry" in text:
        return ConfigError(f"{place} refuses to let us in: {last}.", "User and password stand in the URL: postgresql://user:password@host/database.", _MEND)
    if "FATAL:" in text and "does not exist" in text:
        return ConfigError(f"{place} can't be opened: {last}.", "The database and its user are made by hand, the tables by Davy.",
                           f"createdb, or createuser, on the server. Or: {_MEND}")
    return Unavailable(f"{place} can't be reached: {last}.", "", "Check that the server runs, then try again.")
