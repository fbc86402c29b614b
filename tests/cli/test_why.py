"""`davy why`: the walk back from a prediction."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from davy.cli.main import run

if TYPE_CHECKING:
    import pytest

    from .conftest import Answered


def test_json_counts_exactly_the_events_behind_each_value(answered: Answered, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["why", answered.prediction, "--json", "--project", str(answered.root)]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["feature"]: row for row in found["vector"]}
    assert [row["value"] for row in found["vector"]] == answered.vector
    assert rows["departures_1h"]["events"] == rows["departures_1h"]["value"] > 0
    assert rows["mean_delay_1h"]["events"] == rows["departures_1h"]["events"] - 1
    assert rows["latest_delay"]["events"] == 29
    assert rows["latest_delay"]["newest"][0] == 57
    assert rows["departures_1h"]["newest"] == [59, 57, 55]
    assert all(row["moved"] and row["watermark"] == 60 for row in found["vector"] if "events" in row)
    assert rows["double"]["inputs"] == ["departures_1h"]
    assert (found["run"]["id"], found["training_set"]["digest"], found["version"], found["arm"]) == (answered.run, answered.training_set, 1, "stable")


def test_the_terminal_shows_the_whole_walk(answered: Answered, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["why", answered.prediction, "--project", str(answered.root)]) == 0
    text = capsys.readouterr().out
    for part in (
            answered.prediction, "count of flights by origin over 1h", "up to offset 60 (59, 57, 55, …)", "scheduled=2013-05-01T00:00:00.000000Z",
            "late@1, arm stable", "boosted", "1,234 rows", "commit"):
        assert part in text


def test_an_unknown_prediction_is_an_error_that_says_so(answered: Answered, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["why", "0" * 32, "--project", str(answered.root)]) == 2
    assert "There is no prediction" in capsys.readouterr().err
