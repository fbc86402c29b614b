"""The write-ahead log: what is synced stays, what is torn goes, what is damaged is named."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from davy.errors import CorruptData, StorageFull
from davy.store.wal import Wal, read, segment_files


def contents(directory: Path, after: int = 0) -> list[tuple[int, bytes]]:
    return list(read(directory, after))


def test_positions_count_on_over_restarts(tmp_path: Path) -> None:
    wal = Wal(tmp_path)
    assert wal.append([b"a", b""]) == 2
    wal.sync()
    wal.close()
    wal = Wal(tmp_path)
    assert wal.append([b"c"]) == 3
    assert list(wal.replay(1)) == [(2, b""), (3, b"c")]
    wal.close()
    wal.close()


def test_segments_roll_and_are_deleted_whole(tmp_path: Path) -> None:
    wal = Wal(tmp_path, segment_bytes=100)
    for number in range(20):
        wal.append([b"x" * 30 + str(number).encode()])
        wal.sync()
    assert len(segment_files(tmp_path)) > 5
    wal.truncate(11)
    left = contents(tmp_path)
    assert left[0][0] <= 11
    assert left[-1] == (20, b"x" * 30 + b"19")
    assert contents(tmp_path, 15)[0][0] == 16
    wal.truncate(100)
    wal.close()
    wal = Wal(tmp_path)
    assert wal.append([b"y"]) == 21
    wal.close()


@given(cut=st.integers(1, 200))
@settings(max_examples=30, deadline=None)
def test_a_torn_tail_is_cut(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    directory = tmp_path_factory.mktemp("wal")
    wal = Wal(directory)
    for number in range(5):
        wal.append([bytes([number]) * 40])
        wal.sync()
    wal.close()
    [(_, path)] = segment_files(directory)
    os.truncate(path, path.stat().st_size - cut)
    kept = contents(directory)
    assert kept == [(n + 1, bytes([n]) * 40) for n in range(len(kept))]
    wal = Wal(directory)
    assert wal.append([b"next"]) == len(kept) + 1
    wal.close()
    assert contents(directory) == [*kept, (len(kept) + 1, b"next")]


def test_damage_in_the_middle_names_file_and_byte(tmp_path: Path) -> None:
    wal = Wal(tmp_path)
    for number in range(5):
        wal.append([b"%d" % number * 10])
        wal.sync()
    wal.close()
    [(_, path)] = segment_files(tmp_path)
    data = bytearray(path.read_bytes())
    data[8 + 34 + 28] ^= 1
    path.write_bytes(data)
    for attempt in (lambda: Wal(tmp_path), lambda: contents(tmp_path)):
        with pytest.raises(CorruptData, match=rf"{path.name} is damaged at byte {8 + 34}"):
            attempt()


def test_damage_in_an_earlier_segment_is_met_on_replay(tmp_path: Path) -> None:
    wal = Wal(tmp_path, segment_bytes=50)
    for _ in range(6):
        wal.append([b"x" * 60])
    wal.close()
    first = segment_files(tmp_path)[1][1]
    os.truncate(first, first.stat().st_size - 3)
    with pytest.raises(CorruptData, match=first.name):
        contents(tmp_path)
    first.unlink()
    with pytest.raises(CorruptData):
        contents(tmp_path)


def test_a_hole_in_what_was_never_synced_is_a_torn_tail(tmp_path: Path) -> None:
    """After a power loss pages may be missing in any order, but only behind the last sync."""
    wal = Wal(tmp_path)
    wal.append([b"a" * 50])
    wal.sync()
    size = segment_files(tmp_path)[0][1].stat().st_size
    for letter in (b"b", b"c", b"d"):
        wal.append([letter * 50])
    wal.close()
    path = segment_files(tmp_path)[0][1]
    data = bytearray(path.read_bytes())
    data[size : size + 30] = bytes(30)
    path.write_bytes(data)
    wal = Wal(tmp_path)
    assert wal.last == 1
    wal.close()


def test_cut_takes_back(tmp_path: Path) -> None:
    wal = Wal(tmp_path)
    wal.append([b"a"])
    wal.append([b"b", b"c"])
    wal.sync()
    wal.cut(1)
    assert wal.append([b"d"]) == 2
    wal.close()
    assert contents(tmp_path) == [(1, b"a"), (2, b"d")]


def test_what_is_cut_off_is_off_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wal, synced, fsync = Wal(tmp_path), list[int](), os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    wal.append([b"a"])
    wal.sync()
    size = wal.size
    monkeypatch.setattr(os, "fsync", watched)
    wal.append([b"b", b"c"])
    wal.sync()
    synced.clear()
    wal.cut(1)
    assert synced == [size]
    wal.append([b"d"])
    wal.close()
    assert contents(tmp_path) == [(1, b"a"), (2, b"d")]


def test_a_full_disk_takes_nothing_and_is_survived(tmp_path: Path) -> None:
    wal = Wal(tmp_path)
    wal.append([b"kept"])
    wal.sync()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(StorageFull, match="No space"):
            wal.append([b"x" * 500, b"y" * 600])
        assert wal.append([b"small"]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert wal.append([b"z" * 5000]) == 3
    wal.close()
    assert [len(payload) for _, payload in contents(tmp_path)] == [4, 5, 5000]


def test_many_threads_append_and_sync(tmp_path: Path) -> None:
    wal = Wal(tmp_path, segment_bytes=2000)

    def work(number: int) -> None:
        for step in range(50):
            wal.append([b"%d-%d" % (number, step)])
            wal.sync()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wal.close()
    found = contents(tmp_path)
    assert [position for position, _ in found] == list(range(1, 201))
    assert {payload for _, payload in found} == {b"%d-%d" % (n, s) for n in range(4) for s in range(50)}


WRITER = """
import sys
from pathlib import Path
from davy.store.wal import Wal
wal = Wal(Path(sys.argv[1]), segment_bytes=4000)
while True:
    wal.append([b"%08d" % (wal.last + 1) * 20])
    wal.sync()
    print(wal.last, flush=True)
"""


def test_kill_loses_nothing_synced(tmp_path: Path) -> None:
    acknowledged = 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(80):
            acknowledged = int(process.stdout.readline())
        process.kill()
        acknowledged = max([acknowledged, *(int(line) for line in process.stdout.read().splitlines() if len(line) >= len(str(acknowledged)))])
        process.wait()
        process.stdout.close()
    found = contents(tmp_path)
    assert len(found) >= acknowledged
    assert all(payload == b"%08d" % position * 20 for position, payload in found)


def test_no_space_on_device_is_storage_full() -> None:
    from davy.store.wal import _failure

    assert isinstance(_failure(Path("x"), OSError(errno.ENOSPC, "No space left on device")), StorageFull)
