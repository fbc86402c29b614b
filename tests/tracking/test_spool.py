"""Spools: each has one writer and at most one sender, and nothing of it goes before it is noted as sent."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from davy.errors import Unavailable
from davy.tracking.sending import send, send_all
from davy.tracking.spool import Backlog, Created, Ended, Head, Kept, Record, Spool, spools

if TYPE_CHECKING:
    from pathlib import Path

HEAD = Head("a" * 32, "late", "http://127.0.0.1:9")


class Taking:
    """Takes all records; a disk that is full afterwards, if asked for, is a folder where the note of what was sent should go."""

    pause = 0.0

    def __init__(self, *, full: bool = False) -> None:
        self.files: list[bytes] = []
        self.statuses: list[str] = []
        self._full = full

    def take(self, backlog: Backlog, record: Record) -> None:
        if isinstance(record, Kept):
            self.files.append(backlog.file(record).read_bytes())
            if self._full:
                (backlog.path / "sent.new").mkdir()
        if isinstance(record, Ended):
            self.statuses.append(record.status)

    def close(self) -> None:
        return


def _spool(folder: Path) -> Spool:
    spool = Spool(folder, HEAD)
    spool.append(Created("Default", "late", "ada", 0, {}, {}))
    spool.append(Kept("a.txt", spool.keep(b"kept")))
    spool.append(Ended("FINISHED", 5))
    return spool


def test_a_file_stays_until_it_is_noted_as_sent(tmp_path: Path) -> None:
    spool = _spool(tmp_path)
    with pytest.raises(Unavailable, match="sent"):
        send(Backlog(spool.path), Taking(full=True))
    spool.close(remove=False)
    (spool.path / "sent.new").rmdir()
    receiver = Taking()
    assert send_all(spool.path, receiver) == []
    assert (receiver.files, receiver.statuses, list(tmp_path.iterdir())) == ([b"kept"], ["FINISHED"], [])


def test_many_make_spools_of_one_run_at_once(tmp_path: Path) -> None:
    made: list[Path] = []
    start = threading.Barrier(8)

    def make() -> None:
        start.wait()
        for _ in range(5):
            spool = Spool(tmp_path, HEAD)
            made.append(spool.path)
            spool.close(remove=False)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), sorted(made)) == (40, spools(tmp_path))


def test_a_spool_that_can_not_be_made_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    before = len(os.listdir("/proc/self/fd"))
    for folder in (tmp_path / "file", tmp_path):
        with pytest.raises(Unavailable):
            Spool(folder, Head("b" * 300, "late"))
    assert (len(os.listdir("/proc/self/fd")), [path.name for path in tmp_path.iterdir()]) == (before, ["file"])
