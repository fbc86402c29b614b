"""What PostgreSQL does in its own way, against a real server: its errors, its locks, its restarts."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa

from davy.core.clock import SystemClock
from davy.errors import ConfigError, Conflict, InvalidInput, MissingExtra, StorageFull, Unavailable
from davy.schema import open_database
from davy.store import journal
from davy.store.database import Database, insert
from davy.store.postgres import WRITERS, PostgresBackend
from postgres_kit import PASSWORD, Postgres
from server_kit import until
from store.disk import small_disk

if TYPE_CHECKING:
    from collections.abc import Iterator

INSERT = sa.text("INSERT INTO traffic (model, revision, weights, updated, actor) VALUES (:model, :revision, '{}', 0, 'tester')")
COUNTER = sa.text("UPDATE traffic SET revision = revision + 1")


@pytest.fixture
def database(postgres: Postgres, name: str, tmp_path: Path) -> Iterator[Database]:
    opened = open_database(postgres.url(name), folder=tmp_path)
    yield opened
    opened.close()


def _start(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(INSERT, {"model": "m", "revision": 0})


def _count(database: Database) -> int:
    with database.read() as connection:
        return int(connection.scalar(sa.text("SELECT revision FROM traffic WHERE model = 'm'")))


def _fails(url: str) -> Any:
    with pytest.raises((ConfigError, Unavailable)) as caught:
        open_database(url)
    assert "sesame" not in str(caught.value)
    return caught.value


def test_a_password_is_taken_from_the_url(postgres: Postgres, name: str) -> None:
    open_database(postgres.url(name, password=PASSWORD)).close()
    open_database(postgres.url(name, password=PASSWORD).replace("postgresql:", "postgres:")).close()


@pytest.mark.parametrize(("parts", "kind", "text"), [
    ({"password": "open sesame?"}, ConfigError, "password authentication failed"),
    ({"user": "nobody", "password": "open sesame?"}, ConfigError, "authentication failed"),
    ({"user": "nobody"}, ConfigError, "does not exist"),
    ({"database": "nothing"}, ConfigError, 'database "nothing" does not exist'),
])
def test_what_keeps_us_out_is_told_without_the_password(postgres: Postgres, name: str, parts: dict[str, str], kind: type[Exception], text: str) -> None:
    error = _fails(postgres.url(**{"database": name, **parts}))
    assert isinstance(error, kind)
    assert text in error.came
    assert "storage.database" in error.fix


def test_a_server_that_is_not_there_may_come_back(postgres: Postgres, name: str) -> None:
    error = _fails(f"postgresql://davy:sesame@127.0.0.1:1/{name}")
    assert error.retry
    assert "can't be reached" in error.came


def test_a_user_who_may_not_make_tables_is_told(postgres: Postgres) -> None:
    made = postgres.empty()
    postgres.sql("DROP ROLE IF EXISTS guest", "CREATE ROLE guest LOGIN", "REVOKE ALL ON SCHEMA public FROM public", database=made)
    assert "may make and change tables" in _fails(postgres.url(made, user="guest")).allowed
    postgres.drop(made)


def test_the_missing_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ImportError('not installed')")
    program = """
from davy.errors import MissingExtra
from davy.schema import open_database
try:
    open_database("postgresql://davy@nowhere/x")
except MissingExtra as error:
    print(error.fix)
