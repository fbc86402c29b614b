"""`davy gc`: what was deleted goes for good, and nothing else, while others go on writing."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import pytest

from davy.cli.main import run as davy
from davy.core.digest import digest_bytes
from davy.errors import NotFound, Unavailable
from davy.home import Home
from davy.registry.aliases import set_alias
from davy.registry.versions import delete_version
from davy.schema.tables import artifacts, experiments, logged_models, model_versions, runs
from davy.store import garbage, journal
from davy.tracking import run as start
from davy.tracking.artifacts import add_artifacts, read_artifact
from davy.tracking.experiments import create_experiment, get_experiment, set_experiment_stage
from davy.tracking.purge import batches, plan, purge
from davy.tracking.runs import get_run, set_run_stage
from davy.tracking.sweep import sweep
from serving_kit import add_version

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400_000_000
MODEL = "m-" + "ab" * 16


def _run(home: Home, *texts: str, experiment: str = "Default") -> str:
    with start(home=home, experiment=experiment, params={"depth": 3}, tags={"team": "risk"}) as run:
        run.log(loss=0.5)
        for text in texts:
            run.text(text, f"{text}.txt")
    return run.id


def _delete(home: Home, run: str) -> None:
    with home.database.begin() as connection:
        set_run_stage(connection, run, clock=home.clock, actor="ada", stage="deleted")


def _gc(home: Home, *arguments: str) -> dict[str, Any]:
    """What the verb answers."""
    out = io.StringIO()
    with redirect_stdout(out):
        assert davy(["--project", str(home.root), "gc", "--json", *arguments]) == 0
    return dict(json.loads(out.getvalue()))


def _there(home: Home, text: str) -> bool:
    return home.blobs.exists(digest_bytes(text.encode()))


def _rows(home: Home, run: str) -> int:
    """In how many tables the run is mentioned."""
    with home.database.read() as connection:
        return sum(connection.execute(table.select().where(table.c.run_id == run)).first() is not None
                   for table in runs.metadata.sorted_tables if "run_id" in table.c)


def test_deleted_runs_go_with_all_that_is_theirs(home: Home) -> None:
    kept, gone = _run(home, "kept", "both"), _run(home, "gone", "both")
    _delete(home, gone)
    assert _rows(home, gone) >= 4
    found = _gc(home)
    assert (found["runs"], found["blobs"], found["bytes"], found["done"]) == ([gone], 1, 4, False)
    assert _there(home, "gone")
    assert _gc(home, "--yes")["blobs"] == 1
    assert (_there(home, "gone"), _there(home, "kept"), _there(home, "both")) == (False, True, True)
    assert _rows(home, gone) == 0
    assert _rows(home, kept) >= 4
    with home.database.read() as connection:
        assert connection.execute(artifacts.select().where(artifacts.c.owner == gone)).all() == []
        assert read_artifact(connection, home.blobs, kept, "both.txt") == b"both"
        actions = [(entry.action, entry.details) for entry in journal.entries(connection, action="purge.")]
        assert journal.verify(connection).broken is None
    assert actions == [("purge.blobs", {"blobs": 1, "bytes": 4}), ("purge.runs", {"ids": [gone]})]
    again = _gc(home, "--yes")
    assert (again["runs"], again["blobs"]) == ([], 0)


def test_only_what_was_deleted_long_enough_ago(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = _run(home, "old"), _run(home, "new")
    for run in (old, new):
        _delete(home, run)
    with home.database.begin() as connection:
        connection.execute(runs.update().where(runs.c.run_id == old).values(deleted_time=home.clock.now() // 1000 - 40 * 86_400_000))
    assert davy(["--project", str(home.root), "gc", "--older-than", "30d"]) == 0
    out, error = capsys.readouterr()
    assert "Would purge 1 run, 0 logged models, 0 experiments." in out
    assert "--yes" in error
    assert davy(["--project", str(home.root), "gc", "--older-than", "30d", "--yes"]) == 0
    assert "Purged 1 run" in capsys.readouterr().out
    assert (_rows(home, old), _rows(home, new) > 0) == (0, True)


def test_a_purge_can_be_narrowed(home: Home) -> None:
    here, there, active = _run(home), _run(home, experiment="other"), _run(home)
    for run in (here, there):
        _delete(home, run)
    assert _gc(home, "--experiment", "other")["runs"] == [there]
    assert _gc(home, "--run", here)["runs"] == [here]
    assert _gc(home, "--run", here, "--yes")["runs"] == [here]
    assert _rows(home, there)
    with home.database.read() as connection, pytest.raises(NotFound, match="deleted"):
        plan(connection, before=home.clock.now(), run_ids=[active])


def test_a_purged_experiments_name_is_free_again(home: Home) -> None:
    run = _run(home, "gone", experiment="late")
    with home.database.begin() as connection:
        number = get_experiment(connection, "late").id
        add_artifacts(connection, str(number), {"traces/t": (home.blobs.put(b"trace"), 5)}, clock=home.clock, blobs=home.blobs)
        connection.execute(logged_models.insert().values(model_id=MODEL, experiment_id=number, name="m", artifact_uri="", status="READY", creation_time=1,
                                                         last_update_time=1, lifecycle_stage="active"))
        set_experiment_stage(connection, clock=home.clock, actor="ada", identity=number, stage="deleted")
    found = _gc(home, "--yes")
    assert (found["experiments"], found["runs"], found["models"], found["blobs"]) == (["late"], [run], [MODEL], 2)
    with home.database.begin() as connection:
        assert create_experiment(connection, clock=home.clock, actor="ada", name="late").lifecycle == "active"


@pytest.mark.parametrize("how", ["run_id", "model_id", "source", "storage_location"])
def test_what_a_registered_version_refers_to_stays(home: Home, how: str) -> None:
    run, other = _run(home, "registered", experiment="late"), _run(home, "other", experiment="late")
    with home.database.begin() as connection:
        number = get_experiment(connection, "late").id
        connection.execute(logged_models.insert().values(model_id=MODEL, experiment_id=number, name="m", artifact_uri="", status="READY", creation_time=1,
                                                         last_update_time=1, lifecycle_stage="deleted", source_run_id=run))
    version = add_version(home)
    value = {"run_id": run, "model_id": MODEL, "source": f"runs:/{run}/model", "storage_location": f"mlflow-artifacts:/{number}/models/{MODEL}/artifacts"}[how]
    with home.database.begin() as connection:
        connection.execute(model_versions.update().values({how: value}))
        set_experiment_stage(connection, clock=home.clock, actor="ada", identity=number, stage="deleted")
    found = _gc(home, "--grace", "0s", "--yes")
    assert (found["runs"], found["experiments"]) == ([other], [])
    assert {kept["id"] for kept in found["kept"]} >= {run, "late"}
    assert (_there(home, "registered"), _there(home, "other")) == (True, False)
    for digest in version.files.values():
        assert home.blobs.exists(digest)


def test_a_deleted_versions_files_go_unless_an_alias_or_a_release_names_it(home: Home) -> None:
    first, second = add_version(home), add_version(home, seed=1)
    with home.database.begin() as connection:
        set_alias(connection, clock=home.clock, actor="ada", name=first.name, alias="production", version=first.version)
        delete_version(connection, clock=home.clock, actor="ada", name=second.name, version=second.version)
    only = set(second.files.values()) - set(first.files.values())
    assert only
    assert _gc(home)["young"] == len(only)
    assert _gc(home, "--grace", "0s", "--yes")["blobs"] == len(only)
    assert not any(home.blobs.exists(digest) for digest in only)
    assert all(home.blobs.exists(digest) for digest in first.files.values())


def test_missing_files_stop_nothing_and_a_stopped_purge_goes_on(home: Home) -> None:
    gone = [_run(home, f"text {number}") for number in range(5)]
    for run in gone:
        _delete(home, run)
    home.blobs.delete(digest_bytes(b"text 0"))
    with home.database.read() as connection:
        whole = plan(connection, before=home.clock.now())
    first = next(batches(whole))
    with home.database.begin() as connection:
        purge(connection, type(first)(runs=first.runs[:2]), clock=home.clock, actor="ada", before=home.clock.now())
    found = _gc(home, "--yes", "--grace", "0s")
    assert (len(found["runs"]), found["blobs"]) == (3, 4)
    assert not list(home.blobs.listed())


def test_what_is_restored_or_written_after_the_plan_stays(home: Home) -> None:
    run = _run(home, "kept")
    _delete(home, run)
    with home.database.read() as connection:
        whole = plan(connection, before=home.clock.now())
    assert whole.runs == (run,)
    with home.database.begin() as connection:
        set_run_stage(connection, run, clock=home.clock, actor="ada", stage="active")
    for some in batches(whole):
        with home.database.begin() as connection:
            assert purge(connection, some, clock=home.clock, actor="ada", before=home.clock.now()) == set()
    with home.database.read() as connection:
        assert get_run(connection, run).id == run
    assert list(sweep(home, freed={digest_bytes(b"kept")}, grace=0, actor="ada"))[-1].young == 0
    assert _there(home, "kept")


def test_a_file_that_is_about_to_be_used_stays(home: Home) -> None:
    home.blobs.put(b"on its way")
    found = _gc(home, "--yes")
    assert (found["blobs"], found["young"]) == (0, 1)
    assert _there(home, "on its way")


def test_uploads_of_the_same_content_while_it_is_collected(home: Home) -> None:
    """Content whose blob nothing points at is stored again and again, and pointed at, while collectors that spare nothing run without a pause."""
    texts = [f"content {number}".encode() for number in range(12)]
    stop, indexed, refused, broken = threading.Event(), 0, 0, []
    owner = _run(home)

    def collect() -> None:
        mine = Home(home.root)
        while not stop.is_set():
            list(sweep(mine, freed=(), grace=0, actor="collector"))
        mine.close()

    collectors = [threading.Thread(target=collect) for _ in range(2)]
    for thread in collectors:
        thread.start()
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        for number, text in enumerate(texts):
            digest = home.blobs.put(text)
            try:
                with home.database.begin() as connection:
                    add_artifacts(connection, owner, {f"{number}.txt": (digest, len(text))}, clock=home.clock, blobs=home.blobs)
            except Unavailable:
                refused += 1
                continue
            indexed += 1
            if not home.blobs.exists(digest):
                broken.append(text)
            with home.database.begin() as connection:
                connection.execute(artifacts.delete().where(artifacts.c.owner == owner))
    stop.set()
    for thread in collectors:
        thread.join()
    assert broken == []
    assert indexed > 5


def test_a_blob_is_not_taken_between_being_found_and_being_pointed_at(home: Home) -> None:
    """The one order of events that no luck may decide: stored, found to be there already, condemned and deleted, then indexed."""
    digest, owner = home.blobs.put(b"old"), _run(home)
    assert home.blobs.put(b"old") == digest
    assert sum(found.blobs for found in sweep(home, freed=(), grace=0, actor="collector")) == 1
    with pytest.raises(Unavailable), home.database.begin() as connection:
        add_artifacts(connection, owner, {"x": (digest, 3)}, clock=home.clock, blobs=home.blobs)
    home.blobs.put(b"old")
    with home.database.begin() as connection:
        add_artifacts(connection, owner, {"x": (digest, 3)}, clock=home.clock, blobs=home.blobs)
    assert sum(found.blobs for found in sweep(home, freed=(), grace=0, actor="collector")) == 0
    assert home.blobs.get(digest) == b"old"


def test_a_collector_that_dies_leaves_nothing_stuck(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = """
import os, sys
from pathlib import Path
from davy.home import Home
from davy.store.blobs import Blobs
from davy.tracking.sweep import sweep
Blobs.delete = lambda self, *digests: os._exit(9)
list(sweep(Home(Path(sys.argv[1])), freed=(), grace=0, actor="collector"))
"""
    home = Home(project)
    digest = home.blobs.put(b"orphan")
    assert subprocess.run([sys.executable, "-c", program, str(project)], check=False).returncode == 9
    with pytest.raises(Unavailable), home.database.begin() as connection:
        garbage.claim(connection, home.blobs, [digest])
    monkeypatch.setattr(garbage, "LEASE_SECONDS", -1)
    with home.database.begin() as connection:
        garbage.claim(connection, home.blobs, [digest])
    assert sum(found.blobs for found in sweep(home, freed=(), grace=0, actor="collector")) == 0 or not home.blobs.exists(digest)
    home.close()


def test_an_active_experiment_is_never_purged(home: Home) -> None:
    _run(home, experiment="late")
    found = _gc(home, "--yes")
    assert (found["runs"], found["experiments"], found["kept"]) == ([], [], [])
    with home.database.read() as connection:
        assert connection.execute(experiments.select().where(experiments.c.name == "late")).first() is not None
