"""`davy push` and `davy ingest` through the front door."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from davy.cli.main import run

FEATURES = '''
import davy
clicks = davy.Stream("clicks", time="at", fields={"user": str, "amount": float}, source="clicks.parquet")
orders = davy.Stream("orders", time="at", fields={"order": str}, id="order")
'''
ROW = {"at": "2020-01-01T00:00:00Z", "user": "ann", "amount": 1.5}


@pytest.fixture
def shop(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (project / "features.py").write_text(FEATURES)
    monkeypatch.chdir(project)
    return project


def test_ingest_twice_adds_once(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pl.DataFrame([ROW, ROW]).with_columns(pl.col("at").str.to_datetime(time_zone="UTC")).write_parquet(shop / "clicks.parquet")
    assert run(["ingest", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["accepted"] == 2
    assert run(["ingest", "clicks"]) == 0
    assert "0 events accepted into clicks; 2 were there already" in capsys.readouterr().out
    assert run(["ingest", "orders"]) == 2
    assert "declares no source" in capsys.readouterr().err
    (shop / "clicks.parquet").write_bytes((shop / "clicks.parquet").read_bytes()[:-9])
    assert run(["ingest"]) == 4
    assert "clicks.parquet can't be read" in capsys.readouterr().err


def test_ingest_after_a_push_says_what_is_not_seen_and_what_may_be_twice(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pl.DataFrame([ROW, ROW]).with_columns(pl.col("at").str.to_datetime(time_zone="UTC")).write_parquet(shop / "clicks.parquet")
    (shop / "line.jsonl").write_text(json.dumps(ROW))
    assert run(["push", "clicks", "line.jsonl"]) == 0
    capsys.readouterr()
    assert run(["ingest", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)[0]["clamped"] == 2
    assert "2 events count as arrived only now: as_known='ingest' does not see them at earlier moments" in said.err
    assert "has no id, and held 1 events before" in said.err
    assert run(["ingest"]) == 0
    assert "count as arrived" not in capsys.readouterr().err


def test_push_lines_and_arrays(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "lines.jsonl").write_text("\n".join(json.dumps(ROW) for _ in range(3)) + "\n\n")
    (shop / "array.json").write_text(json.dumps([ROW, ROW], indent=1))
    assert run(["push", "clicks", "lines.jsonl", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"accepted": 3, "duplicates": 0, "set_aside": 0, "last_offset": 3}
    assert run(["push", "clicks", "array.json"]) == 0
    assert "2 events accepted into clicks" in capsys.readouterr().out
    (shop / "orders.jsonl").write_text((json.dumps({"at": "2026-01-01T00:00:00Z", "order": "a"}) + "\n") * 2)
    assert run(["push", "orders", "orders.jsonl"]) == 0
    assert "1 events accepted into orders; 1 were there already" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "said"), [
    ('{"at": 0, "usr": "x"}', "did you mean 'user'?"),
    ('{"at": "2020-01-01T00:00:00"}', "has no zone"),
    ('{"at": 0}\n{"at": }', "line 2"),
])
def test_wrong_rows_are_named(shop: Path, capsys: pytest.CaptureFixture[str], text: str, said: str) -> None:
    (shop / "x.jsonl").write_text(text)
    assert run(["push", "clicks", "x.jsonl"]) == 2
    assert said in capsys.readouterr().err
    assert run(["push", "clikcs", "x.jsonl"]) == 2
    assert "did you mean 'clicks'" in capsys.readouterr().err
