"""An mlflow.db and an mlruns folder with one of everything, made once by MLflow's own client in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stock_kit import environment, peer

HERE = Path(__file__).parent
ALLOWED = {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "PYTHONWARNINGS": "ignore"}


@dataclass(frozen=True)
class Filled:
    """A source, and the ids of what stands in it."""

    path: Path
    ids: dict[str, str]

    @property
    def uri(self) -> str:
        """As MLflow's client calls it."""
        return f"sqlite:///{self.path}" if self.path.suffix == ".db" else str(self.path)


def program(name: str, *arguments: str, python: str | Path = sys.executable) -> Any:
    """What a program beside this file prints, as JSON."""
    ended = subprocess.run([python, HERE / name, *arguments], capture_output=True, text=True, check=False, env={**environment(), **ALLOWED})
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout[ended.stdout.index("{"):])


def filled(folder: Path, name: str, python: str | Path = sys.executable) -> Filled:
    folder.mkdir(parents=True, exist_ok=True)
    made = Filled(folder / name, {})
    return Filled(made.path, program("fill.py", made.uri, str(folder), python=python))


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    return filled(tmp_path_factory.mktemp("database"), "mlflow.db")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    return filled(tmp_path_factory.mktemp("folder"), "mlruns")


@pytest.fixture(scope="session")
def old_folder(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """What MLflow 2.22 writes."""
    return filled(tmp_path_factory.mktemp("old"), "mlruns", peer("mlflow2"))
