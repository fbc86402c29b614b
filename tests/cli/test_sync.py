"""`davy sync`: what it prints, and with which codes it ends."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Literal

import msgspec
import pytest

from databases import write_settings
from davy.auth.tokens import new_token
from davy.auth.users import add_user
from davy.cli.main import run as davy
from davy.tracking import run as start_run
from davy.tracking import runs
from davy.tracking.history import metric_history
from davy.tracking.points import Points
from davy.tracking.spool import FOLDER, Ended, Head, Logged, Spool

if TYPE_CHECKING:
    from pathlib import Path

    from davy.home import Home


@pytest.fixture(autouse=True)
def _inside(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _left(home: Home, run_id: str, name: str, server: str = "", *, ended: bool = True) -> None:
    """A spool as a process that ended has left it."""
    spool = Spool(home.path / FOLDER, Head(run_id, name, server))
    spool.append(Logged.of({"loss": Points(array("q", [1, 2]), array("q", [5, 6]), array("d", [0.5, 0.25]))}))
    if ended:
        spool.append(Ended("FAILED", 7))
    spool.close(remove=False)


def _delete(home: Home, run_id: str, stage: Literal["active", "deleted"]) -> None:
    with home.database.begin() as connection:
        runs.set_run_stage(connection, run_id, clock=home.clock, actor="ada", stage=stage)


def test_what_the_database_could_not_take_is_stored(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert davy(["sync"]) == 0
    assert capsys.readouterr().out == "Nothing waits.\n"
    run = start_run("late", home=home)
    run.log(loss=1.0, step=0)
    run.flush()
    _left(home, run.id, "late")
    assert davy(["sync", "--json"]) == 0
    (spool,) = msgspec.json.decode(capsys.readouterr().out)["spools"]
    assert (spool["run"], spool["name"], spool["state"], spool["to"], spool["reasons"]) == (run.id, "late", "sent", str(home.path), [])
    with home.database.read() as connection:
        assert metric_history(connection, run.id, "loss").values == [1.0, 0.5, 0.25]
        found = runs.get_run(connection, run.id)
    assert (found.status, found.ended) == ("FAILED", 7000)
    assert davy(["sync"]) == 0
    run.finish()


def test_what_nobody_takes_is_kept_and_told(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    _left(home, "f" * 32, "gone")
    _left(home, "e" * 32, "far", "http://127.0.0.1:9")
    assert davy(["sync"]) == 1
    told = capsys.readouterr()
    assert "gone" in told.out
    assert "refused" in told.out
    assert "away" in told.out
    assert "There is no run" in told.err
    assert str(home.path / FOLDER) in told.err
    assert len(list((home.path / FOLDER).iterdir())) == 2


def test_a_folder_that_is_no_spool_is_told_and_holds_up_no_other(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with start_run("late", home=home) as run:
        pass
    (home.path / FOLDER / "0").mkdir(parents=True)
    (home.path / FOLDER / "0" / "head.json").write_text("{")
    _left(home, run.id, "late")
    assert davy(["sync"]) == 1
    told = capsys.readouterr()
    assert "can't be read as a spool" in told.err
    assert "sent" in told.out
    assert [path.name for path in (home.path / FOLDER).iterdir()] == ["0"]


def test_what_a_deleted_run_has_left_keeps_no_other_from_starting(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with start_run("late", home=home) as run:
        pass
    _left(home, run.id, "late", ended=False)
    _delete(home, run.id, "deleted")
    with start_run("next", home=home) as following:
        following.log(loss=1.0)
    assert davy(["sync"]) == 1
    assert "is deleted" in capsys.readouterr().err
    _delete(home, run.id, "active")
    assert davy(["sync"]) == 0
    with home.database.read() as connection:
        assert metric_history(connection, run.id, "loss").values == [0.5, 0.25]
    assert list((home.path / FOLDER).iterdir()) == []


def test_a_project_elsewhere_is_named(home: Home, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _left(home, "f" * 32, "gone")
    monkeypatch.chdir(tmp_path)
    assert davy(["sync"]) == 0
    assert davy(["sync", "--project", str(project)]) == 1
    assert "gone" in capsys.readouterr().out


def test_where_a_login_is_required_it_takes_a_scientist(home: Home, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = {}
    with home.database.begin() as connection:
        for role in ("admin", "scientist", "viewer"):
            add_user(connection, clock=home.clock, actor="tester", name=role, role=role, record=None)  # type: ignore[arg-type]
            tokens[role] = new_token(connection, clock=home.clock, actor="tester", owner=role, name="t")[1]
    write_settings(project, "[auth]\nrequired = true\n")
    for role, code in (("viewer", 2), ("scientist", 0)):
        monkeypatch.setenv("DAVY_TOKEN", tokens[role])
        assert davy(["sync"]) == code
    assert "viewer has the role viewer, which may not write experiments" in capsys.readouterr().err
