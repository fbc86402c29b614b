"""Lines to PostgreSQL that break at the worst moment, or lead to a machine that is gone."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from davy.errors import Unavailable
from davy.schema import open_database
from davy.store.writer import GroupWriter
from postgres_kit import PASSWORD, Postgres

if TYPE_CHECKING:

    from davy.store.database import Database

COUNTER = sa.text("UPDATE traffic SET revision = revision + 1")


def _count(database: Database) -> int:
    with database.read() as connection:
        return int(connection.scalar(sa.text("SELECT revision FROM traffic")))


class Cut:
    """A line to the server that breaks once: after the server has got the word, and before its answer comes back."""

    def __init__(self, port: int, word: bytes) -> None:
        self._port, self._word = port, word
        self.armed, self.broken = False, threading.Event()  # `broken`: the next answer does not come
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._port))
            self._sockets += (client, server)
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(source, target, source is client), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, asks: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if asks and self.armed and self._word in data:
                    self.armed = False
                    self.broken.set()
                if self.broken.is_set() and not asks:
                    self.broken.clear()
                    break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for end in self._sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def test_a_commit_whose_answer_is_lost_is_not_done_again(postgres: Postgres, name: str) -> None:
    line = Cut(postgres.port, b"COMMIT")
    database = open_database(postgres.url(name, password=PASSWORD).replace(str(postgres.port), str(line.port)))
    with database.begin() as connection:
        connection.execute(sa.text("INSERT INTO traffic (model, revision, weights, updated, actor) VALUES ('m', 0, '{}', 0, 'tester')"))
    writer, started, free = GroupWriter(database, lazy=True), threading.Event(), threading.Event()

    def hold(connection: sa.Connection) -> None:
        started.set()
        assert free.wait(30)

    def count(connection: sa.Connection) -> None:
        connection.execute(COUNTER)
        line.armed = True

    held = writer.submit(hold)
    assert started.wait(30)
    waiting = [writer.submit(count) for _ in range(3)]
    free.set()
    held.result(30)
    for future in waiting:
        with pytest.raises(Unavailable):
            future.result(30)
    assert _count(database) == 3
    assert writer.submit(lambda connection: connection.scalar(sa.text("SELECT revision FROM traffic"))).result(30) == 3
    writer.close()
    database.close()
    line.close()


def test_either_side_notices_when_the_other_is_gone(postgres: Postgres, name: str) -> None:
    """Else the server would keep the writers' lock for a machine that lost its power, and a client wait for such a server, for hours."""
    database = open_database(postgres.url(name, password=PASSWORD))
    with database.read() as connection:
        found = {setting: connection.exec_driver_sql(f"SHOW {setting}").scalar() for setting in ("tcp_keepalives_idle", "tcp_keepalives_interval",
                                                                                                "tcp_keepalives_count", "tcp_user_timeout")}
        driver = connection.connection.driver_connection
        with socket.socket(fileno=os.dup(driver.fileno())) as line:
            patience = line.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert found == {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3", "tcp_user_timeout": "60000"}
    assert patience == 60_000
    database.close()
