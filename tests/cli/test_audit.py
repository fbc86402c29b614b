"""`davy audit` says in its exit code whether the journal is as it was written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from davy.cli.main import run
from davy.store import journal

if TYPE_CHECKING:
    from davy.home import Home


def _audit(home: Home, *arguments: str) -> int:
    return run(["--project", str(home.root), "audit", *arguments])


@pytest.fixture
def head(home: Home) -> str:
    for number in range(4):
        with home.database.begin() as connection:
            journal.append(connection, clock=home.clock, actor="ada", action="alias.set", subject="late", details={"version": number})
    with home.database.read() as connection:
        return journal.verify(connection).head


def _sql(home: Home, statement: str) -> None:
    with home.database.begin() as connection:
        connection.exec_driver_sql(statement)


def test_a_whole_chain(home: Home, head: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _audit(home) == 0
    assert capsys.readouterr().out == f"4 entries, all as they were written\nhead {head}\n"
    assert _audit(home, "--json", "--expect", head) == 0
    assert json.loads(capsys.readouterr().out) == {"entries": 4, "head": head, "broken": None, "cause": None}


def test_an_edited_entry_is_named(home: Home, head: str, capsys: pytest.CaptureFixture[str]) -> None:
    _sql(home, "UPDATE journal SET actor = 'eve' WHERE seq = 3")
    assert _audit(home) == 1
    assert "broken at entry 3" in capsys.readouterr().err
    assert _audit(home, "--json") == 1
    assert json.loads(capsys.readouterr().out)["broken"] == 3


def test_a_tail_that_is_missing_together_with_its_heads_needs_a_noted_head(home: Home, head: str) -> None:
    _sql(home, "DELETE FROM journal WHERE seq = 4")
    assert _audit(home) == 1
    (home.path / journal.HEADS).unlink()
    assert _audit(home) == 0
    assert _audit(home, "--expect", head) == 1


def test_an_empty_journal(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert _audit(home) == 0
    assert capsys.readouterr().out.startswith("0 entries")
