"""`davy replay`: equal vectors end well, a wrong one is named and ends with 1."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import pytest

from davy.cli.main import run
from davy.cli.replay import _span
from davy.home import Home
from davy.serving.predictions import PredictionLog, find_prediction, folder_of

if TYPE_CHECKING:
    from .conftest import Answered


def _log_a_wrong_vector(answered: Answered) -> None:
    home = Home(answered.root)
    right = find_prediction(home, answered.prediction)
    log = PredictionLog(folder_of(home))
    log.append([msgspec.structs.replace(right, id="f" * 32, values=[right.values[0], 1.0000000000000002, *right.values[2:]])])
    log.close()
    home.close()


def test_equal_vectors_end_with_0(answered: Answered, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", "late", "--json", "--project", str(answered.root)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["checked"], found["equal"], found["different"]) == (1, 1, [])
    assert set(found) == {"checked", "equal", "different", "lateness"}
    assert run(["replay", "late", "--project", str(answered.root)]) == 0
    assert capsys.readouterr().out.startswith("1 vectors checked, 1 equal, 0 different")


def test_one_wrong_bit_is_named_and_ends_with_1(answered: Answered, capsys: pytest.CaptureFixture[str]) -> None:
    _log_a_wrong_vector(answered)
    assert run(["replay", "late", "--json", "--project", str(answered.root)]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["checked"], found["equal"]) == (2, 1)
    (item,) = found["different"]
    assert set(item) == {"prediction", "feature", "served", "recomputed", "cause"}
    assert (item["prediction"], item["feature"], item["served"]) == ("f" * 32, "mean_delay_1h", 1.0000000000000002)
    assert run(["replay", "late", "--project", str(answered.root)]) == 1
    assert "mean_delay_1h" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "says"), [
    (["late", "--start", "2013-05-01 00:00"], "zone"),
    (["lte"], "did you mean 'late'?"),
    (["late", "--version", "3"], "no version 3"),
    (["late", "--version", "0"], "--version"),
])
def test_wrong_input_ends_with_2(answered: Answered, words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", *words, "--project", str(answered.root)]) == 2
    assert says in capsys.readouterr().err


def test_a_span_without_predictions_says_so(answered: Answered, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", "late", "--end", "2012-01-01T00:00Z", "--project", str(answered.root)]) == 0
    assert "No prediction" in capsys.readouterr().err


@pytest.mark.parametrize(("micros", "shown"), [(None, ""), (0, "0us"), (1_500, "1500us"), (59_900_000, "59s"), (14_230_000_000, "3h 57min"),
                                               (86_400_000_000, "1d"), (86_460_000_000, "1d")])
def test_a_lateness_is_told_in_its_two_largest_units(micros: int | None, shown: str) -> None:
    assert _span(micros) == shown
