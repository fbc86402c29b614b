"""The verbs of a release, without a server: what they change, what they print, and their exit codes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from davy.cli.main import run
from davy.home import Home
from davy.release.controller import Controller
from davy.release.traffic import set_traffic
from serving_kit import add_version

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def shop(project: Path) -> Path:
    home = Home(project)
    for seed in range(3):
        add_version(home, seed=seed)
    set_traffic(home, "fraud", {"fraud@1": 1.0})
    home.close()
    return project


def davy(shop: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = run([*words, "--project", str(shop)])
    said = capsys.readouterr()
    return code, said.out, said.err


def as_json(shop: Path, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    code, out, error = davy(shop, capsys, *words, "--json")
    assert code == 0, error
    return json.loads(out)


def look(shop: Path) -> None:
    """What the controller of a running server does."""
    home = Home(shop)
    controller = Controller(home, [])
    controller.look()
    controller.close()
    home.close()


def test_a_release_from_its_beginning_to_its_end_by_hand(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, error = davy(shop, capsys, "release", "fraud@2", "--steps", "10,50")
    assert (code, out) == (0, "release of fraud@2 (canary): pending\n")
    assert "davy up" in error
    look(shop)
    found = as_json(shop, capsys, "status", "fraud")
    assert [(row["version"], row["arm"], row["weight"]) for row in found["live"]] == [(1, "stable", 0.9), (2, "canary", 0.1)]
    assert found["releases"][0]["state"] == "step 1"
    assert found["releases"][0]["steps"] == [0.1, 0.5, 1.0]
    assert as_json(shop, capsys, "pause", "fraud", "--reason", "lunch")["reasons"] == ["lunch"]
    assert "paused" in davy(shop, capsys, "status")[1]
    assert as_json(shop, capsys, "resume", "fraud")["state"] == "step 1"
    code, out, _ = davy(shop, capsys, "promote", "fraud")
    assert (code, out) == (0, "release of fraud@2: promoted, fraud@2 1\n")
    assert as_json(shop, capsys, "rollback", "fraud")["state"] == "rolled back"
    code, _, error = davy(shop, capsys, "rollback", "fraud")
    assert code == 2
    assert "can't be asked to roll back" in error


def test_shadow_blue_green_and_all_at_once(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert as_json(shop, capsys, "release", "fraud@2", "--strategy", "shadow")["state"] == "pending"
    look(shop)
    assert [(row["version"], row["arm"], row["weight"]) for row in as_json(shop, capsys, "status")["live"]] == [(1, "stable", 1.0), (2, "shadow", 0.0)]
    assert as_json(shop, capsys, "abort", "fraud")["weights"] == {"fraud@1": 1.0}
    as_json(shop, capsys, "release", "fraud@2", "--strategy", "blue-green")
    look(shop)
    assert as_json(shop, capsys, "status")["releases"][0]["weights"] == {"fraud@2": 1.0}
    assert as_json(shop, capsys, "rollback", "fraud")["weights"] == {"fraud@1": 1.0}
    assert as_json(shop, capsys, "release", "fraud@3", "--strategy", "all-at-once")["state"] == "promoted"


@pytest.mark.parametrize(("words", "said"), [
    (["release", "fraud@1"], "has all the traffic already"),
    (["release", "fraud@9"], "no version 9"),
    (["release", "fraud@2", "--steps", "fast"], "'fast' are no steps"),
    (["release", "fraud@2", "--steps", "50,10"], "50, 10 are no steps"),
    (["release", "fraud@2", "--strategy", "rolling"], "--strategy"),
    (["promote", "fraud"], "fraud has had no release"),
    (["abort", "nobody"], "nobody"),
    (["status", "nobody"], "nobody"),
])
def test_wrong_input_is_told_and_changes_nothing(shop: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    code, out, error = davy(shop, capsys, *words)
    assert (code, out) == (2, "")
    assert said in error
    assert as_json(shop, capsys, "status")["releases"] == []


def test_weights_by_hand_and_a_second_release_wait_for_the_first(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    as_json(shop, capsys, "release", "fraud@2")
    for words in (["traffic", "fraud", "fraud@1=1"], ["release", "fraud@3"]):
        code, _, error = davy(shop, capsys, *words)
        assert code == 2
        assert "davy abort fraud" in error
    as_json(shop, capsys, "abort", "fraud")
    assert davy(shop, capsys, "traffic", "fraud", "fraud@3=1")[0] == 0


def test_with_nothing_released_it_says_how_to_begin(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = davy(project, capsys, "status")
    assert code == 0
    assert out.split("\n\n") == ["No version takes traffic. Release one: davy release MODEL@VERSION", "No release yet. Begin one: davy release MODEL@VERSION",
                                 "Nothing has been answered yet.\n"]
