"""The pages of gates, releases, monitoring and alerts, without a browser: what they say of what the loop did, and what their charts hold."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from davy.monitoring.columns import count, make_reference
from davy.release.releases import get_release, timeline
from davy.web.alerts import about
from davy.web.distribution import bars, curves
from davy.web.health import in_words
from davy.web.pages import routes
from davy.web.releases import thinned
from davy.web.render import to

from .conftest import HOSTILE
from .loop import RULE
from .test_pages import Reader, read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Filled


@pytest.fixture(scope="module")
def client(filled: Filled) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=routes(filled.home))) as client:
        yield client


def points(client: TestClient, path: str) -> dict[str, Any]:
    response = client.get(path)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    body: dict[str, Any] = response.json()
    assert all(len(line["values"]) == len(body["x"]) for line in body["series"])
    assert body["x"] == sorted(body["x"])
    return body


def flat(client: TestClient, path: str) -> str:
    """The text of a page as it is read, cell by cell."""
    response = client.get(path)
    assert response.status_code == 200, response.text
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", response.text.partition("<main")[2])).split())


def test_the_overview_answers_whether_what_is_live_is_well(client: TestClient) -> None:
    page, text = read(client, "/"), flat(client, "/")
    assert "What is live: not all is well" in text
    alerts, live = text.index(RULE), text.index("Is it well?")
    assert alerts < live, "firing alerts come first"
    row = re.search(r"fares@2 canary 50 %.*?(step 2 of 3).*?late@1", text)
    assert row is not None
    for part in ("not enough data yet", "requests to go", "h ago", "USD", "cost,", "mature", "p50", "feature"):
        assert part in text, part
    for link in (to("models", "fares", "monitoring", version=2) + "#drift", to("models", "fares", "monitoring", version=1) + "#performance", "/alerts"):
        assert link in page.links, link


def test_a_release_that_was_rolled_back_says_why_in_the_words_of_the_journal(client: TestClient, filled: Filled) -> None:
    page, text = read(client, f"/releases/{filled.rolled_back}"), flat(client, f"/releases/{filled.rolled_back}")
    with filled.home.database.read() as connection:
        found = get_release(connection, filled.rolled_back)

    assert "fares@3: rolled back" in text
    assert HOSTILE in page.text, "who asked for it"
    assert found.state.reasons[0] in text
    assert f"{found.findings.metrics[0].canary.bad:g} of {found.findings.metrics[0].canary.total}" in text
    assert "Forecast" not in text
    happened = text[text.index("What happened"):]
    assert re.search(r"asked for.*step 1 10 % of traffic.*rolled back 0 % of traffic", happened)
    assert len([link for link in page.links if link.startswith("/journal?before=")]) == 3
    for link in page.links:
        if link.startswith("/journal?before="):
            seq = int(link.rpartition("=")[2]) - 1
            assert f'id="entry-{seq}"' in client.get(link).text
            assert re.search(rf'id="entry-{seq}".*?release\.', client.get(link).text, re.DOTALL)


def test_a_release_under_way_says_what_it_waits_for_and_for_how_long(client: TestClient, filled: Filled) -> None:
    text = flat(client, f"/releases/{filled.under_way}")
    assert "fares@2: step 2 of 3" in text
    assert "What it waits for Not enough data yet" in text
    with filled.home.database.read() as connection:
        found = get_release(connection, filled.under_way)
    assert found.findings.needed
    assert re.search(rf"Forecast: about {found.findings.needed:,} more requests \(at the pace since the last step in \d", text)
    assert "davy promote fares" in text


def test_the_charts_of_a_release_hold_its_timeline(client: TestClient, filled: Filled) -> None:
    with filled.home.database.read() as connection:
        told = timeline(connection, filled.rolled_back)
    weights = points(client, f"/releases/{filled.rolled_back}/series?of=weights")
    assert weights["series"][0]["values"][:-1] == [100 * point.share for point in told]
    assert weights["series"][0]["values"][-1] == 0.0
    assert weights["total"] == len(told)
    errors = points(client, f"/releases/{filled.rolled_back}/series?of=errors")
    harm, limit = errors["series"][0]["values"][-1], errors["limits"][0]["value"]
    assert harm >= limit == told[-1].metrics["errors"][1]
    assert errors["x"][-1] == told[-1].time / 1e6
    ratio = points(client, to("releases", filled.rolled_back, "series", of="sample ratio"))
    assert ratio["limits"][0]["value"] > ratio["series"][0]["values"][-1]
    assert client.get(f"/releases/{filled.rolled_back}/series?of=nothing").status_code == 404
    assert client.get("/releases/none").status_code == 404


def test_a_thinned_timeline_keeps_its_ends_and_every_change(filled: Filled) -> None:
    with filled.home.database.read() as connection:
        told = timeline(connection, filled.under_way)
    many = [point for point in told for _ in range(400)]
    found = thinned(many, 500)
    assert len(found) <= 500 + sum(bool(point.reasons) for point in many)
    assert (found[0], found[-1]) == (many[0], many[-1])
    assert {point.time for point in found if point.reasons} == {point.time for point in told if point.reasons}


def test_releases_of_a_model_are_listed_the_newest_first(client: TestClient, filled: Filled) -> None:
    page = read(client, "/models/fares/releases")
    found = [link for link in page.links if link.startswith("/releases/")]
    assert found == [f"/releases/{filled.under_way}", f"/releases/{filled.rolled_back}"]
    assert "davy release late@2" in read(client, "/models/late/releases").text
    assert client.get("/models/lte/releases").status_code == 404


def test_monitoring_tells_drift_with_its_threshold_since_when_and_whether_it_did_harm(client: TestClient) -> None:
    page, text = read(client, "/models/fares/monitoring?version=2"), flat(client, "/models/fares/monitoring?version=2")

    drift = text[text.index("Drift of fares@2"):text.index("Drift alarms")]
    assert "Alarm since wind" in drift, "what has moved comes first"
    assert drift.index("wind") < drift.index("mean_delay_3h")
    assert "above the tolerance of 0.01" in drift
    alarms = text[text.index("Drift alarms"):text.index("Performance")]
    assert re.search(r"wind fares@2 2013-04-30 \d\d:\d\d 2013-04-30 \d\d:\d\d lasts", alarms)
    assert "labels" in alarms
    performance = text[text.index("Performance"):text.index("Skew and lateness")]
    assert re.search(r"cost an answer.*fares@1.*USD", performance)
    assert "davy monitor fares --replay" in text
    assert to("models", "fares", "monitoring", version=2, feature="wind", days=1) + "#drift" in page.links


def test_the_distribution_of_a_feature_shows_the_training_set_and_what_was_served(client: TestClient) -> None:
    body = points(client, "/models/fares/monitoring/distribution?version=2&feature=wind")
    before, now = (np.array(line["values"][:-1]) for line in body["series"])
    x = np.array(body["x"][:-1])
    assert before.sum() == pytest.approx(100, abs=1.5)
    assert 3 < (x * now).sum() / now.sum() - (x * before).sum() / before.sum() < 9, "it blew harder"
    page = read(client, "/models/fares/monitoring?version=2&feature=carrier")
    assert HOSTILE in page.text
    assert re.search(r"B6\s*40\S* %\s*\d", page.text), "four in ten of the training set"
    for path in ("distribution?version=2&feature=carrier", "distribution?version=9&feature=wind", "distribution?version=x&feature=wind", "traffic?of=nothing"):
        assert client.get(f"/models/fares/monitoring/{path}").status_code == 404, path


@pytest.mark.parametrize("days", [1, 7, 30])
def test_traffic_over_time_counts_every_request_once(client: TestClient, filled: Filled, days: int) -> None:
    body = points(client, f"/models/fares/monitoring/traffic?of=requests&days={days}")
    assert [line["label"] for line in body["series"]] == ["fares@1", "fares@2", "fares@3"]
    assert body["total"] == filled.fares
    together = [sum(line["values"][at] or 0 for line in body["series"]) for at in range(len(body["x"]))]
    assert days == 30 or together == pytest.approx([15] * len(together), rel=0.02), "one came every four seconds"
    failures = points(client, f"/models/fares/monitoring/traffic?of=failures&days={days}")
    assert max(value for value in failures["series"][2]["values"] if value is not None) > 50
    assert max(value for value in failures["series"][0]["values"] if value is not None) == 0
    low, high = (points(client, f"/models/fares/monitoring/traffic?of={name}&days={days}")["series"][0]["values"] for name in ("p50", "p99"))
    assert all(one <= other for one, other in zip(low, high, strict=True) if one is not None)


def test_what_answers_were_worth_is_drawn_with_its_standard_error(client: TestClient) -> None:
    page = read(client, "/models/fares/monitoring")
    charts = [link for link in page.links if "/monitoring/quality?" in link]
    assert [link.partition("of=")[2].partition("&")[0] for link in charts] == ["auc", "kpi.cost", "coverage"]
    auc, cost, coverage = (points(client, link) for link in charts)
    assert cost["y_label"] == "cost per answer, USD"
    for body, low, high in ((auc, 0.9, 1.0), (cost, 0.0, 15.0), (coverage, 80.0, 95.0)):
        values = body["series"][0]["values"]
        assert all(low <= value <= high for value in values if value is not None)
        assert body["total"] == auc["total"] > 1000
    for body in (auc, cost):
        assert all(0 < error < 5 for value, error in zip(body["series"][0]["values"], body["series"][0]["error"], strict=True) if value is not None)
    assert not any(coverage["series"][0]["error"])
    assert client.get("/models/fares/monitoring/quality?of=kpi.nothing").status_code == 404
    assert client.get("/models/late/monitoring/quality?of=auc").status_code == 404
    assert client.get("/models/fares/monitoring/quality?of=auc&span=junk").status_code == 400


def test_skew_and_lateness_are_told_of_the_last_replay(client: TestClient) -> None:
    text = flat(client, "/models/late/monitoring")
    assert re.search(r"\d+ of \d+ replayed vectors are not what was served", text)
    assert "davy replay late" in text


def test_alerts_say_since_when_by_which_rule_and_whether_somebody_was_told(client: TestClient) -> None:
    page, text = read(client, "/alerts"), flat(client, "/alerts")

    assert re.search(r"Alerts: \d+ firing", text)
    assert RULE in page.text
    assert "failure_rate above 0.001 over 1d" in text
    assert re.search(r"tried again .*?1 attempt", text), "nobody answers at its webhook"
    assert "fares@2 wind" in text
    assert to("models", "fares", "monitoring", version=2, feature="wind") + "#drift" in page.links
    assert "taken-by-nobody" not in text, "an address may hold a secret"


def test_versions_and_predictions_lead_to_gate_release_and_monitoring(client: TestClient, filled: Filled) -> None:
    version = read(client, "/models/fares/2")
    for link in (f"/releases/{filled.under_way}", "/models/fares/2/gate", "/models/fares/monitoring?version=2"):
        assert link in version.links, link
    found = next(link for link in version.links if link.startswith("/predictions/"))
    prediction = read(client, found)
    assert f"/releases/{filled.under_way}" in prediction.links
    assert "under way then" in prediction.text
    assert "/models/fares/2/gate" in prediction.links
    model = read(client, "/models/fares")
    assert {"/models/fares/releases", "/models/fares/monitoring", "/models/fares/3/gate"} <= set(model.links)


def test_an_odd_number_in_an_address_is_no_number(client: TestClient) -> None:
    for path in ("/models/fares/monitoring?days=000007999999999", "/models/fares/monitoring?days=\u00b2", "/journal?before=\u00b2"):
        assert client.get(path).status_code == 200, path
    assert client.get("/models/fares/monitoring/distribution?version=\u00b2&feature=wind").status_code == 404


def test_hostile_names_are_text_on_these_pages_too(client: TestClient, filled: Filled) -> None:
    shown = 0
    hostile = HOSTILE.replace("/", "")
    for path in ("/alerts", "/models/fares/monitoring?feature=carrier", f"/releases/{filled.rolled_back}", "/models/fares/releases", "/models/fares/2/gate",
                 to("models", hostile, "monitoring"), to("models", hostile, "releases"), to("models", "fares", "monitoring", feature=HOSTILE, days=HOSTILE)):
        page = client.get(path)
        assert page.status_code == 200, path
        found = Reader(page.text)
        assert all("src" in attributes for tag, attributes in found.tags if tag == "script"), path
        assert not any(name.startswith("on") or name == "style" for _, attributes in found.tags for name in attributes), path
        assert not any(tag == "b" and RULE in page.text for tag, _ in found.tags)
        shown += HOSTILE in found.text or hostile in found.text
    assert shown >= 6


def test_a_column_of_whole_numbers_keeps_each_at_its_place() -> None:
    import polars as pl

    random = np.random.default_rng(1)
    reference = make_reference(pl.DataFrame({"n": random.integers(0, 6, 6_000)}))
    profile = count(reference, pl.DataFrame({"n": [5] * 300 + [0] * 100 + [9] * 100}))["n"]
    chart = curves(reference.columns[0], profile)
    assert list(chart.x) == [0, 1, 2, 3, 4, 5, 6]
    before, now = (line.values[:-1] for line in chart.series)
    assert [round(share) for share in before] == pytest.approx([100 / 6] * 6, abs=1.5)
    assert now == pytest.approx([20, 0, 0, 0, 0, 60]), "a fifth is beyond the range"


def test_columns_that_hold_little_are_drawn() -> None:
    import polars as pl

    frame = pl.DataFrame({"same": [3.5] * 100, "nulls": pl.Series([None] * 100, dtype=pl.Float64), "texts": ["a"] * 60 + ["b"] * 40})
    reference = make_reference(frame)
    profiles = count(reference, frame.with_columns(pl.lit("new").alias("texts")))
    same, nulls, texts = reference.columns
    assert sum(curves(same, profiles["same"]).series[1].values[:-1]) == pytest.approx(100)
    assert all(value == 0 for line in curves(nulls, profiles["nulls"]).series for value in line.values)
    found = {bar.name: (bar.before, bar.now) for bar in bars(texts, profiles["texts"])}
    assert found == {"a": (0.6, 0.0), "b": (0.4, 0.0), "not in the training set": (0.0, 1.0)}


@pytest.mark.parametrize(("given", "said"), [
    ((["errors", "skew"], "labels show harm", 2, 9, 10), ("Not well: errors, skew", "bad")),
    (([], "labels show harm", 1, 0, 10), ("Drift does harm", "bad")),
    (([], "labels show no harm", 1, 3, 300), ("Requests fail", "bad")),
    (([], "labels show no harm", 1, 2, 20), ("Inputs have moved", "wait")),
    (([], "", 0, 3, 301), ("Well", "good")),
    (([], "", 0, 0, 0), ("Silent", "wait")),
])
def test_health_is_said_in_words_the_worst_first(given: tuple[list[str], str, int, int, int], said: tuple[str, str]) -> None:
    assert in_words(*given) == said


@pytest.mark.parametrize(("subject", "parts"), [
    ("late@2 dep_delay", ("late", 2, "dep_delay")), ("late", ("late", None, "")), ("late weather", ("late", None, "weather")), ("a@b@12", ("a@b", 12, "")),
])
def test_what_an_alert_is_about(subject: str, parts: tuple[str, int | None, str]) -> None:
    assert about(subject) == parts
