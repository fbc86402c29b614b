"""A PostgreSQL of our own, from Debian's package: started when the first test asks for it, one fresh database a test."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

USER = "davy"
PASSWORD = "open/sesame@"


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    beside = shutil.which("initdb")
    if beside is None:
        pytest.fail("PostgreSQL is not installed. Install it and try again: sudo apt-get install postgresql")
    return Path(beside).parent


class Postgres:
    """A running server. Its databases order texts as English does, so that what needs the order of bytes has to say so."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="davy-postgres-"))
        self._as_user: dict[str, int | list[int]] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            account = pwd.getpwnam("postgres")
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            self._as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._number = 0
        self._template = ""
        data = self.folder / "data"
        (self.folder / "password").write_text(PASSWORD)
        self._do("initdb", "--pgdata", data, "--username", USER, "--pwfile", self.folder / "password", "--auth-local", "trust", "--auth-host", "scram-sha-256",
                 "--encoding", "UTF8", "--locale", "C.UTF-8", "--locale-provider", "icu", "--icu-locale", "en-US", "--no-sync")
        with (data / "postgresql.conf").open("a") as file:
            file.write(f"listen_addresses = '127.0.0.1'\nport = {self.port}\nunix_socket_directories = '{self.folder}'\nautovacuum = off\n"
                       "max_connections = 300\nshared_buffers = 32MB\nmax_wal_size = 256MB\nfsync = off\nfull_page_writes = off\n")
        self.start()

    def owned(self, folder: Path) -> None:
        """Let the server write there."""
        if self._as_user:
            os.chown(folder, self._as_user["user"], self._as_user["group"])  # type: ignore[arg-type]

    def start(self) -> None:
        self._do("pg_ctl", "--pgdata", self.folder / "data", "--log", self.folder / "log", "--wait", "start")

    def stop(self, mode: str = "immediate") -> None:
        self._do("pg_ctl", "--pgdata", self.folder / "data", "--wait", "--mode", mode, "stop")

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def url(self, database: str, *, user: str = USER, password: str | None = None) -> str:
        """Over the socket, where everybody is trusted; with a password over loopback."""
        if password is None:
            return f"postgresql://{user}@/{database}?host={self.folder}&port={self.port}"
        return sa.URL.create("postgresql", user, password, "127.0.0.1", self.port, database).render_as_string(hide_password=False)

    def sql(self, *statements: str, database: str = "postgres") -> None:
        """Outside a transaction."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def empty(self) -> str:
        """The name of a new database that nobody has opened."""
        self._number += 1
        name = f"d{self._number}"
        self.sql(f"CREATE DATABASE {name}")
        return name

    def fresh(self) -> str:
        """The name of a new database that has our schema."""
        from davy.schema import open_database

        if not self._template:
            template = self.empty()
            open_database(self.url(template)).close()
            self._template = template
        return self.copy(self._template)

    def copy(self, template: str) -> str:
        """The name of a new database that has all that is in this one, to which nobody is connected."""
        self._number += 1
        name = f"d{self._number}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _do(self, program: str, *arguments: object) -> None:
        command = [str(_programs() / program), *map(str, arguments)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, check=False, cwd="/",
                              close_fds=True, **self._as_user)  # type: ignore[call-overload]
        assert done.returncode == 0, done.stdout


@cache
def server() -> Postgres:
    """The one server of this run of the tests."""
    made, me = Postgres(), os.getpid()
    atexit.register(lambda: made.remove() if os.getpid() == me else None)
    return made
