"""One database, many processes: real files, real kills, a really full disk."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from databases import url_of
from davy.errors import ConfigError, Conflict, CorruptData, StorageFull, Unavailable
from davy.schema import open_database
from davy.store.database import Database, after_commit, insert
from store.disk import small_disk

COUNTER = sa.text("UPDATE traffic SET revision = revision + 1 WHERE model = 'm'")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "davy.db"


@pytest.fixture
def url(path: Path) -> str:
    return url_of(path)


@pytest.fixture
def database(url: str) -> Database:
    opened = open_database(url)
    yield opened
    opened.close()


def _run(program: str, *arguments: object) -> None:
    """Another process carries out the program to its end."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


SEVERAL = """
import os, sys

def several(count, work):
    children = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work()
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * count
"""


def _counter(database: Database) -> int:
    with database.read() as connection:
        return int(connection.scalar(sa.text("SELECT revision FROM traffic WHERE model = 'm'")))


def _start_counter(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(sa.text("INSERT INTO traffic (model, revision, weights, updated, actor) VALUES ('m', 0, '{}', 0, 'tester')"))


def test_processes_that_open_a_new_database_at_once_all_find_it_whole(path: Path) -> None:
    _run(SEVERAL + """
from davy.schema import open_database
import davy.store.database

def work():
    database = open_database(sys.argv[1])
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM experiments").scalar() == 1

several(6, work)
""", url_of(path, empty=True))


def test_eight_processes_write_at_once_and_none_is_refused(url: str, database: Database) -> None:
    _start_counter(database)
    _run(SEVERAL + """
import sqlalchemy as sa
from davy.schema import open_database
database = open_database(sys.argv[1])

def work():
    for _ in range(25):
        with database.begin() as connection:
            found = connection.scalar(sa.text("SELECT revision FROM traffic WHERE model = 'm'"))
            connection.execute(sa.text("UPDATE traffic SET revision = :next WHERE model = 'm'"), {"next": found + 1})

several(8, work)
""", url)
    assert _counter(database) == 200


def test_threads_share_one_database(database: Database) -> None:
    _start_counter(database)

    def work() -> None:
        for _ in range(20):
            with database.begin() as connection:
                connection.execute(COUNTER)
            assert _counter(database) > 0

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _counter(database) == 160


def test_kill_in_the_middle_of_a_transaction_leaves_only_what_was_committed(url: str, database: Database) -> None:
    _start_counter(database)
    program = """
import sys, time
import sqlalchemy as sa
from davy.schema import open_database
database = open_database(sys.argv[1])
with database.begin() as connection:
    connection.execute(sa.text("UPDATE traffic SET revision = 1"))
with database.begin() as connection:
    connection.execute(sa.text("UPDATE traffic SET revision = 2"))
    print("in", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program, url], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "in\n"
        child.kill()
    assert _counter(database) == 1
    with database.begin() as connection:
        connection.execute(COUNTER)
    assert _counter(database) == 2


def test_a_block_that_raises_changes_nothing_and_calls_nothing_back(database: Database) -> None:
    called: list[str] = []

    def failing() -> None:
        with database.begin() as connection:
            connection.execute(sa.text("INSERT INTO traffic (model, revision, weights, updated, actor) VALUES ('m', 0, '{}', 0, 'tester')"))
            after_commit(connection, lambda: called.append("rolled back"))
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    with database.begin() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM traffic")) == 0
        after_commit(connection, lambda: called.append("committed"))
        assert called == []
    assert called == ["committed"]


def test_a_transaction_inside_a_transaction_is_refused_at_once(database: Database) -> None:
    with database.begin(), pytest.raises(RuntimeError, match="wait for itself"):
        database.begin().__enter__()
    _start_counter(database)


def test_a_reader_sees_one_state_and_cannot_write(database: Database) -> None:
    _start_counter(database)
    with database.read() as reader:
        assert reader.scalar(sa.text("SELECT revision FROM traffic")) == 0
        with database.begin() as writer:
            writer.execute(COUNTER)
        assert reader.scalar(sa.text("SELECT revision FROM traffic")) == 0
    with pytest.raises(Unavailable, match=r"read-?only"), database.read() as reader:
        reader.execute(COUNTER)
    assert _counter(database) == 1


def test_the_version_changes_when_anybody_commits(url: str, database: Database) -> None:
    _start_counter(database)
    before = database.version()
    assert _counter(database) == 0
    assert database.version() == before
    other = open_database(url)
    with other.begin() as connection:
        connection.execute(sa.text("UPDATE traffic SET revision = 9"))
    other.close()
    assert database.version() != before
    assert _counter(database) == 9
    before = database.version()
    with database.begin() as own:
        own.execute(COUNTER)
    assert database.version() != before


@pytest.mark.sqlite("the disk is the server's")
def test_a_full_disk_is_told_and_everything_committed_stays(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small") as disk:
        database = open_database(f"sqlite:///{disk.folder / 'davy.db'}")
        _start_counter(database)
        rows = [{"model": f"m{number}", "weights": "x" * 100_000} for number in range(64)]
        with disk.full(), pytest.raises(StorageFull, match="can't grow"), database.begin() as connection:
            connection.execute(sa.text("INSERT INTO traffic (model, revision, weights, updated, actor) VALUES (:model, 0, :weights, 0, 'tester')"), rows)
        assert _counter(database) == 0
        with database.begin() as connection:
            connection.execute(COUNTER)
            assert connection.scalar(sa.text("SELECT count(*) FROM traffic")) == 1
        assert _counter(database) == 1
        database.close()


@pytest.mark.sqlite("the file is the server's")
def test_a_damaged_file_is_named(path: Path, database: Database) -> None:
    _start_counter(database)
    database.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    data = bytearray(path.read_bytes())
    for start in range(4096, len(data), 4096):
        data[start:start + 64] = b"\xa5" * 64
    path.write_bytes(data)
    with pytest.raises(CorruptData, match=r"davy\.db is damaged"), database.read() as reader:
        reader.execute(sa.text("SELECT * FROM traffic")).all()
    path.write_bytes(b"not a database at all" * 400)
    with pytest.raises(CorruptData):
        open_database(f"sqlite:///{path}")


def test_a_schema_from_the_future_is_refused(url: str, database: Database) -> None:
    with database.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Conflict, match="9999"):
        open_database(url)


@pytest.mark.parametrize("url", ["", "davy.db", "sqlite://", "sqlite:///:memory:", "oracle://host/x", "mysql://user:secret@host/x",
                                 "postgresql:/user:secret@host/x", "postgresql://user:secret@host"])
def test_a_url_that_is_no_database_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_database(url)
    assert "secret" not in str(caught.value)


def test_a_folder_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can't be made"):
        open_database(f"sqlite:///{tmp_path / 'file' / 'davy.db'}")


def test_a_broken_constraint_is_a_conflict(database: Database) -> None:
    _start_counter(database)
    with pytest.raises(Conflict, match=r"(?i)unique"):
        _start_counter(database)


def test_insert_can_overwrite(database: Database) -> None:
    from davy.schema.tables import traffic

    for revision in (1, 2):
        with database.begin() as connection:
            row = {"model": "m", "revision": revision, "weights": "{}", "updated": 0, "actor": "tester"}
            connection.execute(insert(connection, traffic).values(row).on_conflict_do_update(index_elements=["model"], set_={"revision": revision}))
    assert _counter(database) == 2


def test_the_first_thing_that_a_connection_does_may_be_to_read(path: Path, url: str, database: Database) -> None:
    database.close()
    again = Database(url, head="", migrations=path.parent)
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"read-?only"), again.read() as reader:
            reader.execute(COUNTER)
    again.close()
