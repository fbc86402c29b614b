"""Feedback and expectations of traces, spoken to a real server: kept with their trace, each once, and bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from databases import write_settings
from davy.tracking.assessments import LARGEST, MOST
from protocols.artifacts_kit import Answer, Tracking

if TYPE_CHECKING:
    from collections.abc import Iterator

TRACES = "/api/3.0/mlflow/traces"
SAID = {"source": {"source_type": "HUMAN", "source_id": "ada"}, "create_time": "2026-01-01T00:00:00Z", "last_update_time": "2026-01-01T00:00:00Z"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    root = tmp_path_factory.mktemp("assessments") / "shop"
    root.mkdir()
    write_settings(root)
    with Tracking(root) as running:
        yield running
        assert "Traceback" not in running.log()


def ask(server: Tracking, method: str, path: str, given: Any = None) -> Answer:
    body = None if given is None else msgspec.json.encode(given)
    return server.ask(method, f"{TRACES}{path}", body, {"content-type": "application/json"} if body else None)


def feedback(name: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"assessment": {"assessment_name": name, "feedback": {"value": value}, **SAID, **more}}


def begin(server: Tracking, trace: str, *assessments: dict[str, Any], **more: Any) -> Answer:
    info = {"trace_id": trace, "request_time": "2026-01-01T00:00:00Z", "assessments": [one["assessment"] for one in assessments], **more}
    return ask(server, "POST", "", {"trace": {"trace_info": info}})


def said(server: Tracking, trace: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(server, "GET", f"/{trace}").json["trace"]["trace_info"].get("assessments", [])
    return found


def test_what_came_with_a_trace_has_ids_and_stays(server: Tracking) -> None:
    for state in ("IN_PROGRESS", "OK"):  # the client ends it, or tries again
        assert begin(server, "tr-live", feedback("live", 1.5), state=state).status == 200
    assert begin(server, "tr-live", state="OK").status == 200
    (kept,) = said(server, "tr-live")
    assert ask(server, "DELETE", f"/tr-live/assessments/{kept['assessment_id']}").json == {}
    assert said(server, "tr-live") == []


def test_a_second_try_is_the_first(server: Tracking) -> None:
    begin(server, "tr-twice")
    first, again, other = (ask(server, "POST", "/tr-twice/assessments", feedback("good", value)).json["assessment"] for value in (True, True, False))
    assert first == again != other
    assert [one["feedback"]["value"] for one in said(server, "tr-twice")] == [True, False]
    for value in (1.0, 1.0):
        override = feedback("good", value, overrides=first["assessment_id"])
        changed = ask(server, "POST", "/tr-twice/assessments", override).json["assessment"]
    assert [one["valid"] for one in said(server, "tr-twice")] == [False, True, True]
    for _ in range(2):
        assert ask(server, "DELETE", f"/tr-twice/assessments/{changed['assessment_id']}").status == 200
    assert [one["valid"] for one in said(server, "tr-twice")] == [True, True]
    taken = feedback("other", 3, assessment_id=first["assessment_id"])
    assert "already exists" in ask(server, "POST", "/tr-twice/assessments", taken).error[2]


def test_what_it_takes(server: Tracking) -> None:
    begin(server, "tr-bounds")
    refused = [feedback("n" * 251, 1), feedback("n", 1, assessment_id="i" * 51), feedback("n", 1, expectation={"value": 1}), feedback("n", "x" * LARGEST),
               feedback("n", 1, source={"source_type": 9}), feedback("n", 1, create_time="9999999"), {"assessment": {"feedback": "good"}}]
    for given in refused:
        assert ask(server, "POST", "/tr-bounds/assessments", given).error[:2] == (400, "INVALID_PARAMETER_VALUE")
        assert begin(server, "tr-none", given).error[0] == 400
    deep = b'{"assessment": {"feedback": {"value": ' + b"[" * 100_000
    assert server.ask("POST", f"{TRACES}/tr-bounds/assessments", deep, {"content-type": "application/json"}).status == 400
    assert said(server, "tr-bounds") == []
    assert ask(server, "GET", "/tr-none").status == 404  # a trace with bad feedback is not half there
    assert begin(server, "tr-many", *(feedback(str(number), number) for number in range(MOST + 1))).error[0] == 400
    assert begin(server, "tr-many", *(feedback(str(number), number) for number in range(MOST))).status == 200
    assert ask(server, "POST", "/tr-many/assessments", feedback("more", 1)).error[0] == 400
    assert len(said(server, "tr-many")) == MOST


def test_what_may_be_changed(server: Tracking) -> None:
    begin(server, "tr-change")
    made = ask(server, "POST", "/tr-change/assessments", feedback("good", 1, metadata={"a": "1", "b": "1"})).json["assessment"]
    path = f"/tr-change/assessments/{made['assessment_id']}"
    assert ask(server, "PATCH", path, {"assessment": {"metadata": {"b": "2"}, "rationale": "r"}, "updateMask": "metadata"}).status == 200
    (kept,) = said(server, "tr-change")
    assert kept == {**made, "metadata": {"a": "1", "b": "2"}, "last_update_time": kept["last_update_time"]}
    assert kept["last_update_time"] > made["last_update_time"]
    for given, text in (({"expectation": {"value": 1}}, "Cannot update expectation value on a Feedback assessment."), ({}, "must be specified")):
        mask = "expectation" if given else "feedback"
        assert text in ask(server, "PATCH", path, {"assessment": given, "update_mask": mask}).error[2]
    assert ask(server, "PATCH", path, {"assessment": {"feedback": {"value": "x" * LARGEST}}, "update_mask": "feedback"}).error[0] == 400
    assert said(server, "tr-change") == [kept]
