"""`davy runs` lists runs and shows one."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import polars as pl
import pytest

from davy.cli.main import run
from davy.core.clock import DrivenClock
from davy.home import Home
from davy.tracking import run as start_run

if TYPE_CHECKING:
    from pathlib import Path


def _runs(home: Home, *arguments: str) -> int:
    return run(["--project", str(home.root), "runs", *arguments])


@pytest.fixture
def ids(home: Home) -> list[str]:
    made = []
    for name, value in (("low", 0.6), ("high", 0.7), ("odd", math.nan)):
        with start_run(name, home=home, experiment="flights", params={"depth": 3}) as started:
            started.log(auc=value)
            started.text("x", "notes/a.txt")
        made.append(started.id)
    return made


def test_a_table_in_the_order_of_a_metric(home: Home, ids: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert _runs(home, "--order-by", "metrics.auc desc") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[1:]] == ["high", "low", "odd"]
    assert lines[1].startswith(ids[1][:12])
    assert "auc" in lines[0]


def test_ids_are_shown_as_far_as_they_differ(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = Home(project, clock=DrivenClock(project / ".davy" / "run" / "clock", start=1_767_312_000_000_000))
    for number in range(3):
        with start_run(f"run{number}", home=home):
            pass
    home.close()
    assert run(["--project", str(project), "runs"]) == 0
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert len(set(shown)) == 3
    for short in shown:
        assert run(["--project", str(project), "runs", short]) == 0


def test_json_has_no_nan(home: Home, ids: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert _runs(home, "--json", "--experiment", "flights", "--order-by", "start_time", "--limit", "3") == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["id"] for one in found["runs"]] == ids
    assert [one["metrics"]["auc"] for one in found["runs"]] == [0.6, 0.7, "NaN"]
    assert found["next"] is None


def test_a_filter_chooses(home: Home, ids: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for text, names in (("metrics.auc >= 0.6", ["high", "low"]), ("metrics.auc != 0.6 and params.depth = '3'", ["odd", "high"]), ("run_name like 'x%'", [])):
        assert _runs(home, text, "--json", "--experiment", "flights") == 0
        assert [one["name"] for one in json.loads(capsys.readouterr().out)["runs"]] == names
    assert _runs(home, "run_name = 'x'") == 0
    assert capsys.readouterr() == ("No run matches.\n", "")


def test_a_name_in_a_filter_that_no_run_has_is_told(home: Home, ids: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for text, said in (("metrics.acu < 1", "No run has the metric 'acu'; did you mean 'auc'?\n"),
                       ("params.dept = '3'", "param 'dept'; did you mean 'depth'?\n"),
                       ("metrics.auc > 9 and params.depth = '3'", ""), ("metrics.auc > 9 or tags.zone = 'x'", "No run has the tag 'zone'"),
                       ("params.depth IS NULL", "")):
        assert _runs(home, text, "--experiment", "flights") == 0
        found = capsys.readouterr()
        assert found.out == "No run matches.\n"
        assert said in found.err
        assert bool(said) is bool(found.err)
    assert _runs(home, "metrics.acu IS NULL and metrics.acu2 < 1", "--experiment", "Default") == 0
    assert capsys.readouterr() == ("No run matches.\n", "")
    assert _runs(home, "metrics.acu < 1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["runs"] == []


def test_all_that_match_go_into_a_file(home: Home, ids: list[str], tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    with start_run("other", home=home, params={"only": "here", "text": 'a "b",\nc'}):
        pass
    path = tmp_path / "runs.parquet"
    assert _runs(home, "--format", "parquet", "-o", str(path), "--order-by", "metrics.auc") == 0
    frame = pl.read_parquet(path)
    assert frame["name"].to_list() == ["low", "high", "odd", "other"]
    assert frame["params.depth"].to_list() == ["3", "3", "3", None]
    assert frame["metrics.auc"].to_list()[:2] == [0.6, 0.7]
    assert math.isnan(frame["metrics.auc"][2])
    capsysbinary.readouterr()
    assert _runs(home, "params.only = 'here'", "--format", "csv") == 0
    back = pl.read_csv(capsysbinary.readouterr().out)
    assert back["params.text"].to_list() == ['a "b",\nc']
    assert back.columns[:7] == ["run_id", "name", "status", "experiment", "user", "started", "ended"]
    assert _runs(home, "--format", "csv", "--limit", "2", "-o", str(path)) == 0
    assert pl.read_csv(path).height == 2
    assert _runs(home, "run_name = 'nobody'", "--format", "csv", "-o", str(path)) == 0
    assert pl.read_csv(path).height == 0
    for name in ("told.csv", "told.parquet"):  # the ending says the format too
        assert _runs(home, "--limit", "2", "-o", str(tmp_path / name)) == 0
    assert pl.read_parquet(tmp_path / "told.parquet").height == pl.read_csv(tmp_path / "told.csv").height == 2


def test_one_run_in_full(home: Home, ids: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert _runs(home, ids[0]) == 0
    text = capsys.readouterr().out
    assert all(part in text for part in (ids[0], "low", "depth", "0.6", "notes/a.txt", "FINISHED"))
    assert _runs(home, ids[0], "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["id"], found["params"], found["artifacts"][0]["path"], found["versions"]) == (ids[0], {"depth": "3"}, "notes/a.txt", [])


@pytest.mark.parametrize(("arguments", "hint"), [(["--experiment", "flihts"], "'flights'"), (["nosuchrun"], "davy runs"),
                                                (["--order-by", "metrics.acu"], "did you mean 'auc'"),
                                                (["--artifact", "a.txt"], "davy runs RUN --artifact a.txt"), (["--limit", "0"], "limit"),
                                                (["--format", "parquet"], "-o runs.parquet"), (["-o", "x.txt"], "--format csv"),
                                                (["--format", "csv", "-o", "no/such/x.csv"], "can't be written"),
                                                (["metrics.auc > 0.5 and statos = 'x'"], "at character 23: did you mean 'status'?"),
                                                (["metrics.auc >"], "at character 14"), (["--order-by", "metrics.auc down"], "ASC or DESC")])
def test_what_is_wrong_is_said(home: Home, ids: list[str], arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _runs(home, *arguments) == 2
    assert hint in capsys.readouterr().err


def test_nothing_yet_says_what_to_type(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert _runs(home) == 0
    assert "davy train" in capsys.readouterr().out


def test_the_metrics_of_the_test_are_shown_and_counts_last(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with start_run("late", home=home) as started:
        started.log(train_rows=100, train_auc=0.9, train_brier=0.1, train_seconds=3, test_auc_low=0.6, test_auc=0.7, test_brier=0.2, test_rows=10)
    assert _runs(home) == 0
    assert capsys.readouterr().out.splitlines()[0].split()[-4:] == ["test_auc", "test_brier", "train_auc", "train_brier"]
