"""What user code logs is on disk, once and whole, however the program ends."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from curves_kit import put_points
from davy.errors import Conflict, CorruptData, InvalidInput, NotFound, StorageFull
from davy.home import Home
from davy.tracking import artifacts, runs
from davy.tracking import run as start_run
from davy.tracking.buffer import MOST_HELD
from davy.tracking.history import metric_history
from davy.tracking.search import children, search_runs
from davy.tracking.writer import current
from store.disk import small_disk

if TYPE_CHECKING:
    from davy.tracking.records import RunRecord


def _read(home: Home, run_id: str) -> RunRecord:
    with home.database.read() as connection:
        return runs.get_run(connection, run_id)


def _values(home: Home, run_id: str, key: str) -> list[float]:
    with home.database.read() as connection:
        return metric_history(connection, run_id, key).values


def test_a_run_is_kept_with_all_that_was_logged(home: Home) -> None:
    with start_run("late", home=home, experiment="flights", params={"learning_rate": 0.1, "trees": 100}, tags={"team": "ops"}) as run:
        assert current() is run
        run.log(loss=0.5, step=1)
        run.log({"val/loss": np.float32(0.25), "epoch": 3}, step=2)
        run.param("depth", 4)
        run.tags(stage="final")
    found = _read(home, run.id)
    assert (found.name, found.experiment, found.status, found.user) == ("late", "flights", "FINISHED", "tester")
    assert found.params == {"learning_rate": "0.1", "trees": "100", "depth": "4"}
    assert found.metrics == {"loss": 0.5, "val/loss": 0.25, "epoch": 3.0}
    assert {"team": "ops", "stage": "final", "mlflow.runName": "late", "mlflow.user": "tester"}.items() <= found.tags.items()
    assert found.ended is not None
    assert found.started <= found.ended
    assert _read(home, run.id[:8]).id == run.id
    assert current() is None


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit(2), "FAILED"), (SystemExit(0), "FINISHED")])
def test_a_block_that_is_left_early_loses_nothing(home: Home, error: Any, status: str) -> None:
    run = start_run(home=home)

    def failing() -> None:
        with run:
            run.log(loss=1.0)
            raise error

    with pytest.raises(error if isinstance(error, type) else type(error)):
        failing()
    found = _read(home, run.id)
    assert (found.status, found.metrics) == (status, {"loss": 1.0})


def test_a_point_is_on_disk_soon_without_anybody_waiting(home: Home) -> None:
    with start_run(home=home) as run:
        run.log(loss=1.0)
        deadline = time.monotonic() + 30
        while not _values(home, run.id, "loss"):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_steps_count_on_by_themselves_and_the_latest_is_the_highest_step(home: Home) -> None:
    with start_run(home=home) as run:
        for value in (3.0, 2.0, 1.0):
            run.log(loss=value)
        run.log(loss=9.0, step=10)
        run.log(loss=8.0)
        run.log(loss=7.0, step=-5)
    with home.database.read() as connection:
        history = metric_history(connection, run.id, "loss")
    assert (history.steps, history.values) == ([-5, 0, 1, 2, 10, 11], [7.0, 3.0, 2.0, 1.0, 9.0, 8.0])
    assert _read(home, run.id).metrics == {"loss": 8.0}


def test_nan_and_infinities_come_back(home: Home) -> None:
    with start_run(home=home) as run:
        for value in (math.inf, -math.inf, math.nan):
            run.log(loss=value)
    assert str(_values(home, run.id, "loss")) == "[inf, -inf, nan]"
    assert math.isnan(_read(home, run.id).metrics["loss"])


def test_a_point_that_comes_twice_is_taken_once(home: Home) -> None:
    with start_run(home=home) as run:
        points = [("loss", math.nan, 1, 5000), ("loss", 1.0, 1, 5000), ("loss", 1.0, 1, 5000)]
        for _ in range(2):
            with home.database.begin() as connection:
                put_points(connection, run.id, points)
    assert len(_values(home, run.id, "loss")) == 2
    assert _read(home, run.id).metrics == {"loss": 1.0}


def test_threads_log_into_one_run(home: Home) -> None:
    with start_run(home=home) as run:
        threads = [threading.Thread(target=lambda name=f"m{number}": [run.log({name: step}, step=step) for step in range(1000)]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number in range(4):
        assert _values(home, run.id, f"m{number}") == [float(step) for step in range(1000)]


def test_a_home_that_was_given_stays_open(home: Home) -> None:
    database = home.database
    with start_run(home=home), start_run():
        pass
    assert home.database is database


def test_params_are_set_once(home: Home) -> None:
    with start_run(home=home, params={"a": 1}) as run:
        run.params(a=1, b=2)
        with pytest.raises(Conflict, match="'a' is '1' already"):
            run.params(c=3, a=2)
        with pytest.raises(Conflict):
            run.param("b", "two")
    assert _read(home, run.id).params == {"a": "1", "b": "2"}


def test_runs_in_runs_are_their_children(home: Home) -> None:
    with start_run("outer", home=home) as outer:
        with start_run("first") as first, start_run("grandchild") as grandchild:
            pass
        with start_run("second"):
            assert current() is not outer
    elsewhere = start_run("third", home=home, parent=outer.id)
    elsewhere.finish()
    with home.database.read() as connection:
        assert [run.name for run in children(connection, outer.id)] == ["first", "second", "third"]
    assert _read(home, grandchild.id).parent == first.id
    assert _read(home, outer.id).parent is None


@pytest.mark.parametrize("key", ["", "/a", "a/../b", "a//b", "a\nb", "x" * 251, ".", "a;b", 7])
def test_a_key_that_can_not_be_is_refused(home: Home, key: Any) -> None:
    with start_run(home=home) as run:
        for call in (run.log, run.params, run.tags):
            with pytest.raises(InvalidInput, match="key"):
                call({key: 1})


@pytest.mark.parametrize("value", ["1", None, True, np.bool_(True), [1.0], np.array([1.0, 2.0]), 1j, 10**400])
def test_what_is_no_number_is_no_metric(home: Home, value: Any) -> None:
    with start_run(home=home) as run, pytest.raises(InvalidInput, match="'loss'"):
        run.log(loss=value)


def test_a_step_that_can_not_be_counted_on_from_takes_nothing_of_the_call(home: Home) -> None:
    with start_run(home=home) as run:
        run.log(loss=1.0, step=2**63 - 1)
        with pytest.raises(InvalidInput, match="step"):
            run.log({"other": 1.0, "loss": 2.0})
        run.log(other=3.0)
    assert (_values(home, run.id, "other"), _values(home, run.id, "loss")) == ([3.0], [1.0])


@pytest.mark.parametrize("step", [1.5, "1", True, 2**63])
def test_a_step_is_a_whole_number(home: Home, step: Any) -> None:
    with start_run(home=home) as run, pytest.raises(InvalidInput, match="step"):
        run.log(loss=1.0, step=step)


def test_a_text_that_is_too_long_is_refused_whole(home: Home) -> None:
    with start_run(home=home) as run:
        with pytest.raises(InvalidInput, match="6000"):
            run.param("a", "x" * 6001)
        with pytest.raises(InvalidInput, match="8000"):
            run.tag("a", "x" * 8001)
        run.param("ü", "x" * 6000)
        run.tag("a", "x" * 8000)


def test_a_run_that_has_ended_or_is_deleted_takes_nothing(home: Home) -> None:
    with start_run(home=home) as run:
        pass
    run.finish()
    for call in (lambda: run.log(loss=1), lambda: run.param("a", 1), lambda: run.text("x", "a.txt")):
        with pytest.raises(Conflict, match="ended"):
            call()
    other = start_run("other", home=home)
    with home.database.begin() as connection:
        runs.set_run_stage(connection, other.id, clock=home.clock, actor="ada", stage="deleted")
    with pytest.raises(Conflict, match="deleted"):
        other.param("a", 1)
    with home.database.begin() as connection:
        assert search_runs(connection).runs == [_read(home, run.id)]
        runs.set_run_stage(connection, other.id, clock=home.clock, actor="ada", stage="active")
    other.finish()
    with pytest.raises(NotFound):
        _read(home, "f" * 32)


def test_artifacts_are_files_folders_bytes_texts_and_figures(home: Home, tmp_path: Path) -> None:
    class Drawing:
        def savefig(self, file: Any, *, format: str) -> None:
            file.write(f"<{format}>".encode())

    folder = tmp_path / "report"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.bin").write_bytes(b"\x00\x01")
    (folder / "b.txt").write_text("b")
    with start_run(home=home) as run:
        assert run.artifact(folder / "b.txt") == "b.txt"
        run.artifact(str(folder), "out/report")
        run.artifact(b"raw", "raw.bin")
        run.text("grüße", "notes/hello.txt")
        run.json({"a": [1, 2]}, "notes/a.json")
        run.figure(Drawing(), "plots/roc.svg")
        run.text("new", "raw.bin")
        with pytest.raises(InvalidInput, match="format"):
            run.figure(Drawing(), "roc")
        with pytest.raises(NotFound, match=r"run\.text"):
            run.artifact("no such file")
    with home.database.read() as connection:
        top = artifacts.list_artifacts(connection, run.id)
        assert [(found.path, found.is_dir, found.size) for found in top] == [
            ("b.txt", False, 1), ("notes", True, None), ("out", True, None), ("plots", True, None), ("raw.bin", False, 3)]
        assert [found.path for found in artifacts.list_artifacts(connection, run.id, "out/report")] == ["out/report/b.txt", "out/report/deep"]
        assert [found.path for found in artifacts.list_artifacts(connection, run.id, "out", deep=True)] == ["out/report/b.txt", "out/report/deep/a.bin"]
        assert artifacts.list_artifacts(connection, run.id, "ou") == []
        assert artifacts.read_artifact(connection, home.blobs, run.id, "notes/hello.txt").decode() == "grüße"
        assert artifacts.read_artifact(connection, home.blobs, run.id, "plots/roc.svg") == b"<svg>"
        assert artifacts.read_artifact(connection, home.blobs, run.id, "raw.bin") == b"new"
        with pytest.raises(NotFound, match=r"'b\.txt'"):
            artifacts.find_artifact(connection, run.id, "c.txt")
    with home.database.begin() as connection:
        assert artifacts.remove_artifacts(connection, run.id, "out") == 2


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a\\b", "C:/x", "a\x00b", "./a"])
def test_an_artifact_stays_inside_its_run(home: Home, path: str) -> None:
    with start_run(home=home) as run, pytest.raises(InvalidInput):
        run.artifact(b"x", path)


def test_a_damaged_artifact_is_never_read(home: Home) -> None:
    with start_run(home=home) as run:
        run.text("content", "a.txt")
    damaged = next(path for path in (home.path / "blobs" / "sha256").rglob("*") if path.is_file())
    damaged.write_bytes(b"Content")
    with home.database.read() as connection, pytest.raises(CorruptData, match="damaged"):
        artifacts.read_artifact(connection, home.blobs, run.id, "a.txt")


@pytest.mark.sqlite("the disk is the server's")
def test_a_full_disk_delays_but_loses_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "64m") as disk:
        (disk.folder / "davy.toml").write_text("")
        home = Home(disk.folder)
        with start_run(home=home) as run:
            run.log(loss=1.0)
            run.flush()
            logged = 0

            def log_on() -> None:
                nonlocal logged
                while logged < 2 * MOST_HELD:
                    run.log({"a_key_that_takes_some_room_on_the_disk": float(logged)}, step=logged)
                    logged += 1

            with disk.full():
                for refused in (log_on, run.flush):
                    with pytest.raises(StorageFull):
                        refused()
            run.flush()
        assert _values(home, run.id, "loss") == [1.0]
        assert _values(home, run.id, "a_key_that_takes_some_room_on_the_disk") == [float(step) for step in range(logged)]
        assert _read(home, run.id).status == "FINISHED"
        assert list((home.path / "spool").glob("*")) == []
        home.close()


@pytest.mark.parametrize(("ending", "status"), [("", "FINISHED"), ("raise ValueError", "FAILED"), ("os.kill(os.getpid(), signal.SIGINT)", "KILLED")])
def test_a_program_that_ends_without_finishing_its_run(home: Home, ending: str, status: str) -> None:
    program = f"import os, signal, time, sys\nfrom davy.tracking import run\nr = run('script')\nr.log(loss=1.0)\nprint(r.id)\n{ending}"
    done = subprocess.run([sys.executable, "-c", program], cwd=home.root, capture_output=True, text=True, check=False)
    found = _read(home, done.stdout.strip())
    assert (found.status, found.metrics) == (status, {"loss": 1.0})


def test_the_commit_is_found(home: Home) -> None:
    for command in (["init", "-q"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *command], cwd=home.root, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=home.root, check=True, capture_output=True, text=True).stdout.strip()
    with start_run(home=home) as run:
        pass
    assert _read(home, run.id).commit == head


def test_kill_loses_nothing_that_was_flushed_and_doubles_nothing(home: Home) -> None:
    program = """
import itertools
from davy.tracking import run
r = run("script")
print(r.id, flush=True)
for step in itertools.count():
    r.log(loss=step, step=step)
    if step % 500 == 0:
        r.flush()
        print(step, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=home.root, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        run_id = child.stdout.readline().strip()
        for _ in range(4):
            told = int(child.stdout.readline())
        child.kill()
    values = _values(home, run_id, "loss")
    assert len(values) > told
    assert values == [float(step) for step in range(len(values))]
    assert _read(home, run_id).metrics == {"loss": values[-1]}
    assert _read(home, run_id).status == "RUNNING"


def test_calls_that_do_not_fit_are_told_in_words(home: Home) -> None:
    with start_run(home=home) as run:
        with pytest.raises(InvalidInput, match=r"run\.param has no argument 'lr'"):
            run.param(lr=0.1)  # type: ignore[call-arg]
        with pytest.raises(InvalidInput, match="A dict came as the path") as refused:
            run.json("j.json", {"auc": 0.7})  # type: ignore[arg-type]
        assert "run.json(" in refused.value.fix
