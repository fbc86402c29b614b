"""Many write at once: one commit for all that waits, a fault for him alone whose it is, and no answer before the commit."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from databases import open_at, url_of
from davy.errors import Conflict, InvalidInput, Unavailable
from davy.schema import open_database
from davy.schema.tables import experiments
from davy.store import journal
from davy.store.database import after_commit
from davy.store.writer import GroupWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from davy.home import Home
    from davy.store.database import Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_at(tmp_path / "davy.db")
    yield opened
    opened.close()


def _insert(connection: sa.Connection, name: str) -> str:
    connection.execute(sa.insert(experiments).values(name=name, artifact_location="", lifecycle_stage="active", creation_time=0, last_update_time=0))
    return name


def _names(database: Database) -> set[str]:
    with database.read() as connection:
        return set(connection.scalars(sa.select(experiments.c.name)))


class Held:
    """A piece of work that keeps the writer busy until it is let go, so that what comes meanwhile is written together."""

    def __init__(self, writer: GroupWriter) -> None:
        self.started, self.free = threading.Event(), threading.Event()
        self.future = writer.submit(self._wait)
        assert self.started.wait(10)

    def _wait(self, connection: sa.Connection) -> None:
        self.started.set()
        assert self.free.wait(10)


@pytest.mark.parametrize("lazy", [True, False])
def test_all_are_written_and_each_hears_of_his_own(database: Database, lazy: bool) -> None:
    writer = GroupWriter(database, lazy=lazy)
    found = [writer.submit(lambda connection, name=f"e{i}": _insert(connection, name)) for i in range(300)]
    assert [future.result(30) for future in found] == [f"e{i}" for i in range(300)]
    writer.close()
    assert _names(database) >= {f"e{i}" for i in range(300)}


def test_what_waits_together_is_committed_together(database: Database) -> None:
    writer = GroupWriter(database, lazy=True)
    commits: list[sa.Connection] = []
    sa.event.listen(database._engine, "commit", commits.append)
    held = Held(writer)
    waiting = [writer.submit(lambda connection, name=f"e{i}": _insert(connection, name)) for i in range(20)]
    held.free.set()
    for future in waiting:
        future.result(30)
    assert len(commits) == 2
    writer.close()


def test_a_fault_is_his_alone_and_leaves_nothing_of_his(database: Database) -> None:
    writer = GroupWriter(database, lazy=True)
    held = Held(writer)

    def half(connection: sa.Connection) -> None:
        _insert(connection, "half")
        raise InvalidInput("no")

    good, bad, twice, last = (writer.submit(lambda connection: _insert(connection, "good")), writer.submit(half),
                              writer.submit(lambda connection: _insert(connection, "good")), writer.submit(lambda connection: _insert(connection, "last")))
    held.free.set()
    assert good.result(30) == "good"
    assert last.result(30) == "last"
    with pytest.raises(InvalidInput, match="no"):
        bad.result(30)
    with pytest.raises(Conflict):
        twice.result(30)
    writer.close()
    assert {"good", "last"} <= _names(database)
    assert "half" not in _names(database)


def test_a_closed_writer_has_written_all_and_takes_no_more(database: Database) -> None:
    writer = GroupWriter(database, lazy=True)
    last = writer.submit(lambda connection: _insert(connection, "last"))
    writer.close()
    writer.close()
    assert last.done()
    assert "last" in _names(database)
    with pytest.raises(Unavailable):
        writer.submit(lambda connection: _insert(connection, "late"))


def test_what_was_answered_survives_kill_9(tmp_path: Path) -> None:
    program = """
        import os, signal, sys
        import sqlalchemy as sa
        from davy.schema import open_database
        from davy.schema.tables import experiments
        from davy.store.writer import GroupWriter
        writer = GroupWriter(open_database(sys.argv[1]), lazy=True)
        for i in range(50):
            writer.submit(lambda c: c.execute(sa.insert(experiments).values(
                name=f"e{i}", artifact_location="", lifecycle_stage="active", creation_time=0, last_update_time=0)) and None).result()
            os.write(1, f"e{i} ".encode())
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program), url_of(tmp_path / "davy.db")], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    assert len(done.stdout.split()) == 50
    database = open_at(tmp_path / "davy.db")
    assert set(done.stdout.split()) <= _names(database)
    database.close()


def test_a_piece_that_fails_announces_nothing(home: Home) -> None:
    writer = GroupWriter(home.database, lazy=True)
    started, go = threading.Event(), threading.Event()
    told: list[str] = []

    def hold(connection: sa.Connection) -> None:
        started.set()
        assert go.wait(30)

    def work(name: str, fails: bool) -> None:
        def piece(connection: sa.Connection) -> None:
            journal.append(connection, clock=home.clock, actor="ada", action="test.piece", subject=name, details={})
            after_commit(connection, lambda: told.append(name))
            if fails:
                raise InvalidInput(name)
        futures.append(writer.submit(piece))

    futures = [writer.submit(hold)]
    assert started.wait(30)
    for name, fails in (("a", False), ("b", True), ("c", False), ("d", True)):
        work(name, fails)
    go.set()
    for future, fails in zip(futures, (False, False, True, False, True), strict=True):
        if fails:
            with pytest.raises(InvalidInput):
                future.result(30)
        else:
            future.result(30)
    writer.close()
    assert told == ["a", "c"]
    with home.database.read() as connection:
        assert [entry.subject for entry in journal.entries(connection)] == ["c", "a"]
        assert journal.verify(connection).broken is None


def test_a_panic_takes_neither_its_neighbours_nor_the_writer_along(database: Database) -> None:
    class Panic(BaseException):
        """What a library of Rust raises where it has a bug."""

    def panics(connection: sa.Connection) -> None:
        raise Panic

    writer = GroupWriter(database, lazy=True)
    held = Held(writer)
    good, bad = writer.submit(lambda connection: _insert(connection, "good")), writer.submit(panics)
    held.free.set()
    assert good.result(30) == "good"
    with pytest.raises(Panic):
        bad.result(30)
    assert writer.submit(lambda connection: _insert(connection, "after")).result(30) == "after"
    writer.close()


@pytest.mark.sqlite("it locks the file")
def test_a_lock_that_stays_is_waited_for_once_by_all(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'locked.db'}")
    database.close()
    tried: list[object] = []
    sa.event.listen(database._engine, "connect", lambda driver, _: driver.execute("PRAGMA busy_timeout=200"))
    sa.event.listen(database._engine, "checkout", lambda driver, *_: tried.append(driver))
    other = sqlite3.connect(tmp_path / "locked.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writer = GroupWriter(database, lazy=True)
    waiting = [writer.submit(lambda connection, name=f"e{i}": _insert(connection, name)) for i in range(30)]
    for future in waiting:
        with pytest.raises(Unavailable, match="locked by another process"):
            future.result(30)
    assert len(tried) <= 2
    other.execute("ROLLBACK")
    assert writer.submit(lambda connection: _insert(connection, "free")).result(30) == "free"
    other.close()
    writer.close()
    database.close()


def test_the_writer_of_a_parent_refuses_its_forked_child(database: Database) -> None:
    writer = GroupWriter(database, lazy=True)
    child = os.fork()
    if child == 0:
        try:
            writer.submit(lambda connection: None)
        except Unavailable:
            writer.close()
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    writer.close()