"""
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True)
    assert done.stdout == "pip install 'davy[postgres]'\n"
    assert MissingExtra.exit_code == 3


def test_processes_that_open_a_new_database_at_once_make_it_once(postgres: Postgres, tmp_path: Path) -> None:
    made = postgres.empty()
    program = "import sys; sys.stdin.readline(); from davy.schema import open_database; open_database(sys.argv[1]).close()"
    starting = [subprocess.Popen([sys.executable, "-c", program, postgres.url(made)], stdin=subprocess.PIPE) for _ in range(3)]
    for process in starting:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    for process in starting:
        process.communicate(timeout=60)
    assert [process.returncode for process in starting] == [0] * 3
    opened = open_database(postgres.url(made))
    with opened.read() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM experiments")) == 1
    opened.close()
    postgres.drop(made)


def test_threads_write_one_after_the_other_and_the_chain_has_no_gap(database: Database) -> None:
    _start(database)

    def work(actor: int) -> None:
        for number in range(15):
            with database.begin(lazy=number % 2 == 0) as connection:
                found = connection.scalar(sa.text("SELECT revision FROM traffic"))
                connection.execute(sa.text("UPDATE traffic SET revision = :next"), {"next": found + 1})
                journal.append(connection, clock=SystemClock(), actor=str(actor), action="x.y", subject="s", details={"number": number})

    threads = [threading.Thread(target=work, args=(actor,)) for actor in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _count(database) == 90
    with database.read() as connection:
        assert journal.verify(connection) == journal.Audit(90, journal.entries(connection)[0].digest)


def test_the_heads_lie_in_the_home(database: Database, tmp_path: Path) -> None:
    with database.begin() as connection:
        journal.append(connection, clock=SystemClock(), actor="ada", action="x.y", subject="s", details={})
        assert not (tmp_path / journal.HEADS).exists()
    assert len((tmp_path / journal.HEADS).read_text().splitlines()) == 1
    with database.begin() as connection:
        connection.execute(sa.text("DELETE FROM journal"))
    with database.read() as connection:
        assert journal.verify(connection).broken == 1


def test_a_read_is_one_snapshot_from_its_first_query_on(database: Database) -> None:
    _start(database)
    with database.read() as reader:
        assert reader.scalar(sa.text("SELECT revision FROM traffic")) == 0
        with database.begin() as connection:
            connection.execute(COUNTER)
        assert reader.scalar(sa.text("SELECT revision FROM traffic")) == 0
    assert _count(database) == 1


def test_the_version_changes_with_commits_and_not_with_reads(postgres: Postgres, name: str, database: Database) -> None:
    seen = [database.version()]
    for _ in range(3):
        _read(database)
        assert database.version() == seen[-1]
        postgres.sql("INSERT INTO views VALUES (gen_random_uuid()::text, 'v', '{}', 0)", database=name)
        seen.append(database.version())
    assert len(set(seen)) == 4


def _read(database: Database) -> None:
    with database.read() as connection:
        connection.scalar(sa.text("SELECT count(*) FROM experiments"))


def test_a_commit_that_ends_later_is_seen_too(postgres: Postgres, name: str, database: Database) -> None:
    """Transactions may end in another order than they began in."""
    first, second = (psycopg.connect(postgres.url(name)) for _ in range(2))
    for number, connection in enumerate((first, second)):
        connection.execute(f"INSERT INTO views VALUES ('{number}', 'v', '{{}}', 0)")
    seen = [database.version()]
    for connection in (second, first):
        connection.commit()
        seen.append(database.version())
        connection.close()
    assert len(set(seen)) == 3


def test_a_restart_of_the_server_is_survived(postgres: Postgres, name: str, database: Database) -> None:
    _start(database)


    def cut() -> None:
        with database.read() as reader:
            reader.scalar(sa.text("SELECT 1"))
            postgres.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
            reader.scalar(sa.text("SELECT 1"))

    with pytest.raises(Unavailable):
        cut()
    with database.begin() as connection:
        connection.execute(COUNTER)
    assert _count(database) == 1
    for look in (database.version, lambda: _count(database)):
        look()
        postgres.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        look()


def test_a_crash_of_the_server_loses_nothing_that_was_answered(postgres: Postgres, database: Database) -> None:
    answered, refused, ended = list[int](), list[Unavailable](), threading.Event()

    def work() -> None:
        for number in itertools.count():
            if ended.is_set():
                return
            try:
                with database.begin() as connection:
                    connection.execute(INSERT, {"model": str(number), "revision": 0})
                answered.append(number)
            except Unavailable as error:
                refused.append(error)
                ended.wait(0.01)

    writer = threading.Thread(target=work, daemon=True)
    writer.start()
    until(lambda: len(answered) > 20)
    postgres.stop("immediate")
    postgres.start()
    before = len(answered)
    until(lambda: len(answered) > before + 20)
    ended.set()
    writer.join()
    with database.read() as connection:
        assert set(connection.scalars(sa.text("SELECT model FROM traffic"))) >= set(map(str, answered))
    assert refused
    assert all(error.retry for error in refused)


def test_a_full_disk_is_told_and_work_goes_on_when_there_is_space(postgres: Postgres, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "40m") as disk:
        if not disk.mounted:
            pytest.skip("a small file system can't be mounted here")
        for folder in (tmp_path.parent.parent, tmp_path.parent, tmp_path):
            folder.chmod(0o755)
        place = disk.folder / "tablespace"
        place.mkdir()
        postgres.owned(place)
        name = postgres.empty()
        postgres.sql(f"CREATE TABLESPACE small LOCATION '{place}'", f"ALTER DATABASE {name} SET TABLESPACE small")
        database = open_database(postgres.url(name))
        _start(database)
        rows = [{"model": f"m{number}", "revision": 0, "weights": os.urandom(50_000).hex()} for number in range(100)]
        statement = sa.text("INSERT INTO traffic (model, revision, weights, updated, actor) VALUES (:model, :revision, :weights, 0, 'tester')")
        with disk.full(), pytest.raises(StorageFull, match="can't grow"), database.begin() as connection:
            connection.execute(statement, rows)
        assert _count(database) == 0
        with database.begin() as connection:
            connection.execute(statement, rows[:20])
        database.close()
        postgres.drop(name)
        postgres.sql("DROP TABLESPACE small")


def test_a_connection_that_dies_in_a_write_leaves_nothing(postgres: Postgres, name: str, database: Database) -> None:
    _start(database)

    def dying() -> None:
        with database.begin() as connection:
            connection.execute(COUNTER)
            postgres.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
            connection.execute(COUNTER)

    with pytest.raises(Unavailable):
        dying()
    assert _count(database) == 0


def test_waiting_for_a_writer_ends(postgres: Postgres, name: str, database: Database) -> None:
    _start(database)
    backend = PostgresBackend(sa.make_url(postgres.url(name)), patience=0.05)
    engine = backend.engine()
    with psycopg.connect(postgres.url(name)) as other, engine.connect().execution_options(davy_mode="write") as waiting:
        other.execute(f"SELECT pg_advisory_xact_lock({WRITERS})")
        assert _count(database) == 0
        with pytest.raises(sa.exc.OperationalError) as caught:
            backend.start(waiting)
    told = backend.explain(caught.value.orig)
    assert isinstance(told, Unavailable)
    assert "lock timeout" in told.came
    engine.dispose()
    with database.begin() as connection:
        connection.execute(COUNTER)
    assert _count(database) == 1


@pytest.mark.parametrize("values", [{"model": "a\x00b", "revision": 1}, {"model": "m", "revision": 1 << 63}, {"model": "m", "revision": 1 << 200},
                                    {"model": "m" * 501, "revision": 1}, {"model": "\ud800", "revision": 1}])
def test_what_can_not_be_stored_is_bad_input(database: Database, values: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught, database.begin() as connection:
        connection.execute(INSERT, values)
    assert caught.value.status == 400
    with database.read() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM traffic")) == 0


def test_whole_numbers_have_64_bits_and_floats_all_their_own(database: Database) -> None:
    from davy.schema.tables import alerts, traffic

    floats = [float("inf"), -float("inf"), 5e-324, 1.7976931348623157e308, 0.1, -0.0]
    with database.begin() as connection:
        connection.execute(sa.insert(traffic).values(model="m", revision=(1 << 63) - 1, weights="{}", updated=-(1 << 63), actor="a"))
        for number, value in enumerate(floats):
            connection.execute(sa.insert(alerts).values(rule=str(number), subject="s", state="ok", since=0, changed=0, value=value, details="{}"))
    with database.read() as connection:
        assert connection.execute(sa.select(traffic.c.revision, traffic.c.updated)).one() == ((1 << 63) - 1, -(1 << 63))
        assert list(map(repr, connection.scalars(sa.select(alerts.c.value).order_by(alerts.c.rule)))) == list(map(repr, floats))


def test_an_insert_tells_whether_it_has_changed_anything(database: Database) -> None:
    from davy.schema.tables import traffic

    row = {"model": "m", "revision": 0, "weights": "{}", "updated": 0, "actor": "a"}
    with database.begin() as connection:
        statement = insert(connection, traffic).on_conflict_do_nothing()
        assert [connection.execute(statement, row).rowcount for _ in range(2)] == [1, 0]


def test_sums_and_means_are_plain_numbers(database: Database) -> None:
    from davy.schema.tables import traffic

    _start(database)
    with database.read() as connection:
        found = connection.execute(sa.select(sa.func.sum(traffic.c.updated), sa.func.avg(traffic.c.revision), sa.func.count())).one()
    assert [type(value) for value in found] == [int, float, int]


def test_texts_that_are_too_long_for_an_index_are_kept(database: Database) -> None:
    from davy.tracking import runs

    text = "".join(hashlib.sha256(bytes([number])).hexdigest() for number in range(125))  # which does not compress
    with database.begin() as connection:
        run_id = runs.create_run(connection, clock=SystemClock(), user="ada", experiment_id=0, name="r", tags={"mlflow.parentRunId": text})
        runs.log_params(connection, run_id, {"note": text[:6000]})
    with database.read() as connection:
        found = runs.get_run(connection, run_id)
    assert (found.tags["mlflow.parentRunId"], found.params["note"]) == (text, text[:6000])


def test_texts_are_ordered_and_compared_by_their_bytes(database: Database) -> None:
    from davy.schema.tables import traffic

    texts = ["a", "B", "Z", "ä", "b", "_", "-a", "A b", "Ab", "é", "e\u0301", "😀", "ﬀ", ""]
    with database.begin() as connection:
        for text in texts:
            connection.execute(sa.insert(traffic).values(model=text, revision=0, weights="{}", updated=0, actor="a"))
    with database.read() as connection:
        assert list(connection.scalars(sa.select(traffic.c.model).order_by(traffic.c.model))) == sorted(texts, key=str.encode)
        assert set(connection.scalars(sa.select(traffic.c.model).where(traffic.c.model > "Z"))) == {text for text in texts if text > "Z"}


def test_every_text_column_is_compared_by_its_bytes_and_every_whole_number_has_64_bits(database: Database) -> None:
    with database.read() as connection:
        odd = connection.execute(sa.text("""
            SELECT relname, attname, format_type(atttypid, atttypmod), collname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
            LEFT JOIN pg_collation ON pg_collation.oid = attcollation
            WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND attnum > 0 AND relname <> 'alembic_version' AND NOT attisdropped
            AND (collname <> 'C' OR atttypid IN ('int2'::regtype, 'int4'::regtype, 'float4'::regtype))""")).all()
    assert odd == []


def test_an_error_that_a_block_swallows_is_not_committed_silently(database: Database) -> None:
    _start(database)
    with pytest.raises(RuntimeError, match="begin_nested"), database.begin() as connection, pytest.raises(sa.exc.IntegrityError):
        connection.execute(INSERT, {"model": "m", "revision": 0})
    with database.begin() as connection:
        connection.execute(COUNTER)
        with pytest.raises(sa.exc.IntegrityError), connection.begin_nested():
            connection.execute(INSERT, {"model": "m", "revision": 0})
    assert _count(database) == 1


def test_a_broken_constraint_is_a_conflict(database: Database) -> None:
    _start(database)
    with pytest.raises(Conflict, match="duplicate key"):
        _start(database)


def test_forked_children_write_on_connections_of_their_own(database: Database) -> None:
    _start(database)
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for _ in range(5):
                    with database.begin() as connection:
                        connection.execute(COUNTER)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    for _ in range(5):
        with database.begin() as connection:
            connection.execute(COUNTER)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert _count(database) == 20
