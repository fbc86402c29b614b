"""Databases of earlier releases, opened by this one: nothing is lost, and nobody has to stop for it.

Each file in old/ is the whole database of a release, named by the revision of its schema, with its journal.heads beside it. A
release adds one; these tests need no change for it.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
import threading
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from davy.cli.main import run
from davy.home import Home
from davy.schema import HEAD, MIGRATIONS
from davy.store import journal
from davy.tracking.history import metric_history
from postgres_kit import server

if TYPE_CHECKING:
    from collections.abc import Iterator

OLD = {path.name.split(".")[0]: path for path in sorted((Path(__file__).parent / "old").glob("*.db.gz"))}
SECONDS = 60
Content = dict[str, list[dict[str, Any]]]


_FILLED: dict[str, str] = {}


def _driven(name: str) -> str:
    return server().url(name).replace("postgresql:", "postgresql+psycopg:")


class Old:
    """A project whose home was left by the earlier release."""

    def __init__(self, root: Path, revision: str, kind: str) -> None:
        self.root, self.revision, self.kind = root, revision, kind
        file = root / ".davy" / "davy.db"
        file.parent.mkdir(parents=True)
        file.write_bytes(gzip.decompress(OLD[revision].read_bytes()))
        shutil.copy(OLD[revision].with_name(f"{revision}.heads"), file.with_name(journal.HEADS))
        self.url, settings = f"sqlite:///{file}", 'project = "shop"\n'
        if kind == "postgres":
            if revision not in _FILLED:
                rows, _FILLED[revision] = self.content(), server().empty()
                self.url = _driven(_FILLED[revision])
                self._fill(rows)
            self.name = server().copy(_FILLED[revision])
            self.url = _driven(self.name)
            settings += f'[storage]\ndatabase = "{server().url(self.name)}"\n'
            file.unlink()
        (root / "davy.toml").write_text(settings)

    @contextmanager
    def connected(self) -> Iterator[sa.Connection]:
        """As if Davy did not exist."""
        engine = sa.create_engine(self.url, connect_args={"timeout": SECONDS} if self.kind == "sqlite" else {})
        with engine.connect() as connection:
            yield connection
        engine.dispose()

    def content(self) -> Content:
        """All rows of all tables."""
        with self.connected() as connection:
            found = sa.MetaData()
            found.reflect(connection)
            return {table.name: [dict(row._mapping) for row in connection.execute(sa.select(table))] for table in found.sorted_tables
                    if table.name != "alembic_version"}

    def _fill(self, rows: Content) -> None:
        """The same rows in a database of the earlier release on PostgreSQL."""
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.set_main_option("path_separator", "os")
        with self.connected() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, self.revision)
            made = sa.MetaData()
            made.reflect(connection)
            connection.exec_driver_sql("DELETE FROM experiments")
            for table in made.sorted_tables:
                if rows.get(table.name):
                    connection.execute(sa.insert(table), rows[table.name])
            connection.exec_driver_sql("SELECT setval(pg_get_serial_sequence('experiments', 'experiment_id'), max(experiment_id)) FROM experiments")
            connection.commit()


@pytest.fixture(params=[(revision, kind) for revision in OLD for kind in ("sqlite", "postgres")], ids="-".join)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Old]:
    made = Old(tmp_path / "shop", *request.param)
    yield made
    if made.kind == "postgres":
        server().drop(made.name)


@pytest.fixture
def before(old: Old) -> Content:
    return old.content()


@pytest.fixture
def home(old: Old, before: Content) -> Iterator[Home]:
    opened = Home(old.root)
    yield opened
    opened.close()


def _counted(rows: list[dict[str, Any]], columns: list[str]) -> Counter[str]:
    return Counter(repr([row[column] for column in columns]) for row in rows)


def test_the_old_database_is_worth_testing(before: Content) -> None:
    assert all(before.values())
    assert len(before["journal"]) > 10


def test_every_row_of_every_table_is_still_there(old: Old, before: Content, home: Home) -> None:
    with home.database.read() as connection:
        assert connection.scalar(sa.text("SELECT version_num FROM alembic_version")) == HEAD
    after = old.content()
    for table, rows in before.items():
        if table == "metrics" and table not in after:
            continue  # packed elsewhere; the next test asks for each point
        columns = [column for column in rows[0] if column in after[table][0]]
        assert columns == list(rows[0]), table
        assert _counted(rows, columns) <= _counted(after[table], columns), table


def test_every_point_of_every_curve_is_still_there(before: Content, home: Home) -> None:
    curves: dict[tuple[str, str], list[str]] = {}
    for row in before.get("metrics", ()):
        point = (row["step"], row["timestamp"] * 1000, "nan" if row["is_nan"] else str(row["value"]))
        curves.setdefault((row["run_id"], row["key"]), []).append(repr(point))
    with home.database.read() as connection:
        for (run_id, key), points in curves.items():
            found = metric_history(connection, run_id, key)
            assert sorted(map(repr, zip(found.steps, found.times, map(str, found.values), strict=True))) == sorted(points)


def test_the_chain_is_whole_and_goes_on(before: Content, home: Home) -> None:
    last = max(before["journal"], key=lambda row: row["seq"])
    with home.database.read() as connection:
        found = journal.verify(connection, expected=last["digest"])
        assert (found.broken, found.entries >= last["seq"]) == (None, True)
    with home.database.begin() as connection:
        assert journal.append(connection, clock=home.clock, actor="ada", action="x.y", subject="s", details={}) == found.entries + 1
    with home.database.read() as connection:
        assert journal.verify(connection, expected=last["digest"]).entries == found.entries + 1


def test_the_commands_read_it(old: Old, before: Content, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in (["audit"], ["runs", "--json"], ["status", "--json"]):
        assert run(["--project", str(old.root), *verb]) == 0
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

    def __init__(self, old: Old, run_id: str) -> None:
        super().__init__()
        self.old, self.run_id, self.kept = old, run_id, 0
        self.begun, self.done = threading.Event(), threading.Event()

    def run(self) -> None:
        statement = sa.text("INSERT INTO tags (run_id, key, value) VALUES (:run, :key, 'x')")
        with self.old.connected() as connection:
            while not self.done.is_set():
                connection.execute(statement, {"run": self.run_id, "key": f"old {self.kept}"})
                connection.commit()
                self.kept += 1
                self.begun.set()
                self.done.wait(0.002)


def test_processes_that_open_it_at_once_and_one_of_the_earlier_release_all_go_on(old: Old, before: Content) -> None:
    run_id = next(row["run_id"] for row in before["runs"] if row["lifecycle_stage"] == "active")
    if old.kind == "sqlite":
        with old.connected() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    writing = _OldProcess(old, run_id)
    writing.start()
    try:
        assert writing.begun.wait(SECONDS)
        starting = [subprocess.Popen([sys.executable, "-c", NEW, str(old.root), run_id, name], stdin=subprocess.PIPE) for name in ("ann", "bob", "eve")]
        for process in starting:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
        for process in starting:
            process.communicate(timeout=SECONDS)
        assert [process.returncode for process in starting] == [0, 0, 0]
    finally:
        writing.done.set()
        writing.join()
    after = old.content()
    assert {row["key"] for row in after["tags"] if row["run_id"] == run_id} >= {f"old {number}" for number in range(writing.kept)}
    assert {row["key"] for row in after["params"] if row["run_id"] == run_id} >= {f"{name} {number}" for name in ("ann", "bob", "eve") for number in range(15)}
    opened = Home(old.root)
    with opened.database.read() as connection:
        found = journal.verify(connection)
    opened.close()
    assert (found.entries, found.broken) == (len(before["journal"]) + 45, None)


def test_a_reader_keeps_its_snapshot_while_the_tables_change(old: Old, before: Content) -> None:
    if old.kind == "postgres":
        pytest.skip("PostgreSQL changes a table only when nobody reads it; reads are short")
    with old.connected() as reader:
        reader.exec_driver_sql("PRAGMA journal_mode = WAL")
        reader.exec_driver_sql("BEGIN")
        assert reader.exec_driver_sql("SELECT count(*) FROM runs").scalar() == len(before["runs"])
        opened = Home(old.root)
        with opened.database.begin() as connection:
            connection.execute(sa.text("DELETE FROM tags"))
        opened.close()
        assert reader.exec_driver_sql("SELECT count(*) FROM tags").scalar() == len(before["tags"])
