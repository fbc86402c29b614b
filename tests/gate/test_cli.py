"""`davy gate` in a terminal, as JSON, JUnit and Markdown, and what `davy why` tells of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING
from xml.etree import ElementTree as Xml

import pytest

from davy.cli.main import run as davy
from davy.gate.record import Report, Result, runs
from davy.gate.report import to_junit, to_markdown
from gate.kit import ask, trained
from server_kit import alive, children, command_line, until

if TYPE_CHECKING:
    from pathlib import Path

    from davy.home import Home


@pytest.fixture
def here(quick: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.chdir(quick.root)
    return quick


def test_a_gate_that_passes(here: Home, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    version = trained(here, weight=0.131)
    capsys.readouterr()
    assert davy(["gate", version.reference, "--junit", str(tmp_path / "made" / "gate.xml"), "--markdown", str(tmp_path / "gate.md")]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].startswith("✓ integrity")
    assert f"The gate of {version.reference} has passed beside returns@1: 11 passed, 0 failed, 1 without enough data" in out
    suite = Xml.parse(tmp_path / "made" / "gate.xml").getroot().find("testsuite")
    assert suite is not None
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {"tests": "12", "failures": "0", "errors": "0", "skipped": "1"}
    assert [case.get("name") for case in suite if case.find("skipped") is not None] == ["requests"]
    text = (tmp_path / "gate.md").read_text()
    assert text.startswith(f"## ✅ Gate of `{version.reference}`\n")
    assert text.count("\n| ✅ |") == 11
    assert "<details>" not in text


def test_a_gate_that_fails(here: Home, capsys: pytest.CaptureFixture[str]) -> None:
    version = trained(here, "worse")
    capsys.readouterr()
    assert davy(["gate", version.reference, "--json"]) == 1
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert (found["passed"], found["complete"], found["stable"], found["version"]) == (False, True, 1, version.version)
    assert {item["check"] for item in found["results"] if item["blocks"]} >= {"quality", "baseline"}
    assert "✗ quality" in captured.err
    assert davy(["gate", version.reference, "--history"]) == 0
    out = capsys.readouterr().out
    assert found["gate"] in out
    assert found["evidence"][7:19] in out
    assert davy(["gate", version.reference, "--override", "the shops asked for it"]) == 0
    assert davy(["gate", version.reference, "--history", "--json"]) == 0
    assert [item["state"] for item in json.loads(capsys.readouterr().out.splitlines()[-1])] == ["overridden", "failed"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_gate_that_is_stopped_leaves_nothing(quick: Home, tmp_path: Path, number: signal.Signals) -> None:
    version = trained(quick, "sleepy")
    command, pipe = [sys.executable, "-m", "davy", "gate", version.reference], subprocess.PIPE
    judged = subprocess.Popen(command, cwd=quick.root, stdout=pipe, stderr=pipe, text=True, env={**os.environ, "TMPDIR": str(tmp_path)})
    workers = until(lambda: [pid for pid in children(judged.pid) if "davy.serving.worker" in command_line(pid)])
    judged.send_signal(number)
    error = judged.communicate(timeout=30)[1]
    assert judged.returncode == 130
    assert "Interrupted" in error
    until(lambda: not any(alive(pid) for pid in workers))
    assert list(tmp_path.iterdir()) == []
    with quick.database.read() as connection:
        assert runs(connection, "returns", version.version) == []


def test_wrong_input_is_told(here: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert davy(["gate"]) == 2
    assert davy(["gate", "returns@77"]) == 2
    assert davy(["gate", "retruns"]) == 2
    assert davy(["gate", "returns@1", "--only", "latancy"]) == 2
    assert "did you mean 'latency'" in capsys.readouterr().err


def test_the_checks_are_listed(here: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert davy(["gate", "--list", "--json"]) == 0
    found = {item["check"]: item for item in json.loads(capsys.readouterr().out)}
    assert len(found) == 15
    assert [name for name, item in found.items() if item["skipped"]] == ["latency", "memory", "rollback"]
    assert [name for name, item in found.items() if item["without data"] == "fails"] == ["integrity", "safe-format", "loads"]


def test_reports_go_to_stdout_too(here: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert davy(["gate", "returns@1", "--only", "integrity", "--markdown", "-"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("## ✅ Gate of `returns@1`")
    assert "chosen checks alone" in captured.out
    assert "✓ integrity" in captured.err


def test_why_tells_of_the_gate(here: Home, capsys: pytest.CaptureFixture[str]) -> None:
    version = trained(here, weight=0.131)
    prediction = ask(here, version, 1)[0].id
    capsys.readouterr()
    assert davy(["why", prediction]) == 0
    assert "├─ gate not run" in capsys.readouterr().out
    assert davy(["gate", version.reference, "--skip", "slices"]) == 0
    assert davy(["gate", version.reference]) == 0
    capsys.readouterr()
    assert davy(["why", prediction]) == 0
    assert "├─ gate passed 2024-02-10 00:00:00 by tester, evidence " in capsys.readouterr().out
    assert davy(["why", prediction, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gate"]["state"] == "passed"


NASTY = "a | b <script> & `x` *y* \x00\ud800 [z](w)"


def test_texts_can_not_break_a_report() -> None:
    results = (Result("mine", "Title", "fail", True, NASTY, NASTY, {"text": "```\n</details>", "more": NASTY.replace("\ud800", "")}, 0.5),
               Result("other", "Title", "not enough data", True, "none", "", {}, 0.1), Result("third", "Title", "not enough data", False, "none", "", {}, 0.1))
    report = Report("shop", 3, "sha256:0", 2, "", False, True, 1_704_067_200_000_000, 1.25, results)
    suite = Xml.fromstring(to_junit(report)).find("testsuite")
    assert suite is not None
    assert (suite.get("failures"), suite.get("skipped"), suite.get("timestamp")) == ("2", "1", "2024-01-01T00:00:00")
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.get("message", "").startswith("a | b <script> & `x`")
    text = to_markdown(report)
    row = next(line for line in text.splitlines() if line.startswith("| ❌ | mine"))
    assert row.replace("\\|", "").count("|") == 5
    assert "<script>" not in text.replace("\\<script\\>", "").split("```json")[0]
    assert text.count("```") == 4
