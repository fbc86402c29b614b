"""`davy init` writes a project in which every command that its README names works."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from databases import write_settings
from davy.demo.project import FILES, example, start_project
from davy.errors import Conflict
from davy.project import load_project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = 1_767_225_600_000_000


def davy(folder: Path, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "davy", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"davy {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("first") / "shop"
    davy(root.parent, "init", str(root))
    write_settings(root, (root / "davy.toml").read_text())
    return root


@pytest.fixture
def server(folder: Path) -> Iterator[None]:
    with (folder / "davy.toml").open("a") as settings:
        settings.write("[serving]\nport = 0\n")
    process = subprocess.Popen([sys.executable, "-m", "davy", "up"], cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "http://" in process.stdout.readline()
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def test_the_project_is_one(folder: Path) -> None:
    project = load_project(folder)
    assert list(project.models) == ["returned"]
    assert project.models["returned"].spec.feature_set.outputs == ("orders_1d", "orders_30d", "mean_amount_30d", "unusual", "amount")
    assert (folder / "davy.toml").read_text().startswith('project = "shop"')


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_command_of_its_readme_works(folder: Path, request: pytest.FixtureRequest) -> None:
    before, after = re.findall(r"```\n(davy .*?)\n```", (folder / "README.md").read_text(), re.S)
    *first, up = before.splitlines()
    assert up == "davy up"
    for line in first:
        davy(folder, *line.split()[1:])
    request.getfixturevalue("server")
    for line in after.splitlines():
        davy(folder, *line.split()[1:])
    answer = json.loads(davy(folder, "predict", "returned", "customer=c07", "amount=120.5", "--json"))
    assert 0 < answer["prediction"] < 1
    assert "orders" in davy(folder, "why", answer["prediction_id"])
    davy(folder, "train", "returned", "-p", "strength=0.1")
    davy(folder, "gate", "returned@2")
    assert json.loads(davy(folder, "release", "returned@2", "--json"))["state"] == "pending"
    found = json.loads(davy(folder, "replay", "returned", "--json"))
    assert found["checked"] == found["equal"] == 2


def test_its_data_end_an_hour_ago_and_are_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        start_project(tmp_path / name, now=NOW)
    orders = (tmp_path / "one" / "data" / "orders.csv").read_text()
    assert orders == (tmp_path / "two" / "data" / "orders.csv").read_text()
    times = [line.partition(",")[0] for line in orders.splitlines()[1:]]
    assert times == sorted(times)
    assert times[-1] <= "2025-12-31T23:00:00Z" < "2026"


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(Conflict, match="davy init"):
        start_project(tmp_path, now=NOW)
    assert os.listdir(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("name", ["flights", "starter"])
def test_examples_are_complete(name: str) -> None:
    assert all((example(name) / file).is_file() for file in FILES)
    assert load_project(example(name)).models
