"""Following a write-ahead log while it is written, rolled and cleared away: each record once, and none from the middle of being written."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from davy.store.wal import MAGIC, Tail, Wal, segment_files

if TYPE_CHECKING:
    from pathlib import Path


def payload(number: int) -> bytes:
    return f"record {number}".encode() * (number % 7 + 1)


def test_each_record_comes_once_also_over_many_segments(tmp_path: Path) -> None:
    wal, tail, found = Wal(tmp_path, segment_bytes=200), Tail(tmp_path), []
    for number in range(1, 200):
        wal.append([payload(number)])
        if number % 3 == 0:
            found += tail.read()
    found += tail.read()
    assert found == [(number, payload(number)) for number in range(1, 200)]
    assert len(segment_files(tmp_path)) > 10
    assert tail.read() == []
    assert not tail.missed
    tail.close()
    wal.close()


def test_it_begins_after_a_position_and_before_there_is_a_log(tmp_path: Path) -> None:
    early = Tail(tmp_path)
    assert early.read() == []
    wal = Wal(tmp_path)
    wal.append([payload(number) for number in range(1, 10)])
    late = Tail(tmp_path, 6)
    assert [position for position, _ in late.read()] == [7, 8, 9]
    assert len(early.read()) == 9
    early.close()
    late.close()
    wal.close()


@pytest.mark.parametrize("cut", [1, 7, 8, 20, 31, 33])
def test_half_a_record_waits_for_its_other_half(tmp_path: Path, cut: int) -> None:
    source = tmp_path / "source"
    wal = Wal(source)
    wal.append([b"one", b"two", b"three"])
    wal.close()
    (_, whole), = segment_files(source)
    data, copy = whole.read_bytes(), tmp_path / "copy"
    copy.mkdir()
    path, tail, found = copy / whole.name, Tail(copy), []
    for end in (*range(cut, len(data), cut), len(data)):
        path.write_bytes(data[:end])
        found += tail.read()
    assert found == [(1, b"one"), (2, b"two"), (3, b"three")]
    tail.close()


def test_what_is_open_is_read_to_its_end_when_the_log_is_removed(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    wal, tail = Wal(directory), Tail(directory)
    wal.append([b"one"])
    assert len(tail.read()) == 1
    wal.append([b"two"])
    wal.close()
    shutil.rmtree(directory)
    assert tail.read() == [(2, b"two")]
    tail.close()


def test_segments_that_went_unread_are_noticed(tmp_path: Path) -> None:
    wal, tail = Wal(tmp_path, segment_bytes=64), Tail(tmp_path)
    for number in range(1, 10):
        wal.append([payload(number)])
    wal.truncate(wal.last)
    assert tail.read()[-1][0] == 9
    assert tail.missed
    tail.close()
    wal.close()


def test_an_empty_file_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / f"{1:020d}.wal"
    path.write_bytes(b"")
    tail = Tail(tmp_path)
    assert tail.read() == []
    path.write_bytes(MAGIC + os.urandom(40))
    assert tail.read() == []
    tail.close()
