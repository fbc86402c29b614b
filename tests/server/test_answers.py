"""What is asked, answered and logged, through the front door."""

from __future__ import annotations

import math
from typing import Any

import lightgbm
import numpy as np
import pytest

from davy.errors import NotFound
from davy.events.client import connect
from davy.home import Home
from davy.serving.predictions import find_prediction, read_predictions
from server_kit import BODY, Running, until
from serving_kit import feature_set, lightgbm_text, signature

FEATURES = feature_set()


def expected(values: list[Any], seed: int) -> float:
    """LightGBM's own answer to a logged vector."""
    booster = lightgbm.Booster(model_str=lightgbm_text(len(FEATURES.outputs), seed).decode())
    return float(booster.predict(np.array([signature(FEATURES).encode(values)]), num_threads=1)[0])


def record(server: Running, prediction: str) -> Any:
    home = Home(server.root)
    try:
        return find_prediction(home, prediction)
    finally:
        home.close()


def test_an_answer_is_what_lightgbm_says_of_the_logged_vector(server: Running) -> None:
    status, answer = server.post("/predict/fraud", BODY)
    assert status == 200
    assert set(answer) == {"prediction_id", "prediction", "model", "version", "arm", "time", "watermarks"}
    logged = record(server, answer["prediction_id"])
    assert logged.output == answer["prediction"] == expected(logged.values, answer["version"] - 1)
    assert (logged.model, logged.version, logged.arm, logged.pinned) == ("fraud", answer["version"], answer["arm"], False)
    assert logged.entities == {"card": "c1"}
    assert logged.request == {"amount": 12.5, "shop": "books", "asked": 1767225600000000}
    assert logged.feature_set == FEATURES.digest
    assert logged.latency >= logged.model_time > 0


def test_events_are_in_the_next_prediction(server: Running) -> None:
    card = {**BODY, "card": "pushed"}
    before = server.post("/predict/fraud", card)[1]
    now = before["time"]
    status, receipt = server.post("/events/payments", [{"card": "pushed", "amount": 3, "at": now}, {"card": "pushed", "amount": 4.5, "at": now}])
    assert (status, receipt["accepted"]) == (200, 2)
    after = server.post("/predict/fraud", card)[1]
    assert after["watermarks"]["payments"] == receipt["last_offset"]
    first, second = record(server, before["prediction_id"]).values, record(server, after["prediction_id"]).values
    assert first[:3] == [0, 0.0, None]
    assert second[:3] == [2, 7.5, 3.75]


def test_an_array_is_answered_by_an_array_in_order(server: Running) -> None:
    cards = [{**BODY, "card": f"card-{number}", "amount": float(number)} for number in range(50)]
    status, answers = server.post("/predict/fraud", cards)
    assert status == 200
    assert [record(server, answer["prediction_id"]).request["amount"] for answer in answers[:5]] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert {answer["version"] for answer in answers} == {1, 2}
    single = {server.post("/predict/fraud", card)[1]["version"] == answer["version"] for card, answer in zip(cards[:10], answers[:10], strict=True)}
    assert single == {True}
    assert server.post("/predict/fraud", []) == (200, [])


def test_a_routing_key_decides_and_sticks(server: Running) -> None:
    def versions(key: str) -> set[int]:
        return {server.post("/predict/fraud", {**BODY, "card": f"x{number}"}, {"davy-routing-key": key})[1]["version"] for number in range(5)}

    found = [versions(f"user-{number}") for number in range(20)]
    assert all(len(one) == 1 for one in found)
    assert set.union(*found) == {1, 2}


def test_shares_are_those_of_the_weights(server: Running) -> None:
    answers = server.post("/predict/fraud", [{**BODY, "card": f"share-{number}"} for number in range(2000)])[1]
    share = sum(answer["version"] == 2 for answer in answers) / 2000
    assert abs(share - 0.5) < 4 * math.sqrt(0.25 / 2000)


