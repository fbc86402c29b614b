"""What came from MLflow reads the same from Davy as from where it came, by MLflow's own client, field by field."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from databases import ON_POSTGRES, write_settings
from davy.auth.tokens import new_token
from davy.auth.users import add_user
from davy.cli.main import run as davy
from davy.registry.lineage import lineage
from davy.schema.tables import (
    aliases,
    artifacts,
    experiments,
    latest_metrics,
    model_versions,
    params,
    registered_model_tags,
    registered_models,
    runs,
    tags,
)
from davy.store import journal
from importing.conftest import Filled, program
from server_kit import Running

if TYPE_CHECKING:
    from pathlib import Path

    from davy.home import Home


@pytest.fixture(autouse=True)
def _inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)


def _brought(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    ended = davy(["import", "mlflow", *arguments, "--json"])
    told = capsys.readouterr()
    assert ended == code, told.err
    return json.loads(told.out)  # type: ignore[no-any-return]


def _moved(source: Filled, here: Path) -> None:
    """A copy on another machine: what it says of where its files are is not true there."""
    shutil.copytree(source.path, here)
    for meta in here.rglob("meta.yaml"):
        meta.write_text(meta.read_text().replace(str(source.path.parent), "/nowhere/else"))


def _rows(home: Home) -> dict[str, list[Any]]:
    """All rows of what an import writes, but for the times of the import itself."""
    with home.database.read() as connection:
        return {table.name: sorted(map(str, connection.execute(sa.select(*(column for column in table.c if column.name not in aside)))))
                for table, aside in ((experiments, ("creation_time", "last_update_time")), (runs, ("deleted_time",)), (params, ()), (tags, ()),
                                     (latest_metrics, ("chunk", "filled", "last", "last_is_nan")), (artifacts, ("creation_time",)),
                                     (registered_models, ()), (model_versions, ()), (aliases, ()))}


@pytest.mark.parametrize("kind", ["database", "folder", "old_folder"])
def test_davy_then_says_what_mlflow_said(kind: str, home: Home, project: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    source: Filled = request.getfixturevalue(kind)
    before = source.path.read_bytes() if source.path.is_file() else b""
    first = _brought(capsys, str(source.path))
    assert first["source"] == first["here"]
    assert (first["known"], first["unread"], first["missing"]) == (0, 0, [])
    rows = _rows(home)
    second = _brought(capsys, str(source.path))
    assert second["source"] == second["here"] == first["here"]
    assert second["known"] == 4  # the fifth is running
    assert _rows(home) == rows
    with Running(project, "--only", "tracking") as server:
        here = program("dump.py", f"http://127.0.0.1:{server.port}")
        assert "Traceback" not in server.log()
    assert here == program("dump.py", source.uri)
    assert [*here["registry"]["late"]["versions"]][:3] == ["1", "3", "4"]
    assert len(here["runs"][source.ids["parent"]]["files"]) == 4
    assert here["registry"]["late"]["versions"]["3"]["content"]
    assert (source.path.read_bytes() if before else b"") == before


def test_one_that_is_killed_goes_on(database: Filled, home: Home, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "davy", "import", "mlflow", str(database.path)]
    killed = 0
    for _ in range(20):
        process = subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
        while process.poll() is None:
            with home.database.read() as connection:
                if (connection.scalar(sa.select(sa.func.count()).select_from(runs)) or 0) > killed:
                    process.send_signal(signal.SIGKILL)
                    break
            time.sleep(0.001)
        if process.wait() == 0:
            break
        killed += 1
        if killed == 2:
            break
    assert killed
    _brought(capsys, str(database.path))
    broken = _rows(home)
    with home.database.begin() as connection:
        for table in (aliases, model_versions, registered_models, artifacts, latest_metrics, params, tags):
            connection.execute(table.delete())
        connection.execute(runs.delete())
    _brought(capsys, str(database.path))
    assert _rows(home) == broken


def test_a_run_that_went_on_is_brought_up_to_date(old_folder: Filled, home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = tmp_path / "moved" / "mlruns"  # with the paths of its files still naming the old place
    _moved(old_folder, here)
    run = next(here.glob(f"*/{old_folder.ids['running']}"))
    meta = run / "meta.yaml"
    meta.write_text(meta.read_text().replace("status: 1", "status: 2"))  # scheduled, which is no end either
    _brought(capsys, str(here))
    with (run / "metrics" / "loss").open("a") as file:
        file.write("2 7.5 1\n")
    (run / "artifacts" / "late.txt").write_text("late")
    meta.write_text(meta.read_text().replace("status: 2", "status: 3").replace("end_time: null", "end_time: 5"))
    ended = next(here.glob(f"*/{old_folder.ids['child']}"))
    (ended / "tags" / "verdict").write_text("good")
    (ended / "artifacts" / "note.txt").write_text("later")
    with home.database.begin() as connection:
        connection.execute(sa.insert(tags).values(run_id=old_folder.ids["removed"], key="verdict", value="mine"))
    found = _brought(capsys, str(here), code=1)
    assert found["here"]["tags"] == found["source"]["tags"] + 1  # which is said, and left
    with home.database.read() as connection:
        row = connection.execute(sa.select(runs).where(runs.c.run_id == old_folder.ids["running"])).one()
        assert (row.status, row.end_time) == ("FINISHED", 5)
        assert connection.scalar(sa.select(latest_metrics.c.count).where(latest_metrics.c.run_id == row.run_id)) == 2
        paths = set(connection.scalars(sa.select(artifacts.c.path).where(artifacts.c.owner.in_([row.run_id, old_folder.ids["child"]]))))
        assert paths == {"late.txt", "note.txt"}
        assert connection.scalar(sa.select(tags.c.value).where(tags.c.run_id == old_folder.ids["child"], tags.c.key == "verdict")) == "good"


def test_a_model_of_that_name_is_not_mixed_with_another(old_folder: Filled, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with home.database.begin() as connection:
        connection.execute(sa.insert(registered_models).values(name="late", creation_time=1, last_update_time=1, description="mine"))
        connection.execute(sa.insert(model_versions).values(
            name="late", version=3, creation_time=1, last_update_time=1, user_id="", current_stage="None", status="READY", deleted=False))
    assert davy(["import", "mlflow", str(old_folder.path)]) == 2
    assert "'late' has another version 3 here" in capsys.readouterr().err
    with home.database.read() as connection:
        assert connection.execute(sa.select(model_versions.c.version)).all() == [(3,)]
        assert connection.scalar(sa.select(registered_models.c.description).where(registered_models.c.name == "late")) == "mine"
        assert not connection.execute(sa.select(aliases)).all()


def test_who_brought_what_stands_in_the_journal(old_folder: Filled, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with home.database.begin() as connection:
        connection.execute(sa.insert(registered_models).values(name="late", creation_time=1, last_update_time=1, description="mine"))
        connection.execute(sa.insert(registered_model_tags).values(name="late", key="team", value="ours"))
    for _ in range(2):
        davy(["import", "mlflow", str(old_folder.path)])
    with home.database.read() as connection:
        told = [(entry.action, entry.subject, entry.details.get("version")) for entry in journal.entries(connection)]
        there = [("version.register", row.name, row.version) for row in connection.execute(sa.select(model_versions))]
        made = [("model.create", name, None) for name in connection.scalars(sa.select(registered_models.c.name)) if name != "late"]
        assert lineage(connection, "late@3")["registered"]["actor"] == "tester"
        assert connection.scalar(sa.select(registered_model_tags.c.value).where(registered_model_tags.c.key == "team")) == "ours"
    assert sorted(entry for entry in told if entry[0] in ("version.register", "model.create")) == sorted([*there, *made])
    assert told[-1] == ("import.started", str(old_folder.path), None)
    assert [action for action, _, _ in told].count("import") == 2


def test_a_protected_alias_does_not_come_along_but_for_a_releaser(old_folder: Filled, home: Home, project: Path, monkeypatch: pytest.MonkeyPatch,
                                                                  capsys: pytest.CaptureFixture[str]) -> None:
    tokens = {}
    with home.database.begin() as connection:
        for role in ("admin", "releaser", "scientist"):
            add_user(connection, clock=home.clock, actor="tester", name=role, role=role, record=None)  # type: ignore[arg-type]
            tokens[role] = new_token(connection, clock=home.clock, actor="tester", owner=role, name="t")[1]
    write_settings(project, '[auth]\nrequired = true\n[registry]\nprotected = ["champion"]\n')
    monkeypatch.setenv("DAVY_TOKEN", tokens["scientist"])
    assert davy(["import", "mlflow", str(old_folder.path)]) == 2
    assert "alias 'champion' of 'late' is protected" in capsys.readouterr().err
    with home.database.read() as connection:
        assert not connection.execute(sa.select(aliases).where(aliases.c.alias == "champion")).all()
    monkeypatch.setenv("DAVY_TOKEN", tokens["releaser"])
    _brought(capsys, str(old_folder.path))
    with home.database.read() as connection:
        entry = journal.entries(connection, subject="late", action="alias.set", limit=1)[0]
    assert (entry.actor, entry.details["evidence"]) == ("releaser", {"import": str(old_folder.path)})


def test_what_cant_be_read_does_not_stop_the_rest(old_folder: Filled, home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = tmp_path / "mlruns"
    _moved(old_folder, here)
    root = next(here.glob(f"*/{old_folder.ids['child']}")) / "artifacts"
    (root / "nowhere").symlink_to(tmp_path / "gone")
    (root / "back\\slash").write_text("x")
    (root / "hash#tag").write_text("y")
    found = _brought(capsys, str(here), code=1)
    assert found["unread"] == 2
    assert any("nowhere" in problem for problem in found["problems"])
    assert any("slash" in problem for problem in found["problems"])
    assert found["here"]["runs"] == found["source"]["runs"] == 5
    assert found["here"]["files"] == found["source"]["files"] - 2
    with home.database.read() as connection:
        assert connection.scalars(sa.select(artifacts.c.path).where(artifacts.c.owner == old_folder.ids["child"])).all() == ["hash#tag"]


def test_a_run_that_the_database_can_not_hold_is_left_out_whole(database: Filled, home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, child = tmp_path / "mlflow.db", database.ids["child"]
    shutil.copy(database.path, here)
    with closing(sqlite3.connect(here)) as there, there:
        there.execute("UPDATE runs SET name = ? WHERE run_uuid = ?", ("n" * 600, child))
    found = _brought(capsys, str(here), code=int(ON_POSTGRES))  # SQLite's columns have no lengths
    assert (found["source"]["runs"], found["here"]["runs"]) == (5, 5 - ON_POSTGRES)
    assert [problem for problem in found["problems"] if f"The run {child} can't be stored" in problem] == found["problems"]
    assert found["unread"] == int(ON_POSTGRES)
    with home.database.read() as connection:
        assert bool(connection.execute(sa.select(tags).where(tags.c.run_id == child)).all()) is not ON_POSTGRES


def test_one_experiment_comes_with_the_models_of_its_runs(old_folder: Filled, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert davy(["import", "mlflow", str(old_folder.path), "--experiment", "shop/nightl"]) == 2
    assert "shop/nightly" in capsys.readouterr().err
    found = _brought(capsys, str(old_folder.path), "--experiment", "gone")
    assert (found["here"]["experiments"], found["here"]["runs"], found["here"]["models"]) == (1, 1, 0)
    found = _brought(capsys, str(old_folder.path), "--experiment", "shop/nightly")
    assert (found["here"]["experiments"], found["here"]["runs"], found["here"]["models"]) == (1, 4, 1)
    with home.database.read() as connection:
        stages = {row.name: row.lifecycle_stage for row in connection.execute(sa.select(experiments))}
    assert stages == {"Default": "active", "gone": "deleted", "shop/nightly": "active"}


def test_an_old_database_is_upgraded_in_a_copy(home: Home, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mlflow.db"
    program("age.py", str(path))
    before = path.read_bytes()
    found = _brought(capsys, str(path), code=1)
    assert (found["here"]["runs"], found["unread"]) == (1, 1)
    assert "--artifacts FOLDER" in found["problems"][0]
    kept = tmp_path / "elsewhere"
    (kept / "7" / ("a" * 32) / "artifacts" / "model").mkdir(parents=True)
    (kept / "7" / ("a" * 32) / "artifacts" / "model" / "MLmodel").write_text("flavors: {}\n")
    found = _brought(capsys, str(path), "--artifacts", str(kept))
    assert found["source"] == found["here"]
    assert (found["here"]["points"], found["here"]["files"], found["here"]["versions"]) == (3, 1, 1)
    with home.database.read() as connection:
        version = connection.execute(sa.select(model_versions)).one()
        run = connection.execute(sa.select(runs)).one()
    assert (version.version, version.source, version.current_stage, version.creation_time) == (4, f"runs:/{'a' * 32}/model", "Staging", 32)
    assert (run.name, run.user_id, run.start_time, run.end_time) == ("old run", "ada", 10, 20)
    assert path.read_bytes() == before
