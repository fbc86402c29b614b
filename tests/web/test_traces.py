"""Traces on pages: found, and their spans laid out as they lie within each other."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from starlette.testclient import TestClient

from davy.tracking.artifacts import add_artifacts
from davy.tracking.assessments import add_assessments
from davy.tracking.traces import Trace, put_trace
from davy.web.traces import MOST_SPANS

if TYPE_CHECKING:
    from davy.home import Home

HOSTILE = "<script>alert(1)</script>"


def _span(number: int, parent: int | None, start: int, end: int | None, **others: Any) -> dict[str, Any]:
    return {"trace_id": "t", "span_id": f"s{number}", "parent_span_id": None if parent is None else f"s{parent}", "name": f"span {number}",
            "start_time_unix_nano": start, "end_time_unix_nano": end,
            "status": {"code": "STATUS_CODE_OK", "message": ""}, "attributes": {}, "events": [], **others}


def _keep(home: Home, name: str, state: Any = "OK", *, content: bytes | None = None) -> str:
    found = f"tr-{name}"
    folder = f"traces/{found}/artifacts"
    with home.database.begin() as connection:
        put_trace(connection, Trace(found, 0, 1_700_000_000_000, 30, state, request_preview=f'{{"q": "{HOSTILE}"}}', response_preview="42",
                                    tags={"mlflow.traceName": name, "mlflow.artifactLocation": f"mlflow-artifacts:/0/{folder}", "team": "ops"}))
        if content is not None:
            add_artifacts(connection, "0", {f"{folder}/traces.json": (home.blobs.put(content), len(content))}, clock=home.clock, blobs=home.blobs)
    return found


def test_traces_are_listed_and_found(client: TestClient, home: Home) -> None:
    assert "@mlflow.trace" in client.get("/traces").text
    _keep(home, "answer")
    _keep(home, "broken", "ERROR")
    page = client.get("/traces").text
    assert "/traces/tr-answer" in page
    assert "/traces/tr-broken" in page
    assert HOSTILE not in page
    found = client.get("/traces", params={"filter": "status = 'ERROR'"}).text
    assert "/traces/tr-broken" in found
    assert "/traces/tr-answer" not in found
    assert "No trace is like this" in client.get("/traces", params={"filter": "trace.name = 'nobody'"}).text
    assert "No trace yet" in client.get("/traces", params={"experiment": "nowhere"}).text
    wrong = client.get("/traces", params={"filter": "status >> <b>"})
    assert wrong.status_code == 400
    assert "at character" in wrong.text
    assert "<b>" not in wrong.text


def test_spans_lie_within_each_other_by_time(client: TestClient, home: Home) -> None:
    spans = [
        _span(3, 1, 60, 90, status={"code": "STATUS_CODE_ERROR", "message": "no way"}),
        _span(1, None, 0, 100, attributes={"mlflow.spanType": '"CHAIN"', "mlflow.spanInputs": json.dumps({"q": HOSTILE}), "tokens": "7"}),
        _span(4, 2, 20, 30), _span(2, 1, 10, 50), _span(5, 99, 95, None),
    ]
    page = client.get(f"/traces/{_keep(home, 'answer', content=json.dumps({'spans': spans}).encode())}").text
    rows = re.findall(r'<span class="soft">((?:· )*)</span><span(?: class="bad")?>(span \d)', page)
    assert rows == [("", "span 1"), ("· ", "span 2"), ("· · ", "span 4"), ("· ", "span 3"), ("", "span 5")]
    bars = re.findall(r'<rect x="([\d.]+)" width="([\d.]+)"', page)
    assert [(float(x), float(width)) for x, width in bars] == [(0, 100), (10, 40), (20, 10), (60, 30), (95, 1)]
    assert page.count('class="bad"') == 1
    for told in ("no way", "chain", "tokens", "team"):
        assert told in page
    assert HOSTILE not in page
    assert HOSTILE.replace("<", "&lt;").replace(">", "&gt;") in page


def test_what_was_said_of_a_trace_is_shown(client: TestClient, home: Home) -> None:
    found = _keep(home, "answer")
    assert "What was said of it" not in client.get(f"/traces/{found}").text
    source, times = {"source_type": "LLM_JUDGE", "source_id": "judge-7"}, {"create_time": "2026-01-02T03:04:05Z", "last_update_time": "2026-01-02T03:04:05Z"}
    with home.database.begin() as connection:
        first = add_assessments(connection, found, [{"assessment_name": "good", "feedback": {"value": False}, "source": source, "rationale": HOSTILE, **times}],
                                clock=home.clock)[0]
        add_assessments(connection, found, [{"assessment_name": "good", "feedback": {"value": True}, "overrides": first["assessment_id"], **times},
                                            {"assessment_name": "answer", "expectation": {"value": {"n": 42}}, **times}], clock=home.clock)
    page = client.get(f"/traces/{found}").text
    for told in ("What was said of it", "llm judge judge-7", "2026-01-02 03:04:05", "expected", "42"):
        assert told in page
    assert page.count("overridden") == 1
    assert HOSTILE not in page


@pytest.mark.parametrize("content", [None, b"{", b'{"spans": [{"name": 5}]}', b"\xff"])
def test_a_trace_whose_spans_are_missing_or_broken_is_shown_without_them(client: TestClient, home: Home, content: bytes | None) -> None:
    answer = client.get(f"/traces/{_keep(home, 'odd', content=content)}")
    assert answer.status_code == 200
    assert "Its spans are not kept here" in answer.text
    assert client.get("/traces/tr-none").status_code == 404


def test_spans_that_lead_in_a_circle_or_are_too_many_end(client: TestClient, home: Home) -> None:
    circle = [_span(1, 2, 0, 1), _span(2, 1, 0, 1), _span(3, None, 0, 2)]
    page = client.get(f"/traces/{_keep(home, 'circle', content=json.dumps({'spans': circle}).encode())}").text
    assert re.findall(r"<span>(span \d)", page) == ["span 3"]
    many = [_span(number, number - 1 if number else None, number, 5000) for number in range(MOST_SPANS + 5)]
    page = client.get(f"/traces/{_keep(home, 'deep', content=json.dumps({'spans': many}).encode())}").text
    assert len(re.findall(r"<rect x=", page)) == MOST_SPANS
    assert "the first 1,000" in page
