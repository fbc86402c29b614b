"""Many pieces in one transaction: what one of them takes back, it takes back whole."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from davy.errors import InvalidInput
from davy.store import journal
from davy.store.database import after_commit
from davy.store.writer import GroupWriter

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from davy.home import Home


def test_a_piece_that_fails_announces_nothing(home: Home) -> None:
    writer = GroupWriter(home.database, lazy=True)
    started, go = threading.Event(), threading.Event()
    told: list[str] = []

    def hold(connection: Connection) -> None:
        started.set()
        assert go.wait(30)

    def work(name: str, fails: bool) -> None:
        def piece(connection: Connection) -> None:
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
