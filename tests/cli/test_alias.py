"""`davy alias` names versions, and says who moved a name."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from databases import write_settings
from davy.api import close_homes
from davy.cli.main import run
from davy.core.clock import DrivenClock
from davy.errors import InvalidInput
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
    (["fraud", "latest", "1"], "can't be an alias"), (["fraud", "7", "1"], "can't be an alias"),
    (["fraud", "--at", "2026-03-03"], "--at came without the alias"), (["fraud", "production", "--at", "2026-03-03"], "has never been set"),
    (["fraud", "production", "--at", "noon"], "ISO 8601"), (["fraud", "production", "1", "--history"], "ask what was"),
    (["fraud", "--delete"], "Write: davy alias fraud production --delete"), (["fraud", "production", "1", "--delete"], "--delete came with a version"),
    (["frod", "--history"], "did you mean 'fraud'"), (["fraud", "production", "prod"], "no alias 'prod'")])
def test_what_is_wrong_is_said(shop: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--project", str(shop), "alias", *arguments]) == 2
    assert said in capsys.readouterr().err


MARCH = 1_772_496_000_000_000  # 3 March 2026, 00:00 UTC
HOUR = 3_600_000_000


def _moved(shop: Path, moment: int, *arguments: str) -> None:
    """Give that command at that moment."""
    DrivenClock(shop / ".davy" / "run" / "clock", start=moment)
    assert run(["--project", str(shop), "alias", "fraud", "production", *arguments]) == 0


def _without_gates(text: str) -> str:
    """The kit's versions have passed their gates, which stand before the reason."""
    assert "passed" in text or "nothing" in text
    return re.sub(r"gate [0-9a-f]{32} passed, ", "", text)


def test_what_it_meant_on_a_day_and_at_an_hour_is_told(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _moved(shop, MARCH - 24 * HOUR, "1", "--reason", "first")
    _moved(shop, MARCH + 10 * HOUR, "2", "--reason", "fewer false alarms")
    _moved(shop, MARCH + 48 * HOUR, "--delete")
    ask = ["--project", str(shop), "alias", "fraud", "production"]
    capsys.readouterr()
    for at, told in (("2026-03-02T12:00:00Z", ["fraud@production meant fraud@1 since 2026-03-02 00:00:00 UTC, by tester (first)"]),
                     ("2026-03-03", ["fraud@production meant fraud@1 since 2026-03-02 00:00:00 UTC, by tester (first)",
                                     "fraud@production meant fraud@2 from 2026-03-03 10:00:00 UTC on, by tester (fewer false alarms)"]),
                     ("2026-03-03T12:00:00+02:00", ["fraud@production meant fraud@2 since 2026-03-03 10:00:00 UTC, by tester (fewer false alarms)"]),
                     ("2026-03-02", ["fraud@production meant fraud@1 since 2026-03-02 00:00:00 UTC, by tester (first)"]),
                     ("2026-04-01", ["fraud@production meant nothing since 2026-03-05 00:00:00 UTC, by tester"])):
        assert run([*ask, "--at", at]) == 0
        assert _without_gates(capsys.readouterr().out).splitlines() == told
    assert run([*ask, "--at", "2026-03-01"]) == 2
    assert "had not been set by 2026-03-01" in capsys.readouterr().err
    assert run([*ask, "--at", "2026-03-03", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["from"], found["to"]) == ("2026-03-03T00:00:00.000000Z", "2026-03-03T23:59:59.999999Z")
    assert [(move["version"], move["evidence"]["reason"], move["evidence"]["verdict"]) for move in found["moves"]] == [
        (2, "fewer false alarms", "passed"), (1, "first", "passed")]
    assert run([*ask, "--history"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["taken away" in lines[1], "fewer false alarms" in lines[2], "first" in lines[3], len(lines)] == [True, True, True, 4]
    assert run(["--project", str(shop), "alias", "fraud", "--history", "--json"]) == 0
    assert [move["version"] for move in json.loads(capsys.readouterr().out)["moves"]] == [None, 2, 1]


def test_python_tells_the_same(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import davy

    _moved(shop, MARCH, "1")
    _moved(shop, MARCH + HOUR, "2")
    monkeypatch.chdir(shop)
    assert [move.version for move in davy.alias_history("fraud", "production")] == [2, 1]
    assert [move.version for move in davy.alias_history("fraud", "production", at="2026-03-03T00:30:00Z")] == [1]
    with pytest.raises(InvalidInput, match="without the alias"):
        davy.alias_history("fraud", at="2026-03-03T00:30:00Z")
    close_homes()


def test_protected_aliases_are_shown(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_settings(shop, '[registry]\nprotected = ["production"]\n')
    where = ["--project", str(shop), "alias", "fraud"]
    assert run([*where, "production", "1"]) == 0
    assert run([*where, "other", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[-2:]] == ["no", "yes"]
