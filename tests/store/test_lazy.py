"""A lazy commit outlives kill -9 at once and is on the disk soon after, of its own accord."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from davy.errors import InvalidInput, Unavailable
from davy.schema import open_database
from davy.store.database import Database
from davy.store.writer import GroupWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

START = sa.text("INSERT INTO traffic (model, revision, weights, updated, actor) VALUES ('m', 0, '{}', 0, 'tester')")
COUNTER = sa.text("UPDATE traffic SET revision = revision + 1")
LONG = 20.0
_CACHESTAT = 451


def _unwritten(path: Path) -> int:
    """How many pages of the file only the operating system holds, says the kernel: dirty ones and those on their way."""
    libc = ctypes.CDLL(None, use_errno=True)
    whole, counts = (ctypes.c_uint64 * 2)(0, 0), (ctypes.c_uint64 * 5)()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if libc.syscall(_CACHESTAT, descriptor, ctypes.byref(whole), ctypes.byref(counts), 0) != 0:
            pytest.skip("this kernel has no cachestat (Linux 6.5)")
    finally:
        os.close(descriptor)
    return int(counts[1] + counts[2])


@pytest.fixture
def database(tmp_path: Path) -> Database:
    opened = open_database(tmp_path / "davy.db")
    with opened.begin() as connection:
        connection.execute(START)
    yield opened
    opened.close()


@pytest.fixture
def log(database: Database, tmp_path: Path) -> Path:
    """The write-ahead file, on a disk that has something to write to."""
    path = tmp_path / "davy.db-wal"
    probe = tmp_path / "probe"
    probe.write_bytes(b"x" * 8192)
    if not _unwritten(probe):
        pytest.skip("the folder for temporary files lies in memory")
    return path


def _count(database: Database) -> int:
    with database.read() as connection:
        return int(connection.scalar(sa.text("SELECT revision FROM traffic")))


def test_the_disk_is_not_waited_for_and_reached_by_itself(database: Database, log: Path) -> None:
    seen = 0
    for _ in range(20):
        with database.begin(lazy=True) as connection:
            connection.execute(COUNTER)
        seen = max(seen, _unwritten(log))
    assert seen > 0
    deadline = time.monotonic() + LONG
    while _unwritten(log):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_durable_commit_takes_the_lazy_ones_before_it_along(database: Database, log: Path) -> None:
    for lazy in (True, True, False):
        with database.begin(lazy=lazy) as connection:
            connection.execute(COUNTER)
    assert _unwritten(log) == 0


def test_closing_brings_the_rest_to_the_disk(database: Database, log: Path, tmp_path: Path) -> None:
    other = open_database(tmp_path / "davy.db")
    assert _count(other) == 0
    with database.begin(lazy=True) as connection:
        connection.execute(COUNTER)
    database.close()
    assert log.exists()
    assert _unwritten(log) == 0
    with database.begin(lazy=True) as connection:
        connection.execute(COUNTER)
    assert _count(other) == 2
    database.close()
    other.close()


def test_the_end_of_a_process_that_closes_nothing_brings_the_rest_to_the_disk(database: Database, log: Path, tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
import sqlalchemy as sa
from davy.schema import open_database
with open_database(Path(sys.argv[1])).begin(lazy=True) as connection:
    connection.execute(sa.text("UPDATE traffic SET revision = 7"))
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "davy.db")], check=True)
    assert _unwritten(log) == 0
    assert _count(database) == 7


def test_what_is_committed_after_all_else_has_ended_is_on_the_disk(database: Database, log: Path, tmp_path: Path) -> None:
    program = """
import atexit
def last():
    with database.begin(lazy=True) as connection:
        connection.execute(sa.text("UPDATE traffic SET revision = 7"))
atexit.register(last)  # before anybody else, so that it is called after all others
import sys
from pathlib import Path
import sqlalchemy as sa
from davy.schema import open_database
database = open_database(Path(sys.argv[1]))
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "davy.db")], check=True)
    assert _unwritten(log) == 0
    assert _count(database) == 7


