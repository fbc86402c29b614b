"""A project works wherever it lies: blanks, umlauts and the signs that URLs and patterns take for their own are plain names."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import polars as pl
import pytest

from davy.errors import InvalidInput
from davy.events.sources import read_source
from davy.store.tables import Table

if TYPE_CHECKING:
    from pathlib import Path

ODD = "my Müller's #?{%[*] shop"


def davy(folder: Path, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "davy", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"davy {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.timeout(240)
@pytest.mark.sqlite("the odd name is also the file's")
def test_the_whole_route_in_a_folder_with_an_odd_name(tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    davy(tmp_path / "odd", "init", ODD)
    root = tmp_path / "odd" / ODD
    assert "3,000 events" in davy(root, "ingest", "orders")
    davy(root, "train", "returned")
    davy(root, "traffic", "returned", "returned@1=1")
    server = subprocess.Popen([sys.executable, "-m", "davy", "up", "--port", "0"], cwd=root, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert "http://" in server.stdout.readline()
        answer = json.loads(davy(root, "predict", "returned", "customer=c07", "amount=120.5", "--json"))
        assert 0 < answer["prediction"] < 1
        (root / "more.jsonl").write_text('{"ordered": "2026-01-01T00:00:00Z", "order": "x1", "customer": "c07", "amount": 3.0}\n')
        assert "1 events" in davy(root, "push", "orders", "more.jsonl")
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=40)
    found = json.loads(davy(root, "replay", "returned", "--json"))
    assert found["checked"] == found["equal"] == 1
    assert answer["prediction_id"] in davy(root, "why", answer["prediction_id"])
    assert os.listdir(tmp_path / "odd") == [ODD]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_source_is_no_pattern(tmp_path: Path, kind: str) -> None:
    for name, value in (("a*b", 1), ("axb", 2), ("a[x]b", 3)):
        (tmp_path / name).mkdir()
        getattr(pl.DataFrame({"value": [value]}), f"write_{kind}")(tmp_path / name / f"rows.{kind}")
    assert read_source(tmp_path / "a*b" / f"rows.{kind}")["value"].to_list() == [1]
    assert read_source(tmp_path / "a[x]b")["value"].to_list() == [3]


def test_a_delta_table_of_another_writer_with_partitions_is_a_source(tmp_path: Path) -> None:
    rows = pl.DataFrame({"value": [1, 2], "place": ["a b", "ä/c"]})
    rows.write_delta(tmp_path / "plain", delta_write_options={"partition_by": ["place"]})
    (tmp_path / "plain").rename(tmp_path / ODD)
    assert read_source(tmp_path / ODD).sort("value").equals(rows)


def test_an_escape_that_delta_would_undo_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="Rename the folder"):
        Table(str(tmp_path / "a%20b" / "events"))
