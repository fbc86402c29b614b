"""Runs found by the filter language, and beside each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

from davy.tracking.runs import get_run
from davy.tracking.writer import start
from davy.web.comparing import MOST, POINTS
from davy.web.runs import _groups

if TYPE_CHECKING:

    from davy.home import Home

SPIKE = 4321


@pytest.fixture
def ids(home: Home) -> list[str]:
    found = []
    for index, rate in enumerate((0.1, 0.2)):
        with start(f"<b>try {index}</b>", home=home, params={"rate": rate, "depth": 6}) as run:
            run.log(auc=0.7 + index / 10)
            for step in range(5000):
                run.log(loss=9.0 if step == SPIKE else 1 / (step + 1), step=step)
            found.append(run.id)
    return found


def test_a_filter_finds_and_its_faults_are_shown_in_place(client: TestClient, ids: list[str]) -> None:
    found = client.get("/runs", params={"filter": "metrics.auc > 0.75 or params.depth = '7'"}).text
    assert ids[1] in found
    assert ids[0] not in found
    assert "No run has the metric &#39;acu&#39;; did you mean &#39;auc&#39;?" in client.get("/runs", params={"filter": "metrics.acu > 0.5"}).text
    assert "No run is like this.</p>" in client.get("/runs", params={"filter": "metrics.auc > 9"}).text
    wrong = client.get("/runs", params={"filter": "metrics.auc >> <b>"})
    assert wrong.status_code == 400
    assert "at character" in wrong.text
    assert "<b>" not in wrong.text


def test_what_differs_stands_first_and_names_are_only_text(client: TestClient, ids: list[str]) -> None:
    page = client.get("/compare", params={"run": ids})
    assert page.status_code == 200
    assert "<b>try" not in page.text
    assert page.text.index(">rate<") < page.text.index("that are the same") < page.text.index(">depth<")
    assert "+0.1" in page.text


def test_curves_of_several_runs_keep_their_spikes(client: TestClient, ids: list[str]) -> None:
    found = client.get("/compare/series", params={"key": "loss", "run": ids}).json()
    assert len(found["series"]) == 2
    for series in found["series"]:
        values = [value for value in series["values"] if value is not None]
        assert 2 < len(values) <= POINTS
        assert max(values) == 9.0
        assert series["values"][found["x"].index(SPIKE)] == 9.0


def test_a_part_of_a_curve_is_drawn_from_its_own_points(client: TestClient, ids: list[str]) -> None:
    whole = client.get(f"/runs/{ids[0]}/metrics", params={"key": "loss"}).json()
    part = client.get(f"/runs/{ids[0]}/metrics", params={"key": "loss", "first": 4000, "last": 4500}).json()
    assert whole["total"] == 5000 > len(whole["x"])
    assert part["x"] == list(range(4000, 4501))
    assert client.get(f"/runs/{ids[0]}/metrics", params={"key": "loss", "first": "x"}).status_code == 400


def test_times_are_those_since_each_run_began(client: TestClient, home: Home) -> None:
    ids = []
    for delay in (10, 20):
        with start(f"after {delay}", home=home) as run:
            began = _started(home, run.id)
            for step, seconds in enumerate((delay, delay + 1, delay + 3)):
                run.log(loss=float(seconds), step=step, time=began + seconds * 1_000_000)
        ids.append(run.id)
    one = client.get(f"/runs/{ids[0]}/metrics", params={"key": "loss", "x": "time"}).json()
    assert (one["x"], one["steps"], one["series"][0]["values"], one["elapsed"]) == ([10, 11, 13], [0, 1, 2], [10, 11, 13], True)
    both = client.get("/compare/series", params={"key": "loss", "run": ids, "x": "time"}).json()
    assert (both["x"], both["series"][1]["values"]) == ([10, 11, 13, 20, 21, 23], [None] * 3 + [20, 21, 23])


def test_points_without_a_step_stay_apart(client: TestClient, home: Home) -> None:
    with start("flat", home=home) as run:
        for value in (3.0, 1.0, 2.0):
            run.log(loss=value, step=0, time=int(value * 1e9))
    found = client.get(f"/runs/{run.id}/metrics", params={"key": "loss"}).json()
    assert (found["x"], found["series"][0]["values"]) == ([0, 0, 0], [1.0, 2.0, 3.0])


def test_a_smoothed_curve_stands_before_the_one_that_it_smooths(client: TestClient, ids: list[str]) -> None:
    smooth, raw = client.get(f"/runs/{ids[0]}/metrics", params={"key": "loss", "smooth": "0.9"}).json()["series"]
    assert (smooth["label"], smooth["pale"], raw["label"], raw["pale"]) == ("loss, smoothed", False, "loss", True)
    assert max(smooth["values"][1:]) < 1 < max(raw["values"])
    found = client.get("/compare/series", params={"key": "loss", "smooth": "0.9", "run": ids}).json()["series"]
    assert [(one["hue"], one["pale"]) for one in found] == [(0, False), (0, True), (1, False), (1, True)]


@pytest.mark.parametrize("asked", [{"x": "moon"}, {"smooth": "1"}, {"smooth": "-0.1"}, {"smooth": "x"}, {"smooth": "nan"}])
def test_a_view_that_there_is_not_is_said(client: TestClient, ids: list[str], asked: dict[str, str]) -> None:
    assert client.get(f"/runs/{ids[0]}/metrics", params={"key": "loss", **asked}).status_code == 400


def _started(home: Home, run_id: str) -> int:
    with home.database.read() as connection:
        return get_run(connection, run_id).started


@pytest.mark.parametrize("asked", [[], ["0" * 32], ["a"] * 3, [f"{i:032x}" for i in range(MOST + 1)]])
def test_what_can_not_be_compared_is_said(client: TestClient, asked: list[str]) -> None:
    assert client.get("/compare", params={"run": asked}).status_code in (400, 404)


def test_curves_are_grouped_by_their_prefix() -> None:
    assert _groups(["loss", "train/a", "train/b", "val/a", "system/cpu"]) == [
        ("", ["loss", "val/a"]), ("train", ["train/a", "train/b"]), ("system", ["system/cpu"])]
