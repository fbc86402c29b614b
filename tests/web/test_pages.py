"""The pages without a browser: what they say, what they link to, and what they refuse to run."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from davy.web.pages import routes
from davy.web.render import to

from .conftest import HOSTILE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from davy.home import Home

    from .conftest import Filled


@pytest.fixture(scope="module")
def client(filled: Filled) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=routes(filled.home))) as client:
        yield client


@pytest.fixture(scope="module")
def empty(empty_home: Home) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=routes(empty_home))) as client:
        yield client


class Reader(HTMLParser):
    """Links, tags and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        for name, value in attrs:
            if name in ("href", "src", "data-chart") and value:
                self.links.append(value)

    def handle_data(self, data: str) -> None:
        self.text += data


def read(client: TestClient, path: str, status: int = 200) -> Reader:
    response = client.get(path)
    assert response.status_code == status, response.text
    return Reader(response.text)


def test_the_overview_says_what_is_live(client: TestClient) -> None:
    text = read(client, "/").text
    for part in ("late@1", "late@2", "90 %", "10 %", "ada", "flights", "weather", "500"):
        assert part in text
    assert re.search(r"late@1.*of 270.*late@2.*of 30", text, re.S)


def test_every_link_leads_somewhere(client: TestClient) -> None:
    """Every page that can be reached from the first one answers, and every number's evidence is a page."""
    seen: set[str] = set()
    waiting = ["/"]
    while waiting:
        path = waiting.pop().partition("#")[0]
        if path in seen or not path:
            continue
        seen.add(path)
        assert path.startswith("/"), path
        response = client.get(path)
        assert response.status_code == 200, path
        if response.headers["content-type"].startswith("text/html") and len(seen) < 400:
            waiting += Reader(response.text).links
    kinds = {path.split("/")[1].split("?")[0] for path in seen}
    assert {"alerts", "releases", "models", "runs", "predictions", "streams", "journal", "feature-sets", "training-sets", "static"} <= kinds


def test_every_page_is_confined(client: TestClient, filled: Filled) -> None:
    for path in ("/", "/models", "/models/late", "/models/late/2", "/models/none", "/runs", f"/runs/{filled.runs['boosted']}",
                 f"/predictions/{filled.predictions[0]}"):
        response = client.get(path)
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"


def test_hostile_names_are_text_everywhere(client: TestClient, filled: Filled) -> None:
    paths = ["/", "/runs", "/models", "/models/late", "/models/late/2", "/journal", f"/predictions/{filled.predictions[299]}",
             *(f"/runs/{run}" for run in filled.runs.values()), to("runs", experiment=HOSTILE), to("models", HOSTILE.replace("/", ""), 1),
             to("search", q=HOSTILE)]
    shown = 0
    for path in paths:
        page = client.get(path)
        found = Reader(page.text)
        scripts = [attributes for tag, attributes in found.tags if tag == "script"]
        assert all("src" in attributes for attributes in scripts), path
        assert not any(name.startswith("on") or name == "style" for _, attributes in found.tags for name in attributes), path
        assert "alert(1)" not in "".join(tag for tag, _ in found.tags)
        assert "49" not in re.findall(r"&(\d\d)", page.text)
        shown += HOSTILE in found.text
    assert shown >= 8


def test_a_version_shows_what_it_takes_and_was_made_of(client: TestClient, filled: Filled) -> None:
    page = read(client, "/models/late/2")
    for part in ("live, 10 %", "mean of flights.dep_delay by origin over 3 h", "probability", "81,234 rows", "boosted", "model.bin", "traffic.set"):
        assert part.replace("3 h", "3h") in page.text or part in page.text, part
    assert to("runs", filled.runs["boosted"]) in page.links


def test_runs_sort_by_a_metric_both_ways_with_missing_ones_last(client: TestClient) -> None:
    order = [re.findall(r"baseline|boosted|alert", read(client, path).text) for path in ("/runs?sort=metrics.auc", "/runs?sort=metrics.auc&order=asc")]
    assert order[0].index("boosted") < order[0].index("baseline")
    assert order[1].index("baseline") < order[1].index("boosted")
    assert read(client, "/runs?sort=metrics.nothing").text


