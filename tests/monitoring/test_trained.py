"""From `davy train` to what is known of the version, through the front door."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from davy.cli.main import run
from davy.core.clock import DrivenClock, new_id
from davy.home import CLOCK_FILE, Home
from davy.monitoring.collect import Collector
from davy.monitoring.references import get_reference
from davy.protocols.prometheus import exposition
from davy.registry.models import get_version
from davy.serving.predictions import PredictionLog, PredictionRecord, folder_of
from davy.tracking.artifacts import add_artifacts
from training.shop import MODELS, START, ingest, sales, write_shop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DAY, MINUTE = 86_400_000_000, 60_000_000
NOW = int(START.timestamp() * 1e6) + 40 * DAY
KPI = '''

@davy.kpi(unit="EUR")
def cost(prediction, returned):
    return 5.0 if returned > 0.5 and prediction < 0.5 else 0.0


@davy.model'''


class Trained:
    """A shop with one trained version, and answers that are logged as a gateway would."""

    def __init__(self, root: Path) -> None:
        write_shop(root, repository=False)
        (root / "models.py").write_text(MODELS.replace("\n\n@davy.model", KPI).replace("spine=moments)", "spine=moments, kpis=[cost])"))
        DrivenClock(root / ".davy" / CLOCK_FILE, start=NOW)
        self.home = Home(root)
        ingest(self.home, sales())
        assert run(["train", "returns", "--json"]) == 0
        with self.home.database.read() as connection:
            self.version = get_version(connection, "returns", 1)

    def serve(self, rows: int, *, shift: float = 0.0, start: int = NOW) -> list[str]:
        """Log answers to rows of the training set itself, so that nothing has moved unless it is shifted."""
        assert self.version.feature_set is not None
        log = PredictionLog(folder_of(self.home))
        found = []
        for number in range(rows):
            moment = start + number * MINUTE
            self.home.clock.set(moment)  # type: ignore[attr-defined]
            shop = "ab"[number % 2]
            values = [100 + number % 7, 9.0 + shift, number % 7, shop]
            record = PredictionRecord(new_id(self.home.clock), moment, moment + 50, "returns", 1, "stable", False, shop, self.version.feature_set,
                                      {"shop": shop}, {"size": number % 7}, {}, values, [0.2, 0.9][number % 3 == 0], 700, 50, 100, "k")
            log.append([record])
            found.append(record.id)
        log.close()
        self.home.clock.set(start + rows * MINUTE + DAY)  # type: ignore[attr-defined]
        return found


@pytest.fixture
def trained(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Trained]:
    monkeypatch.chdir(project)
    opened = Trained(project)
    capsys.readouterr()
    yield opened
    opened.home.close()


def test_the_reference_is_made_of_the_rows_that_the_run_kept(trained: Trained) -> None:
    assert trained.version.training_set is not None
    assert get_reference(trained.home, trained.version.training_set) is None
    made = Collector(trained.home).reference("returns", 1)
    stored = get_reference(trained.home, trained.version.training_set)
    assert stored is not None
    assert made.rows == stored.rows == 300
    assert [column.name for column in made.columns] == ["sales_1d", "mean_7d", "size", "shop"]
    assert set(made.by_name["shop"].top) == {"a", "b"}
    assert made.by_name["size"].counts.sum() == 300


def test_what_is_known_of_a_version(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    ids = trained.serve(240)
    rows = [{"prediction": name, "returned": float(number % 3 == 0)} for number, name in enumerate(ids[:180])]
    pl.DataFrame(rows).write_parquet(trained.home.root / "outcomes.parquet")
    assert run(["outcomes", "push", "outcomes.parquet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"accepted": 180, "duplicates": 0, "set_aside": 0}
    assert run(["outcomes", "push", "outcomes.parquet"]) == 0
    assert "0 outcomes of returns accepted; 180 were there already" in capsys.readouterr().out
    assert run(["monitor", "returns", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(flow["version"], flow["arm"], flow["requests"]) for flow in found["traffic"]] == [(1, "stable", 240)]
    (judged,) = found["performance"]
    assert (judged["predictions"], judged["labelled"], judged["young"]) == (240, 180, 0)
    assert judged["metrics"]["auc"] == 1.0
    assert judged["kpis"][0] | {"error": None} == {"name": "cost", "unit": "EUR", "count": 180, "mean": 0.0, "error": None, "total": 0.0, "failed": 0}
    assert {column["feature"] for column in found["drift"][0]["columns"]} == {"sales_1d", "mean_7d", "size", "shop"}
    assert run(["monitor", "returns"]) == 0
    said = capsys.readouterr().out
    assert "Distributions of version 1 against its training set (240 rows)" in said
    assert "cost EUR" in said
    with trained.home.database.begin() as connection:  # as a run of a model that tells
        data = trained.home.blobs.put(b'{"size": -3.0, "mean_7d": 1.0, "shop": 0.0, "sales_1d": 0.0}')
        add_artifacts(connection, trained.version.run_id or "", {"importance.json": (data, 60)}, clock=trained.home.clock, blobs=trained.home.blobs)
    assert run(["monitor", "returns", "--json"]) == 0
    (moved,) = json.loads(capsys.readouterr().out)["drift"]
    assert moved["importance"] == {"size": 0.75, "mean_7d": 0.25, "shop": 0.0, "sales_1d": 0.0}
    effects = [column["psi"] * moved["importance"][column["feature"]] for column in moved["columns"]]
    assert effects == sorted(effects, reverse=True)
    assert run(["monitor", "returns", "--rebuild", "--window", "1h"]) == 0
    assert "240 predictions counted anew" in capsys.readouterr().err
    assert run(["monitor", "retruns"]) == 2


def test_alerts_are_listed(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["alerts"]) == 0
    assert "Nothing fires. 3 rules are watched: drift, skew, errors." in capsys.readouterr().out
    toml = trained.home.root / "davy.toml"
    rules = [("busy", "requests_per_second", 0.0001), ("odd", "acu", 1)]
    toml.write_text(toml.read_text() + "".join(f'[[alerts]]\nname = "{name}"\nmetric = "{metric}"\nabove = {limit}\n' for name, metric, limit in rules))
    trained.serve(60)
    assert run(["monitor", "returns"]) == 0
    capsys.readouterr()
    assert run(["alerts", "--json"]) == 0
    said = capsys.readouterr()
    assert "busy" in {state["rule"] for state in json.loads(said.out)}
    assert "did you mean 'auc'" in said.err
    assert run(["alerts", "returns"]) == 0
    assert "requests_per_second of returns@1" in capsys.readouterr().out
    assert run(["alerts", "other"]) == 0
    assert "Nothing fires" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "text"), [
    ("lines.jsonl", '{"shop": "a", "time": "TIME", "returned": 1}\n'), ("table.csv", "shop,time,returned\na,TIME,1\n"),
    ("array.json", '[{"entity": {"shop": "a"}, "time": "TIME", "returned": 1.0}]')])
def test_outcomes_of_entities_from_every_kind_of_file(trained: Trained, capsys: pytest.CaptureFixture[str], name: str, text: str) -> None:
    trained.serve(3)
    moment = START.timestamp() + 40 * 86_400 + 90
    from datetime import UTC, datetime

    (trained.home.root / name).write_text(text.replace("TIME", datetime.fromtimestamp(moment, UTC).isoformat()))
    assert run(["outcomes", "push", name, "--model", "returns"]) == 0
    capsys.readouterr()
    assert run(["monitor", "returns", "--json"]) == 0
    (judged,) = json.loads(capsys.readouterr().out)["performance"]
    assert (judged["predictions"], judged["labelled"]) == (3, 1)


@pytest.mark.parametrize(("text", "words"), [
    ('{"shop": "a", "returned": 1}', "no time"), ('{"returned": 1}', "names no prediction"), ("[1]", "A row is an object"), ('{"prediction": "x"', "line 1"),
    ('{"prediction": "x", "returned": 1, "colour": 2}', "unknown field 'colour'")])
def test_wrong_files_are_named(trained: Trained, capsys: pytest.CaptureFixture[str], text: str, words: str) -> None:
    (trained.home.root / "bad.jsonl").write_text(text)
    assert run(["outcomes", "push", "bad.jsonl"]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "bad.jsonl" in said
    assert run(["outcomes", "push", "bad.jsonl", "--model", "retruns"]) == 2


def test_metrics_are_the_counts(trained: Trained) -> None:
    from davy.monitoring.monitor import Monitor

    trained.serve(90)
    monitor = Monitor(trained.home)
    assert monitor.round(everything=True) == 90
    text = exposition(trained.home, monitor)
    assert 'davy_predictions_total{model="returns",version="1",arm="stable",status="ok"} 90' in text
    assert 'davy_prediction_latency_seconds_bucket{model="returns",version="1",arm="stable",le="0.0005"} 0' in text
    assert 'davy_prediction_latency_seconds_bucket{model="returns",version="1",arm="stable",le="0.001"} 90' in text
    assert "davy_prediction_latency_seconds_sum" in text
    samples: Any = [line for line in text.splitlines() if not line.startswith("#")]
    assert len({line.rpartition(" ")[0] for line in samples}) == len(samples), "no sample twice"
