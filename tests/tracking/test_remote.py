"""Runs on a server: nothing waits for it, nothing is lost while it is away, nothing is sent twice to an effect."""

from __future__ import annotations

import base64
import hashlib
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from davy.errors import ConfigError, Conflict, InvalidInput, StorageFull
from davy.tracking import run as start_run
from davy.tracking.sinks import ServerSink
from davy.tracking.spool import Created, spools
from davy.tracking.sync import sync, waiting
from store.disk import small_disk
from tracking.server_stub import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without a project, and a cache of its own; returns where its spools lie."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DAVY_WAIT", "20")
    return tmp_path / "cache" / "davy" / "spool"


@pytest.fixture
def server() -> Iterator[Server]:
    stub = Server()
    yield stub
    stub.stop()


def _until(done: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _steps(run: dict[str, Any], key: str) -> list[int]:
    return sorted(step for name, step, _, _ in run["points"] if name == key)


def test_a_run_on_a_server_has_all_that_was_logged(server: Server, elsewhere: Path, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"\x00" * 3_000_000)
    with start_run("late", server=server.url, experiment="flights", params={"trees": 100}, tags={"team": "ops"}) as run:
        for step in range(2500):
            run.log(loss=step / 2, step=step)
        run.log({"odd": math.nan})
        run.log({"odd": math.inf})
        run.params({f"p{number}": number for number in range(150)})
        run.tags(stage="final")
        run.artifact(tmp_path / "model.bin", "model/ü 1.bin")
        run.text("hello", "notes.txt")
        run.dataset(tmp_path / "model.bin", "weights", context="training")
        with start_run("inner") as inner:
            inner.log(loss=1)
    found = server.runs[run.id]
    assert (found["name"], found["user"], found["status"], server.experiments) == ("late", "tester", "FINISHED", {"flights": "1", "Default": "2"})
    assert _steps(found, "loss") == list(range(2500))
    assert {(step, value) for key, step, _, value in found["points"] if key == "odd"} == {(0, "NaN"), (1, "Infinity")}
    assert found["params"] == {"trees": "100", **{f"p{number}": str(number) for number in range(150)}}
    assert {"team": "ops", "stage": "final", "mlflow.runName": "late"}.items() <= found["tags"].items()
    assert found["files"] == {"model/ü 1.bin": b"\x00" * 3_000_000, "notes.txt": b"hello"}
    assert found["datasets"][0]["dataset"]["digest"] == hashlib.sha256(b"\x00" * 3_000_000).hexdigest()[:32]
    assert server.runs[inner.id]["tags"]["mlflow.parentRunId"] == run.id
    assert spools(elsewhere) == []


def test_what_can_not_be_is_refused_at_the_call(server: Server) -> None:
    with start_run(server=server.url, params={"a": 1}) as run:
        for call in (lambda: run.log(loss="1"), lambda: run.log({"/": 1.0}), lambda: run.param("b", "x" * 6001)):
            with pytest.raises(InvalidInput):
                call()
        run.params(a=1)
        with pytest.raises(Conflict, match="'a' is '1' already"):
            run.params(c=3, a=2)
    assert server.runs[run.id]["params"] == {"a": "1"}
    with pytest.raises(Conflict, match="ended"):
        run.param("d", 1)
    for url in ("ftp://x", "localhost:5000", "http://", "http://x:y", "http://h/?a=1"):
        with pytest.raises(ConfigError, match="no server's address"):
            start_run(server=url)


def test_the_address_and_who_asks_come_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAVY_URL", server.url)
    monkeypatch.setenv("DAVY_TOKEN", "secret")
    with start_run():
        pass
    monkeypatch.setenv("DAVY_URL", server.url.replace("http://", "http://ada:p%40ss@"))
    with start_run():
        pass
    assert server.authorizations == {"Bearer secret", f"Basic {base64.b64encode(b'ada:p@ss').decode()}"}


def test_a_server_that_goes_away_and_comes_back_misses_and_doubles_nothing(server: Server) -> None:
    run = start_run(server=server.url, system_metrics=False)
    run.log(loss=0.0, step=0)
    _until(lambda: server.runs and server.runs[run.id]["points"])
    server.stop()
    for step in range(1, 3000):
        run.log(loss=float(step), step=step)
    run.flush()
    run.param("late", "yes")
    assert len(server.runs[run.id]["points"]) == 1
    server.start()
    server.slams = 1
    _until(lambda: len(server.runs[run.id]["points"]) == 3000)
    server.answers = [(503, {}), (429, {"Retry-After": "0.2"})]
    run.log(loss=3000.0, step=3000)
    _until(lambda: len(server.runs[run.id]["points"]) == 3001)
    run.finish()
    found = server.runs[run.id]
    assert _steps(found, "loss") == list(range(3001))
    assert (found["params"], found["status"], list(server.runs)) == ({"late": "yes"}, "FINISHED", [run.id])


def test_an_end_that_is_told_again_is_told_once(server: Server, elsewhere: Path) -> None:
    created = Created("Default", "late", "ada", 0, {}, {})
    sink = ServerSink(server.url, elsewhere, "a" * 32, created)
    sink.finish("FINISHED", 5000)
    assert spools(elsewhere) == []
    sink.finish("KILLED", 6000)
    assert (server.runs["a" * 32]["status"], server.runs["a" * 32]["ended"]) == ("FINISHED", 5)


PROGRAM = """
import sys
from davy.tracking import run
with run("script", server=sys.argv[1], params={"a": 1}) as r:
    print(r.id, flush=True)
    for step in range(5000):
        r.log(loss=float(step), step=step)
    r.text("kept", "a.txt")
"""


def test_what_is_left_at_the_end_waits_in_the_spool_for_davy_sync(server: Server, elsewhere: Path) -> None:
    server.stop()
    done = subprocess.run([sys.executable, "-c", PROGRAM, server.url], capture_output=True, text=True, check=True, env={**os.environ, "DAVY_WAIT": "0.5"})
    (spool,) = spools(elsewhere)
    assert f"{spool}" in done.stderr
    assert "davy sync" in done.stderr
    assert "Traceback" not in done.stderr
    away = subprocess.run([sys.executable, "-m", "davy", "sync"], capture_output=True, text=True, check=False)
    assert (away.returncode, "away" in away.stdout) == (3, True), away
    server.start()
    sent = subprocess.run([sys.executable, "-m", "davy", "sync", "--json"], capture_output=True, text=True, check=False)
    assert (sent.returncode, '"state":"sent"' in sent.stdout) == (0, True), sent
    found = server.runs[done.stdout.strip()]
    assert _steps(found, "loss") == list(range(5000))
    assert (found["status"], found["params"], found["files"], spools(elsewhere)) == ("FINISHED", {"a": "1"}, {"a.txt": b"kept"}, [])
    assert subprocess.run([sys.executable, "-m", "davy", "sync"], capture_output=True, text=True, check=True).stdout == "Nothing waits.\n"


def test_a_killed_process_has_its_run_sent_and_ended_and_a_torn_tail_is_left_out(server: Server, elsewhere: Path) -> None:
    server.stop()
    program = PROGRAM.replace('    r.text("kept", "a.txt")', '    r.flush()\n    print("flushed", flush=True)\n    import time; time.sleep(100)')
    with subprocess.Popen([sys.executable, "-c", program, server.url], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        run_id = child.stdout.readline().strip()
        assert child.stdout.readline() == "flushed\n"
        server.start()
        assert [outcome.state for outcome in sync(waiting(None))] == ["in use"]
        server.stop()
        child.kill()
    (spool,) = spools(elsewhere)
    with max(spool.glob("*.wal")).open("ab") as file:
        file.write(b"\x40\x00\x00\x00torn")
    server.start()
    assert [outcome.state for outcome in sync(waiting(None))] == ["sent"]
    assert _steps(server.runs[run_id], "loss") == list(range(5000))
    assert server.runs[run_id]["status"] == "KILLED"


def test_two_syncs_at_once_send_a_spool_once(server: Server, elsewhere: Path) -> None:
    server.stop()
    for _ in range(3):
        subprocess.run([sys.executable, "-c", PROGRAM, server.url], capture_output=True, check=True, env={**os.environ, "DAVY_WAIT": "0"})
    server.start()
    syncs = [subprocess.Popen([sys.executable, "-m", "davy", "sync"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    codes = [child.communicate() and child.returncode for child in syncs]
    assert codes == [0, 0]
    assert sorted(call for call in server.requests if call.endswith("runs/create")) == ["/api/2.0/mlflow/runs/create"] * 3
    assert [_steps(run, "loss") for run in server.runs.values()] == [list(range(5000))] * 3
    assert spools(elsewhere) == []


def test_a_sync_that_dies_half_way_goes_on_from_there(server: Server, elsewhere: Path) -> None:
    server.stop()
    done = subprocess.run([sys.executable, "-c", PROGRAM, server.url], capture_output=True, text=True, check=True, env={**os.environ, "DAVY_WAIT": "0"})
    server.start()
    server.refuses = "kept"
    (spool,) = spools(elsewhere)
    server.slams, server.spare = 2, 7
    assert [outcome.state for outcome in sync(waiting(None))] == ["away"]
    assert 0 < waiting(None)[0].records < 10
    assert 2000 < len(server.runs[done.stdout.strip()]["points"]) < 5000
    assert [outcome.state for outcome in sync(waiting(None))] == ["refused"]
    assert spool.exists()
    server.refuses = ""
    assert [outcome.state for outcome in sync(waiting(None))] == ["sent"]
    found = server.runs[done.stdout.strip()]
    assert (_steps(found, "loss"), found["files"], found["status"]) == (list(range(5000)), {"a.txt": b"kept"}, "FINISHED")


def test_a_server_that_asks_for_no_number_of_seconds_is_tried_again(server: Server) -> None:
    server.answers = [(503, {"Retry-After": "nan"})]
    with start_run(server=server.url) as run:
        run.log(loss=1.0)
    assert server.runs[run.id]["status"] == "FINISHED"


def test_what_a_server_refuses_is_told_once_and_kept(server: Server, elsewhere: Path, capfd: pytest.CaptureFixture[str]) -> None:
    server.refuses = "poison"
    with start_run(server=server.url) as run:
        run.tag("note", "poison")
        run.log(loss=1.0)
    assert capfd.readouterr().err.count("no poison here") == 1
    assert len(server.runs[run.id]["points"]) == 1
    (spool,) = spools(elsewhere)
    (outcome,) = sync(waiting(None))
    assert (outcome.state, outcome.path) == ("refused", str(spool))
    server.refuses = ""
    assert [outcome.state for outcome in sync(waiting(None))] == ["sent"]
    assert server.runs[run.id]["tags"]["note"] == "poison"
    assert spools(elsewhere) == []


def test_a_server_that_does_not_know_who_writes_gets_nothing_until_it_does(server: Server, elsewhere: Path) -> None:
    server.answers = [(401, {"WWW-Authenticate": 'Basic realm="mlflow"'})]
    done = subprocess.run([sys.executable, "-c", PROGRAM, server.url], capture_output=True, text=True, check=True)
    assert ("DAVY_TOKEN" in done.stderr, done.stderr.count("takes nothing"), server.runs) == (True, 1, {})
    server.answers = [(403, {})]
    assert [outcome.state for outcome in sync(waiting(None))] == ["refused"]
    (spool,) = spools(elsewhere)
    assert "password" not in (spool / "head.json").read_text()
    assert [outcome.state for outcome in sync(waiting(None))] == ["sent"]
    assert _steps(server.runs[done.stdout.strip()], "loss") == list(range(5000))


def test_a_full_disk_delays_a_run_on_a_server_but_loses_nothing(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with small_disk(tmp_path / "small", "8m") as disk:
        monkeypatch.setenv("XDG_CACHE_HOME", str(disk.folder))
        with start_run(server=server.url) as run:
            run.log(loss=0.0, step=0)
            run.flush()
            with disk.full():
                for step in range(1, 50_000):
                    run.log(loss=float(step), step=step)
                for refused in (run.flush, lambda: run.param("a", "x" * 6000), lambda: run.artifact(b"x" * 100_000, "x.bin")):
                    with pytest.raises(StorageFull):
                        refused()
            run.param("a", "y")
        found = server.runs[run.id]
        assert _steps(found, "loss") == list(range(50_000))
        assert (found["params"], found["files"], found["status"]) == ({"a": "y"}, {}, "FINISHED")
        assert spools(disk.folder / "davy" / "spool") == []


def test_a_forked_child_logs_to_the_server_too(server: Server, elsewhere: Path) -> None:
    program = """
import os, sys
from davy.tracking import run
with run("script", server=sys.argv[1]) as r:
    print(r.id, flush=True)
    for step in range(100):
        r.log(loss=float(step), step=step)
    child = os.fork()
    for step in range(100):
        r.log({"child" if child == 0 else "parent": float(step)}, step=step)
    if child == 0:
        sys.exit()
    assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run([sys.executable, "-c", program, server.url], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = server.runs[done.stdout.strip()]
    assert {key: _steps(found, key) for key in ("loss", "child", "parent")} == {key: list(range(100)) for key in ("loss", "child", "parent")}
    assert (found["status"], spools(elsewhere)) == ("FINISHED", [])
