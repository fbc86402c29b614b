"""What is no source, and what of a source can't be had: told, with nothing half."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from davy.cli.main import run as davy

if TYPE_CHECKING:
    from pathlib import Path

    from davy.home import Home


@pytest.fixture(autouse=True)
def _inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def _nothing_came(home: Home) -> None:
    from davy.schema.tables import experiments, runs

    with home.database.read() as connection:
        assert [row.name for row in connection.execute(experiments.select())] == ["Default"]
        assert not connection.execute(runs.select()).all()


def test_what_is_no_source_is_said_and_nothing_comes(home: Home, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "words.db").write_text("These are words. " * 100)
    with sqlite3.connect(project / "other.db") as other:
        other.execute("CREATE TABLE experiments (name TEXT)")
    other.close()
    (project / "run" / "mlruns").mkdir(parents=True)
    (project / "mlartifacts" / "1").mkdir(parents=True)
    said = {"nowhere.db": "There is no file or folder", "words.db": "no SQLite database", "other.db": "not MLflow's", "run": "davy import mlflow",
            "mlartifacts": "no experiments of MLflow", "http://127.0.0.1:9": "http://127.0.0.1:9 failed"}
    for source, text in said.items():
        code = davy(["import", "mlflow", source])
        assert (code, text in capsys.readouterr().err) == (3 if source.startswith("http") else 2, True), source
    assert davy(["import", "mlflow", "other.db", "--artifacts", "nowhere"]) == 2
    assert "no folder nowhere" in capsys.readouterr().err
    _nothing_came(home)


def test_without_mlflow_it_says_what_to_install(project: Path) -> None:
    program = "import sys; sys.modules['mlflow'] = None; from davy.cli.main import run; sys.exit(run(['import', 'mlflow', 'http://127.0.0.1:9']))"
    ended = subprocess.run([sys.executable, "-c", program], cwd=project, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "pip install 'davy[mlflow]'" in ended.stderr
    assert "Traceback" not in ended.stderr
