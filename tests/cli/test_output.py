"""Tables, JSON and progress as a pipe and a terminal see them."""

from __future__ import annotations

import json
import math
import os
import pty
import re
import subprocess
import sys
import termios

import pytest

from davy.cli.output import cell, print_json, progress, table, when


def test_a_table_aligns_words_left_and_numbers_right(capsys: pytest.CaptureFixture[str]) -> None:
    table([{"name": "late", "rows": 5}, {"name": "a", "rows": 12345}])
    assert capsys.readouterr().out.splitlines() == ["name   rows", "late      5", "a     12345"]


def test_an_empty_table_says_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    table([], empty="No runs yet. Make one: davy train MODEL")
    assert capsys.readouterr().out == "No runs yet. Make one: davy train MODEL\n"


def test_cells() -> None:
    assert [cell(value) for value in (None, True, 0.123456789, 7, "x")] == ["", "yes", "0.123457", "7", "x"]
    assert when(0) == "1970-01-01 00:00:00"
    assert when(None) == ""


def test_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [1, 2.5, None], "b": "\n"})
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"a": [1, 2.5, None], "b": "\n"}


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": math.nan})
    assert json.loads(capsys.readouterr().out) == {"a": None}


def test_progress_is_plain_on_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("events", 10) as bar:
        bar.advance(4)
        bar.advance(6)
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("events: 10 of 10 (")


@pytest.mark.parametrize("program", ["from davy.cli.output import progress\nwith progress('events', 10) as bar: bar.advance(10)",
                                     "from davy.cli.output import table\ntable([{'name': '[red]late', 'rows': 5}])"])
def test_on_a_terminal_rich_draws(program: str) -> None:
    leader, follower = pty.openpty()
    done = subprocess.run([sys.executable, "-c", program], stdout=follower, stderr=follower, stdin=follower, timeout=60, check=False)
    os.close(follower)
    text = os.read(leader, 65536).decode()
    os.close(leader)
    assert done.returncode == 0
    assert "\x1b[" in text
    assert "10/10" in text or "[red]late" in text


@pytest.mark.parametrize("columns", [200, 80, 50])
def test_a_narrow_terminal_breaks_no_id_and_no_number(columns: int) -> None:
    program = ("from davy.cli.output import table\ntable([{'run': '01a214dd1fcf', 'name': 'sweep_' * 12, 'status': 'FINISHED', "
               "'started (UTC)': '2026-11-25 22:39:25', 'auc': 0.581994, 'loss': 0.0884879}] * 2)")
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (40, columns))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    subprocess.run([sys.executable, "-c", program], stdout=follower, stderr=follower, stdin=follower, timeout=60, check=True, env=environment)
    os.close(follower)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", os.read(leader, 65536).decode()).splitlines()
    os.close(leader)
    assert max(len(line.rstrip()) for line in lines) <= columns
    for whole in ("01a214dd1fcf", "FINISHED", "0.581994", "0.0884879", "2026-11-25", "22:39:25"):
        assert sum(whole in line for line in lines) == 2
    assert ("name  " in "".join(lines[1:])) == (columns == 50)
