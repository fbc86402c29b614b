"""Databases of earlier releases, opened by this one: nothing is lost, and nobody has to stop for it.

Each file in old/ is the whole database of a release, named by the revision of its schema, with its journal.heads beside it. A
release adds one; these tests need no change for it.
"""

from __future__ import annotations

import gzip
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from davy.cli.main import run
from davy.home import Home
from davy.schema import HEAD
from davy.store import journal
from davy.tracking.history import metric_history

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.sqlite("these are files of SQLite")
OLD = sorted((Path(__file__).parent / "old").glob("*.db.gz"))
SECONDS = 60


@pytest.fixture(params=OLD, ids=[path.name.split(".")[0] for path in OLD])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A project whose home was left by the earlier release."""
    root = tmp_path / "shop"
    (root / ".davy").mkdir(parents=True)
    (root / "davy.toml").write_text('project = "shop"\n')
    (root / ".davy" / "davy.db").write_bytes(gzip.decompress(request.param.read_bytes()))
    shutil.copy(request.param.with_name(request.param.name.replace(".db.gz", ".heads")), root / ".davy" / journal.HEADS)
    return root


def _content(root: Path) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables, as SQLite itself reads them."""
    with closing(sqlite3.connect(root / ".davy" / "davy.db")) as connection:
        connection.row_factory = sqlite3.Row
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")]
        return {name: [dict(row) for row in connection.execute(f"SELECT * FROM {name}")] for name in names if name != "alembic_version"}


@pytest.fixture
def before(root: Path) -> dict[str, list[dict[str, Any]]]:
    return _content(root)


@pytest.fixture
def home(root: Path, before: object) -> Iterator[Home]:
    opened = Home(root)
    yield opened
    opened.close()


def _counted(rows: list[dict[str, Any]], columns: list[str]) -> Counter[str]:
    return Counter(repr([row[column] for column in columns]) for row in rows)


def test_the_old_database_is_worth_testing(before: dict[str, list[dict[str, Any]]]) -> None:
    assert all(before.values())
    assert len(before["journal"]) > 10


def test_every_row_of_every_table_is_still_there(root: Path, before: dict[str, list[dict[str, Any]]], home: Home) -> None:
    with home.database.read() as connection:
        assert connection.scalar(sa.text("SELECT version_num FROM alembic_version")) == HEAD
    after = _content(root)
    for table, rows in before.items():
        if table == "metrics" and table not in after:
            continue  # packed elsewhere; the next test asks for each point
        columns = [column for column in rows[0] if column in after[table][0]]
        assert columns == list(rows[0]), table
        assert _counted(rows, columns) <= _counted(after[table], columns), table


def test_every_point_of_every_curve_is_still_there(before: dict[str, list[dict[str, Any]]], home: Home) -> None:
    curves: dict[tuple[str, str], list[str]] = {}
    for row in before.get("metrics", ()):
        point = (row["step"], row["timestamp"] * 1000, "nan" if row["is_nan"] else str(row["value"]))
        curves.setdefault((row["run_id"], row["key"]), []).append(repr(point))
    with home.database.read() as connection:
        for (run_id, key), points in curves.items():
            found = metric_history(connection, run_id, key)
            assert sorted(map(repr, zip(found.steps, found.times, map(str, found.values), strict=True))) == sorted(points)


def test_the_chain_is_whole_and_goes_on(before: dict[str, list[dict[str, Any]]], home: Home) -> None:
    last = max(before["journal"], key=lambda row: row["seq"])
    with home.database.read() as connection:
        found = journal.verify(connection, expected=last["digest"])
        assert (found.broken, found.entries >= last["seq"]) == (None, True)
    with home.database.begin() as connection:
        assert journal.append(connection, clock=home.clock, actor="ada", action="x.y", subject="s", details={}) == found.entries + 1
    with home.database.read() as connection:
        assert journal.verify(connection, expected=last["digest"]).entries == found.entries + 1


def test_the_commands_read_it(root: Path, before: dict[str, list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]) -> None:
    for verb in (["audit"], ["runs", "--json"], ["status", "--json"]):
        assert run(["--project", str(root), *verb]) == 0
    shown = capsys.readouterr().out
    assert all(row["run_id"] in shown for row in before["runs"] if row["lifecycle_stage"] == "active")


NEW = """
import sys
from pathlib import Path
from davy.home import Home
from davy.store import journal
from davy.tracking import runs
root, run_id, name = sys.argv[1:]
sys.stdin.readline()
home = Home(Path(root))
for number in range(15):
    with home.database.begin() as connection:
        runs.log_params(connection, run_id, {f"{name} {number}": number})
        journal.append(connection, clock=home.clock, actor=name, action="x.y", subject="s", details={"number": number})
home.close()
"""


class _OldProcess(threading.Thread):
    """Writes what the earlier release would, one small transaction after the other."""

    def __init__(self, root: Path, run_id: str) -> None:
        super().__init__()
        self.root, self.run_id, self.kept, self.done = root, run_id, 0, threading.Event()
        self.begun = threading.Event()

    def run(self) -> None:
        with closing(sqlite3.connect(self.root / ".davy" / "davy.db", timeout=SECONDS, isolation_level=None)) as connection:
            while not self.done.is_set():
                connection.execute("INSERT INTO tags (run_id, \"key\", value) VALUES (?, ?, 'x')", (self.run_id, f"old {self.kept}"))
                self.kept += 1
                self.begun.set()
                self.done.wait(0.002)


def test_processes_that_open_it_at_once_and_one_of_the_earlier_release_all_go_on(root: Path, before: dict[str, list[dict[str, Any]]]) -> None:
    run_id = next(row["run_id"] for row in before["runs"] if row["lifecycle_stage"] == "active")
    with closing(sqlite3.connect(root / ".davy" / "davy.db")) as reader:
        reader.execute("PRAGMA journal_mode = WAL")
        old = _OldProcess(root, run_id)
        old.start()
        try:
            assert old.begun.wait(SECONDS)
            reader.execute("BEGIN")
            seen = reader.execute("SELECT count(*) FROM tags").fetchone()
            starting = [subprocess.Popen([sys.executable, "-c", NEW, str(root), run_id, name], stdin=subprocess.PIPE) for name in ("ann", "bob", "eve")]
            for process in starting:
                process.communicate(b"\n", SECONDS)
            assert [process.returncode for process in starting] == [0, 0, 0]
            assert reader.execute("SELECT count(*) FROM tags").fetchone() == seen
            reader.execute("COMMIT")
        finally:
            old.done.set()
            old.join()
    after = _content(root)
    assert {row["key"] for row in after["tags"] if row["run_id"] == run_id} >= {f"old {number}" for number in range(old.kept)}
    assert {row["key"] for row in after["params"] if row["run_id"] == run_id} >= {f"{name} {number}" for name in ("ann", "bob", "eve") for number in range(15)}
    opened = Home(root)
    with opened.database.read() as connection:
        found = journal.verify(connection)
    opened.close()
    assert (found.entries, found.broken) == (len(before["journal"]) + 45, None)
