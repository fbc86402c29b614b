"""Who waits comes next, whoever asks again and again."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from davy.schema import open_database
from davy.store.turns import Turns

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.sqlite("PostgreSQL's lock is first come, first served")
def test_a_process_that_writes_without_a_pause_keeps_nobody_out(tmp_path: Path) -> None:
    database = open_database(tmp_path / "davy.db")
    with database.begin() as connection:
        for model in ("greedy", "modest"):
            connection.execute(sa.text(f"INSERT INTO traffic (model, revision, weights, updated, actor) VALUES ('{model}', 0, '{{}}', 0, 'tester')"))
    program = """
        import sys
        from pathlib import Path
        import sqlalchemy as sa
        from davy.schema import open_database
        database = open_database(Path(sys.argv[1]))
        while True:
            with database.begin(lazy=True) as connection:
                connection.execute(sa.text("UPDATE traffic SET revision = revision + 1 WHERE model = 'greedy'"))
                for _ in range(300):
                    connection.execute(sa.text("UPDATE traffic SET updated = updated + 1 WHERE model = 'greedy'"))
    """
    many = sa.text("SELECT revision FROM traffic WHERE model = 'greedy'")
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "davy.db")]) as greedy:
        seen: list[int] = []
        while not seen or not seen[-1]:
            assert greedy.poll() is None
            with database.read() as connection:
                seen.append(connection.scalar(many))
        for _ in range(40):
            with database.begin(lazy=True) as connection:
                connection.execute(sa.text("UPDATE traffic SET revision = revision + 1 WHERE model = 'modest'"))
                seen.append(connection.scalar(many))
        greedy.kill()
    assert seen[-1] - seen[-40] <= 5 * 40
    database.close()


def test_a_turn_is_one_mans_and_waiting_for_it_ends(tmp_path: Path) -> None:
    mine, other = Turns(tmp_path / "turns"), Turns(tmp_path / "turns")
    assert mine.take(10)
    assert not other.take(0.02)
    assert not mine.take(0.02)
    mine.give()
    assert other.take(10)
    assert not mine.take(0.02)
    other.give()
    for turns in (mine, other):
        turns.close()
        turns.close()
    assert mine.take(10)
    mine.give()
    mine.close()


def test_at_the_end_of_a_process_it_can_still_be_written(tmp_path: Path) -> None:
    program = """
        import atexit
        def last():
            with database.begin() as connection:
                connection.execute(sa.text("UPDATE experiments SET name = 'written last'"))
        atexit.register(last)  # before anybody else, so that it is called after all others
        import sys
        from pathlib import Path
        import sqlalchemy as sa
        from davy.schema import open_database
        database = open_database(Path(sys.argv[1]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "davy.db")], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    database = open_database(f"sqlite:///{tmp_path / 'davy.db'}")
    with database.read() as connection:
        assert connection.scalar(sa.text("SELECT name FROM experiments")) == "written last"
    database.close()


def test_threads_take_turns_where_there_can_be_no_file(tmp_path: Path) -> None:
    turns = Turns(tmp_path / "no such folder" / "turns")
    assert turns.take(10)
    assert not turns.take(0.02)
    turns.give()
    assert turns.take(10)
    turns.give()
    turns.close()
