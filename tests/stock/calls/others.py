"""Traces, parts of uploads, what a server says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stock_kit import Pair

TRACES = "/api/3.0/mlflow/traces"


def _trace(number: int, experiment: str = "$traced", **more: Any) -> dict[str, Any]:
    """A trace as the client begins it."""
    return {
        "trace": {
            "trace_info": {
                "trace_id": f"tr-{number:032x}",
                "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}},
                "request_time": f"2026-01-0{number}T00:00:00Z",
                "execution_duration": f"{number}.500s",
                "state": "OK" if number % 2 else "ERROR",
                "request_preview": f"question {number}",
                "response_preview": "answer",
                "tags": {"mlflow.traceName": f"ask-{number}", "team": "air" if number < 3 else "sea"},
                "trace_metadata": {"mlflow.trace_schema.version": "3", "mlflow.user": "ada"},
                **more,
            }
        }
    }


def traces(pair: Pair) -> None:
    pair.post("experiments/create", {"name": "traced"}, keep={"traced": "experiment_id"})
    for number in range(1, 6):
        pair.post(TRACES, _trace(number))
    pair.post(TRACES, {})
    pair.post(TRACES, _trace(6, "99999"))
    for trace in (f"tr-{1:032x}", "tr-nothing"):
        pair.get(f"{TRACES}/{trace}")
    place = [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "$traced"}}]
    for body in (
        {},
        {"filter": "status = 'OK'"},
        {"filter": "trace.status = 'ERROR'"},
        {"filter": "tags.team = 'air'"},
        {"filter": "trace.name = 'ask-2'"},
        {"filter": "timestamp_ms > 1767398400000"},
        {"filter": "execution_time_ms < 3000"},
        {"order_by": ["timestamp_ms ASC"]},
        {"order_by": ["execution_time DESC"]},
        {"filter": "nothing = 'x'", "known": "another reason"},
        {"filter": "tags.team >"},
        {"max_results": 0},
        {"max_results": "x"},
        {"locations": []},
    ):
        pair.post(f"{TRACES}/search", {"locations": place, **body})
    pair.post(f"{TRACES}/search", {"max_results": 5})
    pair.post(f"{TRACES}/batchGetInfos", {"trace_ids": [f"tr-{2:032x}", "tr-nothing"]})
    pair.post(f"{TRACES}/batchGetInfos", {})
    pair.get("traces", max_results=5)
    pair.post("traces/link-to-run", {"run_id": "x"})
    pair.post("traces/link-to-run", {"run_id": "x", "trace_ids": ["t"] * 101})
    pair.walk(f"{TRACES}/search", "traces", {"locations": place, "max_results": 2, "order_by": ["timestamp_ms DESC"]})
    for key, value in (("a", "1"), ("a", "2"), ("", "x")):
        pair.ask("PATCH", f"{TRACES}/tr-{1:032x}/tags", {"trace_id": f"tr-{1:032x}", "key": key, "value": value})
    pair.ask("PATCH", f"{TRACES}/tr-nothing/tags", {"key": "a", "value": "b"}, known="tags of no trace")
    pair.get(f"{TRACES}/tr-{1:032x}")
    pair.ask("DELETE", f"{TRACES}/tr-{1:032x}/tags", {"key": "a"})
    pair.ask("DELETE", f"{TRACES}/tr-{1:032x}/tags", {"key": "a"})
    for body in (
        {"experiment_id": "$traced", "request_ids": [f"tr-{1:032x}", "tr-nothing"]},
        {"experiment_id": "$traced", "max_timestamp_millis": 1767398400000, "max_traces": 1},
        {"experiment_id": "$traced"},
        {},
    ):
        pair.post(f"{TRACES}/delete-traces", body)
    pair.post(f"{TRACES}/search", {"locations": place})


def assessments(pair: Pair) -> None:
    pair.post(TRACES, _trace(7))
    path = f"{TRACES}/tr-{7:032x}/assessments"
    when = {"create_time": "2026-02-01T00:00:00.5Z", "last_update_time": "2026-02-01T00:00:00.500Z", "source": {"source_type": "CODE", "source_id": "c"}}
    good, wanted = {"assessment_name": "good", "feedback": {"value": True}}, {"assessment_name": "wanted", "expectation": {"value": "UA1"}}
    pair.post(path, {"assessment": {**when, **good, "rationale": "so", "metadata": {"a": "b"}, "valid": True}}, keep={"good": "assessment.assessment_id"})
    pair.post(path, {"assessment": {**when, **wanted, "span_id": "s"}}, keep={"wanted": "assessment.assessment_id"})
    for number, assessment in enumerate((
        {},
        {**when, "assessment_name": "neither"},
        {**when, **good, "feedback": {}, "rationale": ""},
        {**when, **good, "feedback": {"value": [1.5, {"deep": None}]}, "source": {"source_type": 2}},
        {**when, **good, "feedback": {"value": 0.5}, "source": {}, "valid": False},
        {**when, **wanted, "expectation": {}},
        {**when, **good, "overrides": "nothing"},
    )):
        pair.post(path, {"assessment": assessment}, keep={f"said{number}": "assessment.assessment_id"})
    pair.post(path, {})
    pair.post(TRACES, _trace(8))
    for assessment in ({**when, **good, "source": {"source_type": "NOBODY"}}, {**when, **good, "create_time": "soon"}, "x"):
        pair.post(f"{TRACES}/tr-{8:032x}/assessments", {"assessment": assessment}, known="mistyped fields")
    pair.post(f"{TRACES}/tr-nothing/assessments", {"assessment": {**when, **good}})
    pair.post(path, {"assessment": {**when, **good, "feedback": {"value": "fine"}, "overrides": "$good"}}, keep={"other": "assessment.assessment_id"})
    pair.get(f"{TRACES}/tr-{7:032x}")
    for body in (
        {"assessment": {"feedback": {"value": 2.5}}, "update_mask": "feedback"},
        {"assessment": {"assessment_name": "better", "rationale": "no", "metadata": {"c": "d"}}, "update_mask": "assessmentName,rationale,metadata"},
        {"assessment": {"expectation": {"value": 1.5}}, "update_mask": "expectation"},
        {"assessment": {"feedback": {"value": 1.5}}, "update_mask": "nothing"},
        {"assessment": {"feedback": {"value": 1.5}}},
        {"update_mask": "feedback"},
    ):
        pair.ask("PATCH", f"{path}/$good", body)
    pair.ask("PATCH", f"{path}/$wanted", {"assessment": {"feedback": {"value": 2.5}}, "update_mask": "feedback"})
    pair.ask("PATCH", f"{path}/nothing", {"assessment": {"feedback": {"value": 2.5}}, "update_mask": "feedback"})
    for assessment_id in ("$other", "$other", "nothing"):
        pair.ask("DELETE", f"{path}/{assessment_id}", {})
    for assessment_id in ("$good", "$wanted", "$other"):
        pair.get(f"{path}/{assessment_id}")
    pair.ask("DELETE", f"{TRACES}/tr-nothing/assessments/x", {})


def what_a_server_is(pair: Pair) -> None:
    pair.get("/api/3.0/mlflow/server-info", known="what the server can")
    path = "/api/2.0/mlflow-artifacts/mpu/create/$traced/file.bin"
    pair.post(path, {"path": "file.bin", "num_parts": 1}, known="uploads in parts")
    pair.get("/api/2.0/mlflow-artifacts/presigned/$traced/nothing.bin")
    for query in ({"known": "missing parameters"}, {"name": "nobody", "version": "1", "path": "x"}):
        pair.get("/model-versions/get-artifact", **query)


SCRIPTS = (traces, assessments, what_a_server_is)