def test_a_lazy_commit_outlives_kill(database: Database, tmp_path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
import sqlalchemy as sa
from davy.schema import open_database
with open_database(Path(sys.argv[1])).begin(lazy=True) as connection:
    connection.execute(sa.text("UPDATE traffic SET revision = 7"))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path / "davy.db")], check=False).returncode == -9
    assert _count(database) == 7


def test_each_transaction_has_the_durability_that_it_asked_for(database: Database) -> None:
    found = []
    for lazy in (False, True, False, True, True):
        with database.begin(lazy=lazy) as connection:
            found.append(connection.scalar(sa.text("PRAGMA synchronous")))
    assert found == [2, 1, 2, 1, 1]


def test_threads_and_savepoints(database: Database) -> None:
    def work() -> None:
        for number in range(20):
            with database.begin(lazy=number % 2 == 0) as connection:
                with connection.begin_nested():
                    connection.execute(COUNTER)
                with connection.begin_nested() as undone:
                    connection.execute(COUNTER)
                    undone.rollback()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _count(database) == 80


def test_a_forked_child_has_a_thread_of_its_own(database: Database) -> None:
    with database.begin(lazy=True) as connection:
        connection.execute(COUNTER)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with database.begin(lazy=True) as connection:
                connection.execute(COUNTER)
            database.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert _count(database) == 2


def test_a_sync_that_fails_is_told(database: Database) -> None:
    with database.begin(lazy=True) as connection:
        connection.execute(COUNTER)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(Unavailable, match="could not be brought to the disk"):
            database.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    with database.begin(lazy=True) as connection:
        connection.execute(COUNTER)
    assert _count(database) == 2


@contextmanager
def _no_file_can_be_opened() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def _failed(database: Database) -> None:
    """Return once a sync could not begin."""
    deadline = time.monotonic() + LONG
    while database._backend._syncer._late is None:  # type: ignore[attr-defined]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_sync_that_could_not_begin_is_tried_again_without_a_further_commit(database: Database, log: Path) -> None:
    with database.begin(lazy=True) as connection:
        connection.execute(COUNTER)
    with _no_file_can_be_opened():
        _failed(database)
    deadline = time.monotonic() + LONG
    while _unwritten(log):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_durable_commit_does_not_hide_a_sync_that_has_failed(database: Database) -> None:
    with database.begin(lazy=True) as connection:
        connection.execute(COUNTER)
    with _no_file_can_be_opened():
        _failed(database)
        with pytest.raises(Unavailable, match="could not be brought to the disk"), database.begin() as connection:
            connection.execute(COUNTER)
    assert _count(database) == 1


def test_a_group_hears_of_a_sync_that_has_failed(database: Database) -> None:
    writer, started, free = GroupWriter(database, lazy=True), threading.Event(), threading.Event()

    def hold(connection: sa.Connection) -> None:
        started.set()
        assert free.wait(LONG)

    writer.submit(lambda connection: connection.execute(COUNTER) and None).result(LONG)
    held = writer.submit(hold)
    assert started.wait(LONG)
    with _no_file_can_be_opened():
        _failed(database)
        waiting = [writer.submit(lambda connection: connection.execute(COUNTER) and None) for _ in range(3)]
        free.set()
        held.result(LONG)
        for future in waiting:
            with pytest.raises(Unavailable, match="could not be brought to the disk"):
                future.result(LONG)
    assert _count(database) == 1
    writer.close()


def test_a_number_beyond_64_bits_is_bad_input(database: Database) -> None:
    with pytest.raises(InvalidInput, match="too large"), database.begin() as connection:
        connection.execute(sa.text("UPDATE traffic SET revision = :revision"), {"revision": 1 << 63})
    with pytest.raises(OverflowError), database.begin():
        float(10 ** 400)
