"""Runs on a real server: what is logged there is what would have been logged in its own home."""

from __future__ import annotations

import math
import signal
from typing import TYPE_CHECKING

import pytest

from davy.home import Home
from davy.tracking import run as start_run
from davy.tracking import runs
from davy.tracking.artifacts import read_artifact
from davy.tracking.history import metric_history
from davy.tracking.inputs import datasets_of
from davy.tracking.spool import spools
from server_kit import Running

if TYPE_CHECKING:
    from pathlib import Path


def test_a_run_outlives_its_server(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DAVY_WAIT", "60")
    with Running(project, "--only", "tracking") as server:
        monkeypatch.setenv("DAVY_URL", f"http://127.0.0.1:{server.port}")
        run = start_run("late", experiment="flights", params={"trees": 100}, tags={"team": "ops"}, system_metrics=False)
        for step in range(3000):
            run.log(loss=float(step), step=step)
        run.log({"odd": math.inf})
        run.flush()
        server.stop(signal.SIGKILL)
    for step in range(3000, 6000):
        run.log(loss=float(step), step=step)
    run.log({"odd": math.nan})
    run.param("depth", 4)
    run.dataset(__file__, "code", context="test")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "ü 1.bin").write_bytes(b"\x01" * 5_000_000)
    run.artifact(tmp_path / "model")
    run.text("hello", "notes.txt")
    run.flush()
    with Running(project, "--only", "tracking", "--port", str(server.port)):
        run.finish()
    home = Home(project)
    with home.database.read() as connection:
        found = runs.get_run(connection, run.id)
        assert (found.name, found.experiment, found.status, found.user) == ("late", "flights", "FINISHED", "tester")
        assert (found.params, found.tags["team"]) == ({"trees": "100", "depth": "4"}, "ops")
        history = metric_history(connection, run.id, "loss")
        assert (history.steps, history.values) == (list(range(6000)), [float(step) for step in range(6000)])
        assert str(metric_history(connection, run.id, "odd").values) == "[inf, nan]"
        (used,) = datasets_of(connection, [run.id])[run.id]
        assert (used.dataset.name, used.tags) == ("code", (("mlflow.data.context", "test"),))
        assert read_artifact(connection, home.blobs, run.id, "model/ü 1.bin") == b"\x01" * 5_000_000
        assert read_artifact(connection, home.blobs, run.id, "notes.txt") == b"hello"
    home.close()
    assert spools(tmp_path / "cache" / "davy" / "spool") == []