def test_a_curve_keeps_its_extremes_and_says_how_many_points_it_stands_for(client: TestClient, filled: Filled) -> None:
    body = client.get(to("runs", filled.runs["boosted"], "metrics", key="train/logloss")).json()
    assert body["total"] == 2500
    assert len(body["x"]) == len(body["series"][0]["values"]) <= 2000
    assert body["x"] == sorted(body["x"])
    assert "2,500 points" in read(client, f"/runs/{filled.runs['boosted']}").text
    nan = client.get(to("runs", filled.runs["hostile"], "metrics", key="auc")).json()
    assert nan["series"][0]["values"] == [None]


def test_artifacts_never_run(client: TestClient, filled: Filled) -> None:
    base = f"/runs/{filled.runs['boosted']}/artifacts"
    svg, html, text = client.get(f"{base}/roc.svg"), client.get(f"{base}/page.html"), client.get(f"{base}/report.csv")
    assert svg.headers["content-type"] == "image/svg+xml"
    assert html.headers["content-type"] == "application/octet-stream"
    assert html.headers["content-disposition"].startswith("attachment")
    assert text.headers["content-type"].startswith("text/plain")
    for response in (svg, html, text):
        assert response.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
        assert response.headers["x-content-type-options"] == "nosniff"
    assert client.get(f"{base}/../../../davy.toml").status_code in (400, 404)
    assert client.get(f"{base}/%2e%2e/%2e%2e/davy.toml").status_code in (400, 404)


def test_a_prediction_shows_every_value_as_it_was_served(client: TestClient, filled: Filled) -> None:
    page = read(client, f"/predictions/{filled.predictions[280]}")
    for part in (repr(12.345678901234567 + 280), "mean of flights.dep_delay", "null", "480", "canary", "late@2", "journal entry", "user-280"):
        assert part in page.text, part
    assert re.search(r"count of flights by origin over 1h.*?flights, 480", page.text, re.S)
    assert to("training-sets", filled.training_set) in page.links
    assert to("feature-sets", filled.feature_set) in page.links


def test_a_training_set_says_in_words_what_it_saw(client: TestClient, filled: Filled) -> None:
    text = " ".join(read(client, to("training-sets", filled.training_set)).text.split())
    assert "flights offset 500, weather offset 60" in text
    assert "what had arrived before its time" in text
    assert "the spine's first to before 2013-04-21 04:00:00" in text
    assert "1366516800000000" not in text
    assert text.count(filled.training_set) == 1


@pytest.mark.parametrize("index", [0, 299])
def test_search_goes_to_predictions_in_tables_and_in_logs(client: TestClient, filled: Filled, index: int) -> None:
    found = client.get("/search", params={"q": f" {filled.predictions[index]} "}, follow_redirects=False)
    assert found.headers["location"] == f"/predictions/{filled.predictions[index]}"


@pytest.mark.parametrize(("text", "target"), [("late", "/models/late"), ("late@2", "/models/late/2"), ("late@production", "/models/late/1"), ("", "/")])
def test_search_goes_to_models(client: TestClient, text: str, target: str) -> None:
    assert client.get("/search", params={"q": text}, follow_redirects=False).headers["location"] == target


def test_search_goes_to_a_run_by_the_start_of_its_id(client: TestClient, filled: Filled) -> None:
    run = filled.runs["boosted"]
    assert client.get("/search", params={"q": run}, follow_redirects=False).headers["location"] == f"/runs/{run}"


@pytest.mark.parametrize(("path", "status", "says"), [
    ("/models/lte", 404, "did you mean 'late'?"),
    ("/models/late/9", 404, "no version 9"),
    ("/runs/ffffffff", 404, "davy runs"),
    ("/predictions/0123", 404, "32 hex digits"),
    ("/feature-sets/sha256:0", 404, "feature set"),
    ("/search?q=nobody", 404, "Nothing is called"),
    ("/runs?after=junk", 400, "not a page of this search"),
])
def test_errors_say_what_to_do(client: TestClient, path: str, status: int, says: str) -> None:
    assert says in read(client, path, status).text


def test_an_empty_home_says_what_to_type(empty: TestClient) -> None:
    train, ingest = "davy train MODEL", "davy ingest STREAM"
    commands = {"/": [train, ingest], "/alerts": ["davy up"], "/models": [train], "/runs": [train], "/streams": [ingest], "/journal": [train]}
    for path, texts in commands.items():
        page = read(empty, path).text
        assert all(text in page for text in texts), path


def test_static_files_are_the_listed_ones(client: TestClient) -> None:
    assert client.get("/static/davy.css").status_code == 200
    assert client.get("/static/..%2Fpages.py").status_code == 404
    assert client.get("/static/nothing.css").status_code == 404
