"""A data frame of runs holds what the runs hold."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import polars as pl
import pytest

import davy
from davy.errors import InvalidInput, NotFound
from davy.tracking import frames
from davy.tracking import run as start_run
from davy.tracking.search import search_runs

if TYPE_CHECKING:
    from pathlib import Path

    from davy.home import Home


@pytest.fixture
def filled(home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.chdir(home.root)
    for number in range(7):
        with start_run(f"run{number}", home=home, experiment="ab"[number % 2], params={"depth": number} | ({"only": "x"} if number == 3 else {}),
                       tags={"team": "ops"} if number % 3 else {}) as started:
            started.log(auc=math.nan if number == 5 else number / 10, step=1)
            if number % 2:
                started.log({"train/loss": 1.5})
    return home


def _check(frame: pl.DataFrame, home: Home, asked: dict[str, object]) -> None:
    with home.database.read() as connection:
        found = search_runs(connection, limit=100, **asked).runs  # type: ignore[arg-type]
    assert frame["run_id"].to_list() == [run.id for run in found]
    names = {f"{kind}.{key}" for run in found for kind, values in (("metrics", run.metrics), ("params", run.params), ("tags", run.tags)) for key in values}
    assert frame.columns == ["run_id", "name", "status", "experiment", "user", "started", "ended", *sorted(names)]
    for row, run in zip(frame.iter_rows(named=True), found, strict=True):
        assert (row["name"], row["status"], row["experiment"], row["user"]) == (run.name, run.status, run.experiment, run.user)
        assert (row["started"].timestamp(), row["ended"].timestamp()) == (run.started / 1e6, (run.ended or 0) / 1e6)
        for kind, values in (("metrics", run.metrics), ("params", run.params), ("tags", run.tags)):
            assert {name: repr(row[name]) for name in names if name.startswith(kind)} == {
                name: repr(values.get(name.split(".", 1)[1])) for name in names if name.startswith(kind)}


@pytest.mark.parametrize(("text", "experiment", "order"), [("", None, []), ("metrics.auc > 0.1 or params.only = 'x'", None, ["metrics.auc DESC"]),
                                                           ("", "b", ["params.depth"]), ("params.depth = '3'", ["a", "b"], [])])
@pytest.mark.parametrize("batch", [2, 50_000])
def test_all_runs_in_one_call(filled: Home, monkeypatch: pytest.MonkeyPatch, text: str, experiment: str | list[str] | None, order: list[str],
                              batch: int) -> None:
    monkeypatch.setattr(frames, "MOST", batch)
    frame = davy.runs(text, experiment=experiment, order_by=order)
    _check(frame, filled, {"filter": text, "order_by": order, "experiments": [experiment] if isinstance(experiment, str) else experiment})
    assert frame.schema["metrics.auc"] == pl.Float64
    first = davy.runs(text, experiment=experiment, order_by=order, limit=1)
    assert first.equals(frame.head(1).select(first.columns))


@pytest.mark.parametrize("csv", [False, True])
def test_a_file_is_written_in_batches(filled: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, csv: bool) -> None:
    monkeypatch.setattr(frames, "BATCH", 2)
    (tmp_path / "parts").mkdir()
    path = tmp_path / "runs"
    with filled.database.read() as connection:
        assert frames.write_runs(connection, path, tmp_path / "parts", csv=csv, experiments=None, filter="", order_by=["metrics.auc"], limit=None) == 7
    frame = davy.runs(order_by="metrics.auc")
    if not csv:
        assert pl.read_parquet(path).equals(frame)
    else:
        assert pl.read_csv(path, infer_schema=False).select("run_id", "params.only").equals(frame.select("run_id", "params.only"))


def test_no_run_gives_an_empty_frame(filled: Home) -> None:
    assert davy.runs("run_name = 'nobody'").shape == (0, 7)
    with pytest.raises(NotFound, match="nothing"):
        davy.runs(experiment="nothing")
    with pytest.raises(InvalidInput, match="at character 14"):
        davy.runs("metrics.auc >")
