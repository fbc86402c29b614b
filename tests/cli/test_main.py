"""The group of verbs through its front door: help, errors, exit codes, interruption."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import click
import pytest

from davy.cli import folders
from davy.cli.main import BY_NAME, VERBS, davy, run

if TYPE_CHECKING:
    from pathlib import Path


WAITS = """
import signal, sys, click
from davy.cli import version
from davy.cli.main import main

@click.command
def wait():
    print("ready", flush=True)
    signal.pause()

version.command = wait
sys.argv = ["davy", "version"]
main()
"""


def test_help_names_every_verb_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    for verb in VERBS:
        assert f"  {verb.name} " in text
        assert verb.example in text
        assert verb.example.split()[:2] == ["davy", verb.name]


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_every_verb_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Example" in text
    assert "--project" in text
    command = import_module(f"davy.cli.{name}").command
    assert isinstance(command, click.Command)
    assert command.help


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_the_example_is_one_that_the_verb_can_parse(name: str) -> None:
    words = BY_NAME[name].example.split()[2:]
    command = import_module(f"davy.cli.{name}").command
    files = [word for word in words if word.endswith(".jsonl")]
    if not files:
        command.make_context(name, words)


def test_an_unknown_verb_names_its_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["trian"]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.splitlines() == ["There is no verb 'trian'.", "did you mean 'train'?", "See them all: davy --help"]


def test_an_unknown_option_says_where_to_look(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version", "--jsn"]) == 2
    err = capsys.readouterr().err
    assert "--json" in err
    assert "davy version --help" in err


def test_an_option_without_its_value_names_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "late", "--experiment"]) == 2
    assert "davy train --help" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "said"), [
    ('[serving]\nport = "many"\n', ["serving.port is 'many', a text.", "It is a whole number.", "the default is 8080"]),
    ('[serving]\nallow_globals = [3]\n', ["serving.allow_globals is [3].", "It is a list of text."]),
    ('[predictions]\ndurability = "none"\n', ["predictions.durability is 'none'", '"buffered"']),
    ('serving = 3\n', ["serving is 3", "It is a table."]),
])
def test_a_wrong_setting_is_told_in_the_words_of_the_file(text: str, said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "davy.toml").write_text(text)
    assert run(["--project", str(tmp_path), "runs"]) == 2
    err = capsys.readouterr().err
    for part in said:
        assert part in err


def test_version_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["python"] == ".".join(map(str, sys.version_info[:3]))


@pytest.mark.parametrize("words", [["--home", "h", "--project", "p", "probe"], ["probe", "--home", "h", "--project", "p"],
                                   ["--home", "h", "probe", "--project", "p"]])
def test_folders_may_stand_before_or_after_the_verb(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    @click.command
    def probe() -> None:
        seen.append([str(folder) for folder in folders()])

    monkeypatch.setattr("davy.cli.version.command", probe)
    monkeypatch.chdir(tmp_path)
    assert run(["version" if word == "probe" else word for word in words]) == 0
    assert seen == [["p", "h"]]


def test_outside_a_project_the_error_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["runs"]) == 2
    assert "davy init DIR" in capsys.readouterr().err


def test_a_bug_is_shown_whole_with_a_code_of_its_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    @click.command
    def broken() -> None:
        raise ZeroDivisionError("one over nothing")

    monkeypatch.setattr("davy.cli.version.command", broken)
    assert run(["version"]) == 70
    assert "one over nothing" in capsys.readouterr().err


def test_ctrl_c_ends_cleanly() -> None:
    child = subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "Traceback" not in err


def test_a_reader_that_leaves_is_no_error() -> None:
    done = subprocess.run(f"{sys.executable} -m davy version | head -c 1", shell=True, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


def test_the_group_takes_no_heavy_library() -> None:
    assert davy.list_commands(click.Context(davy)) == [verb.name for verb in VERBS]
