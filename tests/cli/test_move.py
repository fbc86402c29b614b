"""A home that has outgrown its laptop: the same rows in PostgreSQL, the same files in an object store, and the commands go on."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from davy.cli.main import run
from davy.errors import Conflict
from davy.home import Home
from davy.schema import open_database
from davy.schema.move import copy_database
from davy.schema.tables import experiments, metadata, runs
from davy.server.supervisor import hold
from davy.store import journal
from davy.tracking import run as start
from davy.tracking.experiments import create_experiment
from postgres_kit import server
from s3_kit import BUCKET, S3Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from davy.store.database import Database

    from .conftest import Answered


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    running = S3Server()
    yield running
    running.stop()


@pytest.fixture
def postgres() -> Iterator[str]:
    name = server().empty()
    yield server().url(name)
    server().drop(name)


@pytest.fixture
def moving(answered: Answered, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with all kinds of rows, some of which are hard to carry, that commands run in."""
    home = Home(answered.root)
    with start("hard", home=home, params={"text": "'\\\"\u2028é\U0001f600"}, tags={"empty": ""}) as made:
        for step in range(1500):
            made.log({"loss": float("nan") if step % 7 == 0 else float("inf") if step % 11 == 0 else step / 3}, step=step - 700)
        made.text("weights " * 1000, "weights.txt")
    home.close()
    monkeypatch.chdir(answered.root)
    return answered.root


def _content(database: Database) -> dict[str, list[str]]:
    with database.read() as connection:
        return {table.name: sorted(repr(tuple(row)) for row in connection.execute(sa.select(table))) for table in metadata.sorted_tables}


def test_every_row_arrives_there_and_back_and_numbers_go_on(moving: Path, postgres: str, tmp_path: Path) -> None:
    home = Home(moving)
    before, told = _content(home.database), list[int]()
    for url in (postgres, f"sqlite:///{tmp_path}/back.db"):
        target = open_database(url, folder=tmp_path / "elsewhere")
        counts = copy_database(home.database, target, told=told.append)
        assert _content(target) == before
        assert counts == {name: len(rows) for name, rows in before.items()}
        with target.begin() as connection:
            assert journal.verify(connection).broken is None
            newest = create_experiment(connection, clock=home.clock, actor="tester", name=f"after {url[:5]}")
            assert newest.id == 1 + max(connection.scalars(sa.select(experiments.c.experiment_id).where(experiments.c.experiment_id != newest.id)))
        target.close()
    assert sum(told) == 2 * sum(counts.values())
    home.close()


def test_what_is_there_is_not_mixed_with_what_comes(moving: Path, postgres: str) -> None:
    home, target = Home(moving), open_database(postgres)
    with target.begin() as connection:
        create_experiment(connection, clock=home.clock, actor="tester", name="somebody's")
    before = _content(target)
    with pytest.raises(Conflict, match="not empty"):
        copy_database(home.database, target)
    with pytest.raises(Conflict, match="not empty"):
        copy_database(target, target)
    assert _content(target) == before
    target.close()
    home.close()


def test_a_copy_that_is_cut_off_leaves_the_target_new(moving: Path, postgres: str) -> None:
    home, target = Home(moving), open_database(postgres)
    fresh, left = _content(target), iter(range(3))

    def told(rows: int) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_database(home.database, target, told=told)
    assert _content(target) == fresh
    assert copy_database(home.database, target)[runs.name] > 0
    target.close()
    home.close()


def test_commands_go_on_after_the_move(moving: Path, postgres: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    asked = (["runs", "--json"], ["audit", "--json"], ["replay", "late", "--json"], ["runs", _hard(capsys), "--artifact", "weights.txt"])
    before = [_said(capsys, words) for words in asked]
    blobs = f"s3://{BUCKET}/moved"
    found = json.loads(_said(capsys, ["move", "--database", postgres, "--blobs", blobs, "--json"]))
    assert found["tables"]["runs"] == 2
    assert found["blobs"] > 0
    again = json.loads(_said(capsys, ["move", "--blobs", blobs, "--json"]))
    assert (again["blobs"], again["bytes"]) == (found["blobs"], found["bytes"])
    shutil.rmtree(moving / ".davy" / "blobs")
    Path(moving / ".davy" / "davy.db").unlink(missing_ok=True)
    Path(moving / "davy.toml").write_text(f'project = "shop"\n[storage]\ndatabase = "{postgres}"\nblobs = "{blobs}"\n')
    assert [_said(capsys, words) for words in asked] == before


def test_what_to_write_is_said_without_a_password(moving: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = server().empty()
    assert run(["move", "--database", server().url(name, password="open/sesame@")]) == 0
    said = capsys.readouterr()
    assert "sesame" not in said.out + said.err
    assert f'database = "postgresql://davy:***@127.0.0.1:{server().port}/{name}"' in said.out
    server().drop(name)


@pytest.mark.parametrize(("words", "told"), [
    ([], "Neither --database nor --blobs came."), (["--database", "mysql://x/y"], "mysql"), (["--blobs", "ftp://x/y"], "ftp"),
    (["--blobs", "file://HOME/blobs"], "already")])
def test_bad_places_are_told(moving: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str) -> None:
    assert run(["move", *(word.replace("HOME", str(moving / ".davy")) for word in words)]) != 0
    assert told in capsys.readouterr().err


def test_nobody_may_serve_the_home_meanwhile(moving: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = hold(Home(moving))
    assert run(["move", "--database", f"sqlite:///{tmp_path}/other.db"]) == 2
    assert "is served already" in capsys.readouterr().err
    assert not (tmp_path / "other.db").exists()
    os.close(held)


def _said(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    assert run(words) == 0, capsys.readouterr()
    return capsys.readouterr().out


def _hard(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(_said(capsys, ["runs", "run_name = 'hard'", "--json"]))["runs"][0]["id"]
