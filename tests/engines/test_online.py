"""The contract of online stores over both of ours, and what only LMDB promises: a full disk, an unsynced end of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from davy.engines.online.contract import OnlineStoreContract, SharedStoreContract
from davy.engines.online.lmdb import LmdbStore
from davy.engines.online.memory import MemoryStore
from davy.errors import StorageFull, Unavailable
from store.disk import small_disk


def in_memory(folder: Path) -> MemoryStore:
    return MemoryStore()


class TestMemory(OnlineStoreContract):
    opener = staticmethod(in_memory)


class TestLmdb(SharedStoreContract):
    opener = staticmethod(LmdbStore)


def put(store: LmdbStore, key: bytes, value: bytes, table: str = "t") -> None:
    with store.transaction() as transaction:
        transaction.put(table, key, value)


def get(store: LmdbStore, key: bytes, table: str = "t") -> bytes | None:
    with store.snapshot() as snapshot:
        return snapshot.get(table, key)


def test_a_store_of_the_same_folder_is_the_same_store(tmp_path: Path) -> None:
    first, second = LmdbStore(tmp_path), LmdbStore(tmp_path / ".." / tmp_path.name)
    put(first, b"k", b"v")
    assert get(second, b"k") == b"v"
    first.close()
    assert get(second, b"k") == b"v"
    second.close()
    with pytest.raises(Unavailable, match="closed"):
        second.snapshot()
    with pytest.raises(Unavailable, match="closed"):
        first.transaction()


def test_a_synced_store_has_no_marker(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    put(store, b"k", b"v")
    assert (tmp_path / "unsynced").exists()
    store.sync()
    assert not (tmp_path / "unsynced").exists()
    put(store, b"k", b"w")
    assert (tmp_path / "unsynced").exists()
    store.close()
    assert not (tmp_path / "unsynced").exists()


def test_the_marker_stands_while_any_process_has_unsynced_writes(tmp_path: Path) -> None:
    """Another process that syncs removes the marker; the next write here sets it anew."""
    store = LmdbStore(tmp_path)
    put(store, b"ours", b"1")
    code = f"""
from pathlib import Path
from davy.engines.online.lmdb import LmdbStore
store = LmdbStore(Path({str(tmp_path)!r}))
with store.transaction() as transaction:
    transaction.put("t", b"theirs", b"1")
store.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not (tmp_path / "unsynced").exists(), "everything is on disk"
    put(store, b"ours", b"2")
    assert (tmp_path / "unsynced").exists()
    assert [get(store, b"ours"), get(store, b"theirs")] == [b"2", b"1"]
    store.close()


def test_writes_that_the_machine_may_have_lost_are_forgotten(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    put(store, b"k", b"v")
    store.close()
    (tmp_path / "unsynced").write_text("another start of the machine\n")
    store = LmdbStore(tmp_path)
    assert store.tables() == []
    assert not (tmp_path / "unsynced").exists()
    put(store, b"k", b"w")
    store.close()
    store = LmdbStore(tmp_path)
    assert get(store, b"k") == b"w"
    store.close()


def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    """Its writes are the operating system's: the marker names this start of the machine, so they are kept."""
    code = f"""
import os, signal
from pathlib import Path
from davy.engines.online.lmdb import LmdbStore
store = LmdbStore(Path({str(tmp_path)!r}))
for number in range(50):
    with store.transaction() as transaction:
        transaction.put("t", b"n", b"%d" % number)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert (tmp_path / "unsynced").exists()
    store = LmdbStore(tmp_path)
    assert get(store, b"n") == b"49"
    store.close()


def fill(store: Any, size: int = 200_000) -> None:
    for number in range(1000):
        with store.transaction() as transaction:
            transaction.put("big", b"%d" % number, os.urandom(size))


def test_a_full_disk_is_said_so_and_loses_nothing(tmp_path: Path) -> None:
    """Where no small disk can be mounted, a limit on the size of files stands in for it."""
    with small_disk(tmp_path / "disk", "8m") as disk:
        store = LmdbStore(disk.folder / "online")
        put(store, b"k", b"v")
        put(store, b"more", os.urandom(100_000))
        with disk.full(), pytest.raises(StorageFull, match="could not write") as caught:
            fill(store)
        assert caught.value.retry
        assert "Free disk space" in caught.value.fix
        assert get(store, b"k") == b"v"
        put(store, b"k", b"w")
        assert get(store, b"k") == b"w"
        store.close()
        store = LmdbStore(disk.folder / "online")
        assert get(store, b"k") == b"w"
        store.close()


LIMITED = """
import os, resource, sys
from pathlib import Path
from davy.engines.online.lmdb import LmdbStore
from davy.errors import StorageFull
store = LmdbStore(Path(sys.argv[1]))
with store.transaction() as transaction:
    transaction.put("t", b"k", b"v")
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 30))
taken = 0
try:
    for number in range(1000):
        with store.transaction() as transaction:
            transaction.put("big", b"%d" % number, os.urandom(50_000))
            transaction.put("marks", b"n", b"%d" % number)
        taken = number
except StorageFull as error:
    print("full", error.came)
with store.snapshot() as snapshot:
    assert snapshot.get("t", b"k") == b"v"
    assert snapshot.get("marks", b"n") == b"%d" % taken
    assert snapshot.get("big", b"%d" % taken) is not None
    assert snapshot.get("big", b"%d" % (taken + 1)) is None
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
with store.transaction() as transaction:
    transaction.put("big", b"again", os.urandom(50_000))
store.close()
"""


def test_a_file_that_may_not_grow_is_a_full_disk(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("full The online store could not write")
    store = LmdbStore(tmp_path)
    assert get(store, b"again", "big") is not None
    store.close()


def test_a_disk_that_is_full_from_the_start(tmp_path: Path) -> None:
    """It is an error, and not the end of the process, whose table of readers is a mapped file."""
    with small_disk(tmp_path / "disk", "1m") as disk:
        with disk.full(), pytest.raises(StorageFull):
            LmdbStore(disk.folder / "online")
        store = LmdbStore(disk.folder / "online")
        put(store, b"k", b"v")
        store.close()


def test_readers_come_while_the_disk_is_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        store = LmdbStore(disk.folder / "online")
        put(store, b"k", b"v")
        with disk.full(), ExitStack() as open_snapshots:
            snapshots = [open_snapshots.enter_context(store.snapshot()) for _ in range(300)]
            assert all(snapshot.get("t", b"k") == b"v" for snapshot in snapshots)
        store.close()


MAKING = """
import sys
import threading
from pathlib import Path
from davy.engines.online.lmdb import LmdbStore
store = LmdbStore(Path(sys.argv[1]))
for number in range(150):
    with store.transaction() as transaction:
        transaction.put(f"t{number % 30}", b"key", b"value")
        if number % 7 == 0:
            transaction.drop(f"t{(number + 3) % 30}")
store.close()
"""


def test_tables_may_come_and_go_in_another_process_while_several_threads_read(tmp_path: Path) -> None:
    store, trouble = LmdbStore(tmp_path), []

    def read() -> None:
        try:
            while writer.poll() is None:
                with store.snapshot() as snapshot:
                    assert {snapshot.get(f"t{number}", b"key") for number in range(30)} <= {None, b"value"}
        except Exception as error:  # noqa: BLE001 - a thread's error must reach the test
            trouble.append(error)

    writer = subprocess.Popen([sys.executable, "-c", MAKING, str(tmp_path)])
    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (writer.wait(), trouble) == (0, [])
    assert 25 <= len(store.tables()) <= 30
    store.close()
