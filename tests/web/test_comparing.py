"""Runs found by the filter language, and beside each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from davy.tracking.writer import start
from davy.web.comparing import MOST, POINTS
from davy.web.pages import routes
from davy.web.runs import _groups

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@pytest.fixture
def client(home: Home) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=routes(home))) as client:
        yield client


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


@pytest.mark.parametrize("asked", [[], ["0" * 32], ["a"] * 3, [f"{i:032x}" for i in range(MOST + 1)]])
def test_what_can_not_be_compared_is_said(client: TestClient, asked: list[str]) -> None:
    assert client.get("/compare", params={"run": asked}).status_code in (400, 404)


def test_curves_are_grouped_by_their_prefix() -> None:
    assert _groups(["loss", "train/a", "train/b", "val/a", "system/cpu"]) == [
        ("", ["loss", "val/a"]), ("train", ["train/a", "train/b"]), ("system", ["system/cpu"])]
