"""What the verbs say to input that is nearly right."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from davy import Stream
from davy.cli.main import run
from davy.core.clock import DrivenClock
from davy.errors import Conflict, DefinitionError

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Answered

FEATURES = """
import davy
print("hello")
clicks = davy.Stream("clicks", time="at", fields={"user": str})
"""
GOOD = '{"at": "2026-01-01T00:00:00Z", "user": "ann"}\n'


@pytest.fixture
def shop(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (project / "features.py").write_text(FEATURES)
    DrivenClock(project / ".davy" / "run" / "clock", start=1_767_312_000_000_000)
    monkeypatch.chdir(project)
    return project


@pytest.mark.parametrize(("words", "says"), [
    (["audit", "--expect", "abc"], "not the digest"),
    (["replay", "late", "--start", "2013-06-01T00:00Z", "--end", "2013-05-01T00:00Z"], "is not before --end"),
    (["traffic", "lat", "late@1=1"], "did you mean 'late'"),
    (["runs", "01"], "first six or more"),
    (["reproduce", "late"], "late@2"),
    (["predict", "late", "origin=JFK", "origin=LGA", "--at", "127.0.0.1:1"], "given twice"),
    (["predict", "late", "origin=JFK", "--at", "127.0.0.1:1"], "refused"),
])
def test_nearly_right_input_is_led_on(answered: Answered, words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = run([*words, "--project", str(answered.root)])
    assert code in (2, 3), code
    assert says in capsys.readouterr().err


def test_a_head_counts_with_and_without_its_prefix(answered: Answered, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--project", str(answered.root)]
    assert run(["audit", "--json", *place]) == 0
    head = json.loads(capsys.readouterr().out)["head"]
    for noted in (head, head.removeprefix("sha256:"), head.upper().replace("SHA256", "sha256")):
        assert run(["audit", "--expect", noted, *place]) == 0
    assert run(["audit", "--expect", "0" * 63 + "1", *place]) == 1


@pytest.mark.parametrize(("name", "text", "says"), [
    ("bad.jsonl", GOOD + "\n" + '{"at": "2026-01-01T00:00:00Z", "user": 7}\n', "bad.jsonl, line 3: The field 'user'"),
    ("bad.jsonl", GOOD + '{"user": "ann"}\n', "bad.jsonl, line 2 has no 'at'"),
    ("bad.json", '[{"user": "ann"}]', "bad.json, row 1 has no 'at'"),
    ("bad.csv", "at,user\n", "davy ingest STREAM --source bad.csv"),
])
def test_a_wrong_row_is_named_by_its_line(shop: Path, name: str, text: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / name).write_text(text)
    assert run(["push", "clicks", name]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert name.endswith(".csv") or said.rstrip().endswith("Nothing was taken.")


def test_json_is_the_only_line_of_stdout(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "good.jsonl").write_text(GOOD)
    assert run(["push", "clicks", "good.jsonl", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["accepted"] == 1
    assert "hello" in told.err


def test_init_speaks_of_the_folder_that_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "shop").mkdir()
    monkeypatch.chdir(tmp_path / "shop")
    assert run(["init", "."]) == 0
    told = capsys.readouterr()
    assert str(tmp_path / "shop") in told.err
    assert "cd " not in told.out
    assert run(["init", "."]) == Conflict.exit_code
    assert f"davy init {tmp_path / 'shop-2'}" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "says"), [("str", "without quotes: str"), (datetime, "davy.Time"), ("flaot", "did you mean 'float'")])
def test_a_kind_that_is_none_is_led_on(kind: object, says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        Stream("s", time="at", fields={"card": kind})
