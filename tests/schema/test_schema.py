"""The migrations make exactly the tables that the code speaks, on every database that it is meant for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from davy.core.clock import SystemClock
from davy.schema import HEAD, MIGRATIONS, open_database
from davy.schema.tables import metadata

if TYPE_CHECKING:
    from collections.abc import Iterator

    from davy.store.database import Database


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path_factory.mktemp('schema') / 'davy.db'}")
    yield opened
    opened.close()


def _statements(connection: sa.Connection) -> dict[str, list[str]]:
    """Each table and index as SQLite keeps it: its parts without regard to their order."""
    rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name <> 'alembic_version'")
    return {name: sorted(re.sub(r"\s+", " ", part).strip() for part in re.split(r",\s*\n", sql.replace("(\n", "(,\n").replace("\n)", ",\n)")))
            for name, sql in rows}


def test_migrations_lead_to_the_metadata(migrated: Database) -> None:
    with migrated.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_migrations_and_metadata_make_the_same_statements(migrated: Database) -> None:
    fresh = sa.create_engine("sqlite://")
    metadata.create_all(fresh)
    with migrated.read() as connection, fresh.connect() as other:
        assert _statements(connection) == _statements(other)
    fresh.dispose()


def test_the_head_that_the_fast_check_compares_is_the_last_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_traffic_of_the_first_schema_stays_what_it_was(tmp_path: Path) -> None:
    from alembic import command

    from davy.serving.traffic import Traffic, read_traffic

    path, config = tmp_path / "old.db", Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql("""INSERT INTO traffic VALUES ('late', 3, '{"late@1":0.9,"late@2":0.1}', 42, 'ada')""")
    engine.dispose()
    opened = open_database(f"sqlite:///{path}")
    with opened.read() as connection:
        assert read_traffic(connection) == [Traffic("late", 3, {"late@1": 0.9, "late@2": 0.1}, 42, "ada", "", None, None)]
    opened.close()


def test_opening_an_up_to_date_database_does_not_need_alembic(migrated: Database) -> None:
    import subprocess
    import sys

    program = "import sys; from davy.schema import open_database; open_database(sys.argv[1]).close(); print('alembic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, f"sqlite:///{migrated.path}"], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("table", metadata.sorted_tables, ids=lambda table: table.name)
def test_every_table_can_be_made_in_postgresql(table: sa.Table) -> None:
    dialect = postgresql.dialect()
    text = str(CreateTable(table).compile(dialect=dialect))
    assert "WITHOUT ROWID" not in text
    for index in table.indexes:
        assert str(CreateIndex(index).compile(dialect=dialect))
        assert len(str(index.name)) <= 63


def test_the_first_experiment_is_there(migrated: Database) -> None:
    with migrated.read() as connection:
        assert connection.execute(sa.text("SELECT experiment_id, name, lifecycle_stage FROM experiments")).all() == [(0, "Default", "active")]
        born, changed = connection.execute(sa.text("SELECT creation_time, last_update_time FROM experiments")).one()
        assert born == changed
        assert abs(born - SystemClock().now() // 1000) < 600_000


def test_what_alembic_reads_is_beside_the_code() -> None:
    assert (MIGRATIONS / "env.py").is_file()
    assert (MIGRATIONS / "script.py.mako").is_file()
    assert sorted(path.stem for path in (Path(MIGRATIONS) / "versions").glob("[0-9]*.py"))[-1].startswith(HEAD)


@pytest.mark.parametrize(("query", "index"), [
    ("SELECT data FROM metric_chunks WHERE run_id = 'r' AND key = 'loss' ORDER BY number", "PRIMARY KEY"),
    ("SELECT * FROM latest_metrics WHERE key = 'auc' AND is_nan = 0 ORDER BY value DESC LIMIT 10", "ix_latest_metrics_order"),
    ("SELECT * FROM latest_metrics WHERE key = 'auc' AND lowest < 0.5 ORDER BY lowest, run_id LIMIT 10", "ix_latest_metrics_lowest"),
    ("SELECT * FROM latest_metrics WHERE key = 'auc' AND highest > 0.5 ORDER BY highest DESC LIMIT 10", "ix_latest_metrics_highest"),
    ("SELECT * FROM latest_metrics WHERE key = 'auc' AND last_is_nan = 0 AND last > 0.5 ORDER BY last, run_id LIMIT 10", "ix_latest_metrics_last"),
    ("SELECT * FROM runs WHERE experiment_id = 1 AND lifecycle_stage = 'active' ORDER BY start_time DESC LIMIT 10", "ix_runs_recent"),
    ("SELECT version FROM aliases WHERE name = 'late' AND alias = 'production'", "PRIMARY KEY"),
    ("SELECT run_id FROM tags WHERE key = 'mlflow.parentRunId' AND value = 'r' AND length(value) <= 100", "ix_tags_value"),
    ("SELECT run_id FROM params WHERE key = 'p' AND value IN ('a', 'b') AND length(value) <= 100", "ix_params_value"),
    ("SELECT * FROM journal WHERE subject = 'late' ORDER BY seq DESC LIMIT 10", "ix_journal_subject"),
])
def test_the_frequent_questions_are_answered_from_an_index(migrated: Database, query: str, index: str) -> None:
    with migrated.read() as connection:
        plan = " ".join(row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}"))
    assert index in plan
    assert "TEMP B-TREE" not in plan
