"""`davy alias` names versions, and says who moved a name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from davy.cli.main import run
from davy.home import Home
from davy.registry.models import resolve
from serving_kit import add_version

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def shop(project: Path) -> Path:
    home = Home(project)
    add_version(home)
    add_version(home, seed=1)
    home.close()
    return project


def test_a_name_is_set_moved_shown_and_taken_away(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--project", str(shop), "alias", "fraud"]
    assert run(where) == 0
    assert "fraud has no alias. Set one: davy alias fraud production 1" in capsys.readouterr().out
    assert run([*where, "production", "fraud@1"]) == 0
    assert run([*where, "candidate", "latest"]) == 0
    assert run([*where, "production", "candidate"]) == 0
    assert "fraud@production" in capsys.readouterr().out
    home = Home(shop)
    with home.database.read() as connection:
        assert resolve(connection, "fraud@production").version == 2
    home.close()
    assert run([*where, "candidate", "--delete", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"production": 2}


@pytest.mark.parametrize(("arguments", "said"), [
    (["frod"], "did you mean 'fraud'"), (["fraud", "production"], "Write: davy alias fraud production 1"), (["fraud", "production", "7"], "It has 1, 2"),
    (["fraud", "latest", "1"], "can't be an alias"), (["fraud", "production", "prod"], "no alias 'prod'")])
def test_what_is_wrong_is_said(shop: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--project", str(shop), "alias", *arguments]) == 2
    assert said in capsys.readouterr().err