def test_a_version_can_be_pinned_without_traffic(server: Running) -> None:
    status, answer = server.post("/predict/fraud/versions/3", BODY)
    assert (status, answer["version"], answer["arm"]) == (200, 3, "pinned")
    logged = record(server, answer["prediction_id"])
    assert logged.pinned
    assert 0 <= logged.output <= 1


def test_null_and_unseen_values_are_served(server: Running) -> None:
    answer = server.post("/predict/fraud", {**BODY, "card": "never seen", "shop": "unheard of", "amount": None})[1]
    assert record(server, answer["prediction_id"]).values == [0, 0.0, None, None, None, "unheard of"]
    assert server.post("/predict/fraud", {**BODY, "card": None})[0] == 200


@pytest.mark.parametrize(("body", "message"), [
    ({key: value for key, value in BODY.items() if key != "amount"}, "'amount' is missing"),
    ({key: value for key, value in BODY.items() if key != "card"}, "'card' is missing"),
    ({**BODY, "amount": "much"}, "'amount' is of the type str"),
    ({**BODY, "card": 7}, "'card' is of the type int"),
    ({**BODY, "amont": 1.0}, "'amont' is unknown"),
    ({**BODY, "asked": "2026-01-01T00:00:00"}, "no zone"),
    ({**BODY, "asked": "tomorrow"}, "not a time"),
    ({**BODY, "amount": 1e300}, "'amount' got 1e+300"),
    (b'{"card": "c1", "amount": NaN, "shop": "books", "asked": 0}', "not JSON"),
    (b"amount=3", "not JSON"),
    (b"", "not JSON"),
    (b"3", "not as it should be"),
    (b'{"card": "\xff"}', "not JSON"),
    ([BODY, {**BODY, "amount": "much"}], "Row 1: The field 'amount' is of the type str"),
    ([BODY, {**BODY, "asked": "2026-01-01T00:00:00"}], "Row 1: "),
])
def test_a_wrong_body_is_a_400_that_names_what_is_wrong(server: Running, body: Any, message: str) -> None:
    status, error = server.post("/predict/fraud", body)
    assert status == 400
    assert message in error["message"]
    assert error["fix"]


@pytest.mark.parametrize(("path", "status", "message"), [
    ("/predict/frod", 404, "frod"),
    ("/predict/fraud/versions/9", 404, "no version 9"),
    ("/predict/fraud/versions/x", 400, "not a version"),
    ("/predict/fraud/version/1", 404, "nothing at"),
    ("/predict/", 404, "nothing at"),
    ("/events/paymints", 404, "paymints"),
    ("/outcomes/frod", 404, "no model 'frod'"),
    ("/outcomes/frod", 404, "fraud"),
    ("/events/outcomes/fraud", 404, "nothing at"),
])
def test_what_is_not_there_is_told(server: Running, path: str, status: int, message: str) -> None:
    found, error = server.post(path, BODY)
    assert found == status
    assert message in error["message"] + error["allowed"] + error["fix"]


@pytest.mark.parametrize(("accept", "kind", "told"), [("text/html,*/*", "text/html", b'href="/runs"'), ("*/*", "application/json", b"Correct the path.")])
def test_a_browser_is_told_on_a_page_and_a_program_in_json(server: Running, accept: str, kind: str, told: bytes) -> None:
    with server.client() as client:
        client.connection.request("GET", "/rums", headers={"accept": accept})
        answer = client.connection.getresponse()
        body = answer.read()
    assert answer.status == 404
    assert str(answer.headers["content-type"]).startswith(kind)
    assert b"/rums" in body
    assert told in body


def test_a_get_of_a_prediction_says_how_to_ask(server: Running) -> None:
    status, error = server.get("/predict/fraud")
    assert status == 400
    assert "POST" in error["allowed"]


def test_a_body_beyond_the_limit_is_refused(server: Running) -> None:
    assert server.post("/predict/fraud", b" " * (9 << 20))[0] == 413

    def pieces() -> Any:
        for _ in range(9):
            yield b" " * (1 << 20)

    with server.client() as client:
        client.connection.request("POST", "/predict/fraud", pieces(), {"content-type": "application/json"}, encode_chunked=True)
        assert client.connection.getresponse().status == 413


