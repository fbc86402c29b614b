"""The chain, and everything that somebody with a SQL prompt could do to it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from databases import ON_POSTGRES, open_at
from davy.core.clock import DrivenClock, SystemClock
from davy.store import journal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from davy.store.database import Database

ROWS = 6
COLUMNS = ("seq", "time", "actor", "action", "subject", "details", "previous", "digest")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    if not ON_POSTGRES:
        _filled(folder).close()
    return folder


def _filled(folder: Path) -> Database:
    opened = open_at(folder / "davy.db")
    clock = DrivenClock(folder / "clock", start=1_000_000)
    for number in range(1, ROWS + 1):
        clock.set(number * 1_000_000)
        with opened.begin() as connection:
            assert _append(connection, clock, number) == number
    return opened


@pytest.fixture
def database(template: Path, tmp_path: Path) -> Iterator[Database]:
    if ON_POSTGRES:
        opened = _filled(tmp_path)
    else:
        for name in ("davy.db", journal.HEADS):
            shutil.copy(template / name, tmp_path)
        opened = open_at(tmp_path / "davy.db")
    yield opened
    opened.close()


def _append(connection: object, clock: DrivenClock, number: int) -> int:
    return journal.append(connection, clock=clock, actor="ada", action="alias.set", subject="late", details={"version": number, "ü": [1.5, None]})  # type: ignore[arg-type]


def _verify(database: Database, expected: str | None = None) -> journal.Audit:
    with database.read() as connection:
        return journal.verify(connection, expected=expected)


def _sql(database: Database, *statements: str) -> None:
    with database.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


@pytest.fixture
def heads(tmp_path: Path) -> Path:
    return tmp_path / journal.HEADS


def test_an_untouched_chain_is_whole(database: Database) -> None:
    found = _verify(database)
    assert (found.entries, found.broken, found.cause) == (ROWS, None, None)
    with database.read() as connection:
        newest = journal.entries(connection)[0]
    assert found.head == newest.digest
    assert (newest.seq, newest.time, newest.actor, newest.details) == (ROWS, ROWS * 1_000_000, "ada", {"version": ROWS, "ü": [1.5, None]})
    assert _verify(database, newest.previous).broken is None


def test_an_empty_journal_is_whole(tmp_path: Path) -> None:
    opened = open_at(tmp_path / "davy.db")
    assert _verify(opened) == journal.Audit(0, journal.GENESIS)
    opened.close()


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("seq", [1, 3, ROWS])
def test_an_edit_of_any_column_of_any_entry_is_found(database: Database, column: str, seq: int) -> None:
    changed = f"{column} + 100" if column in ("seq", "time") else f"upper({column})"
    _sql(database, f"UPDATE journal SET {column} = {changed} WHERE seq = {seq}")
    assert _verify(database).broken == seq


@pytest.mark.sqlite("PostgreSQL's columns have types")
def test_a_time_turned_into_text_is_found(database: Database) -> None:
    _sql(database, "UPDATE journal SET time = 'noon' WHERE seq = 2", "UPDATE journal SET details = NULL || x'00' WHERE 0")
    assert _verify(database).broken == 2


@pytest.mark.parametrize("seq", range(1, ROWS + 1))
def test_a_deleted_entry_is_found_also_the_last(database: Database, seq: int) -> None:
    _sql(database, f"DELETE FROM journal WHERE seq = {seq}")
    assert _verify(database).broken == seq


def test_entries_cut_off_the_end_are_counted(database: Database) -> None:
    _sql(database, "DELETE FROM journal WHERE seq > 2")
    found = _verify(database)
    assert (found.entries, found.broken) == (2, 3)
    assert "4 entries at the end are missing" in str(found.cause)


def test_two_entries_that_changed_places_are_found(database: Database) -> None:
    _sql(database, "UPDATE journal SET seq = 100 WHERE seq = 2", "UPDATE journal SET seq = 2 WHERE seq = 3", "UPDATE journal SET seq = 3 WHERE seq = 100")
    assert _verify(database).broken == 2


def test_a_chain_that_was_computed_anew_is_found_by_its_heads_or_by_a_head_kept_elsewhere(database: Database, heads: Path, tmp_path: Path) -> None:
    kept = _verify(database).head
    _sql(database, "DELETE FROM journal WHERE seq >= 4")
    forged = DrivenClock(tmp_path / "forged", start=9)
    noted = heads.read_text()
    with database.begin() as connection:
        _append(connection, forged, 99)
    heads.write_text(noted)
    assert _verify(database).broken == 4
    heads.unlink()
    assert _verify(database).broken is None
    assert _verify(database, kept).broken is not None


def test_what_a_crash_or_a_full_disk_does_to_the_heads_accuses_nobody(database: Database, heads: Path) -> None:
    text = heads.read_text()
    heads.write_text(text[:-30])
    assert _verify(database).broken is None
    heads.unlink()
    heads.mkdir()
    with database.begin() as connection:
        _append(connection, DrivenClock(heads.with_name("later"), start=7), 7)
    heads.rmdir()
    assert _verify(database) == journal.Audit(ROWS + 1, _verify(database).head)


def test_a_change_that_is_rolled_back_leaves_neither_entry_nor_head(database: Database, heads: Path) -> None:
    before = heads.read_text()
    clock = DrivenClock(heads.with_name("later"), start=7)

    def failing() -> None:
        with database.begin() as connection:
            _append(connection, clock, 7)
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert heads.read_text() == before
    assert _verify(database).entries == ROWS


def test_several_entries_of_one_transaction_are_all_chained(database: Database, heads: Path) -> None:
    clock = DrivenClock(heads.with_name("later"), start=7)
    with database.begin() as connection:
        assert [_append(connection, clock, number) for number in range(3)] == [ROWS + 1, ROWS + 2, ROWS + 3]
    assert _verify(database).entries == ROWS + 3
    _sql(database, f"DELETE FROM journal WHERE seq = {ROWS + 3}")
    assert _verify(database).broken == ROWS + 3


def test_a_reader_that_looks_from_an_older_snapshot_accuses_nobody(database: Database, heads: Path) -> None:
    clock = DrivenClock(heads.with_name("later"), start=7)
    with database.read() as reader:
        assert len(journal.entries(reader)) == ROWS
        with database.begin() as connection:
            _append(connection, clock, 7)
        assert journal.verify(reader).broken is None


def test_entries_are_found_by_subject_action_and_page(database: Database, heads: Path) -> None:
    clock = DrivenClock(heads.with_name("later"), start=7)
    with database.begin() as connection:
        journal.append(connection, clock=clock, actor="bob", action="traffic.set", subject="other", details={})
    with database.read() as connection:
        assert [entry.subject for entry in journal.entries(connection, limit=2)] == ["other", "late"]
        assert [entry.seq for entry in journal.entries(connection, subject="late", before=4)] == [3, 2, 1]
        assert [entry.actor for entry in journal.entries(connection, action="traffic.set")] == ["bob"]
        assert len(journal.entries(connection, action="alias.")) == ROWS
        assert journal.entries(connection, action="alias") == []


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    opened = open_at(tmp_path_factory.mktemp("several") / "davy.db")
    yield opened
    opened.close()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_details_of_any_shape_come_back_and_verify(several: Database, data: st.DataObject) -> None:
    texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    values = st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
                          lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6)
    details = data.draw(st.dictionaries(texts, values, max_size=4))
    with several.begin() as connection:
        journal.append(connection, clock=SystemClock(), actor="ada", action="x.y", subject="s", details=details)
    with several.read() as connection:
        assert journal.entries(connection)[0].details == details
        assert journal.verify(connection).broken is None