@pytest.mark.parametrize("headers", [{"host": "davy.example.com"}, {"origin": "http://evil.example.com"}])
def test_other_sites_are_refused(server: Running, headers: dict[str, str]) -> None:
    assert server.post("/predict/fraud", BODY, headers)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:8080", "127.8.9.1"])
def test_this_machine_is_addressed_by_any_of_its_own_names(server: Running, host: str) -> None:
    assert server.post("/predict/fraud", BODY, {"host": host})[0] == 200
    assert server.post("/predict/fraud", BODY, {"host": host, "origin": f"http://{host}"})[0] == 200


def test_one_wrong_event_refuses_its_push(server: Running) -> None:
    rows = [{"card": "w", "amount": 3, "at": "2026-01-01T00:00:00Z"}, {"card": "w", "amount": "x", "at": "2026-01-01T00:00:00Z"}]
    status, error = server.post("/events/payments", rows)
    assert status == 400
    assert "amount" in error["message"]
    assert server.post("/events/payments", b"[1]")[1]["message"].startswith("Row 0 is 1")


def test_outcomes_are_taken_once_they_are_declared(server: Running) -> None:
    from davy.core.fields import Field

    prediction = server.post("/predict/fraud", BODY)[1]["prediction_id"]
    home = Home(server.root)
    with connect(home, hold=False) as log:
        log.outcomes("fraud", [{"prediction": prediction, "loss": 1.5}], Field("loss", "float", 6))
    home.close()
    status, receipt = server.post("/outcomes/fraud", [{"prediction": prediction, "loss": 2.5}])
    assert (status, receipt["accepted"]) == (200, 1)


def test_predictions_reach_their_table_once(server: Running) -> None:
    answers = [server.post("/predict/fraud", {**BODY, "card": f"flush-{number}"})[1] for number in range(20)]
    ids = {answer["prediction_id"] for answer in answers}
    home = Home(server.root)
    try:
        before = read_predictions(home, "fraud")[FEATURES.digest]
        with connect(home, hold=False) as log:
            log.flush()
        after = read_predictions(home, "fraud")[FEATURES.digest]
        table = home.table(f"predictions/fraud/{FEATURES.digest[7:19]}").scan().collect()
        assert ids <= set(before["prediction"])
        assert set(before["prediction"]) <= set(after["prediction"])
        assert after["prediction"].n_unique() == after.height
        assert table["prediction"].n_unique() == table.height
        assert ids <= set(table["prediction"])
        logged = find_prediction(home, answers[0]["prediction_id"])
        assert logged.output == answers[0]["prediction"]
        with pytest.raises(NotFound):
            find_prediction(home, "0" * 32)
    finally:
        home.close()


def test_pages_are_behind_the_same_address(server: Running) -> None:
    status, page = until(lambda: (found := server.get("/"))[0] != 503 and found)
    assert status == 200
    assert "fraud" in page
    assert server.get("/no-such-page")[0] == 404


def test_versions_that_are_not_there_start_no_process(server: Running) -> None:
    for number in (97, 98, 99):
        assert server.post(f"/predict/fraud/versions/{number}", BODY)[0] == 404
    server.post("/predict/fraud/versions/1", BODY)
    assert not server.processes("fraud@9")


def test_health_says_what_is_live(server: Running) -> None:
    assert server.health() == {"status": "ok", "models": {"fraud": {"revision": 1, "versions": [1, 2]}}, "problems": {}, "shadow": {"asked": 0, "dropped": 0}}


@pytest.mark.parametrize(("method", "path"), [("GET", "/nope"), ("POST", "/fraud/predict")])
def test_a_path_that_leads_nowhere_names_those_that_do(server: Running, method: str, path: str) -> None:
    with server.client() as client:
        found = until(lambda: answer if (answer := client.request(method, path, b"{}"))[0] != 503 else None)
    assert found[0] == 404
    assert found[1]["error"] == "NotFound"
    assert "POST /predict/MODEL" in found[1]["allowed"]
