"""`@mlflow.trace`: spans are sent, found and read back. Runs with MLflow 3."""

from __future__ import annotations

from contextlib import suppress

import mlflow
from checks import same, step, true
from mlflow import MlflowClient
from mlflow.entities import Expectation, Feedback

client = MlflowClient()
experiment = mlflow.set_experiment("traces")


@mlflow.trace(span_type="CHAIN", attributes={"team": "air"})
def answer(question: str) -> str:
    with mlflow.start_span("look up", span_type="RETRIEVER") as span:
        span.set_inputs({"question": question})
        span.set_outputs({"rows": [1, 2, 3]})
    return question.upper()


@mlflow.trace
def broken() -> None:
    raise ValueError("no")


with step("traces are sent"):
    same([answer("ua1"), answer("ua2")], ["UA1", "UA2"])
    with suppress(ValueError):
        broken()
    mlflow.flush_trace_async_logging()

with step("and found"):
    traces = mlflow.search_traces(locations=[experiment.experiment_id], return_type="list", order_by=["timestamp_ms DESC"])
    times = [trace.info.timestamp_ms for trace in traces]
    same(times, sorted(times, reverse=True))  # two of them may have begun in one millisecond
    same(sorted(trace.info.status.value if hasattr(trace.info.status, "value") else str(trace.info.status) for trace in traces), ["ERROR", "OK", "OK"])
    (trace,) = (trace for trace in traces if trace.info.request_preview == '{"question": "ua2"}')
    same(trace.info.response_preview, '"UA2"')
    same(sorted(span.name for span in trace.data.spans), ["answer", "look up"])

with step("and read back"):
    found = mlflow.get_trace(trace.info.trace_id)
    root = next(span for span in found.data.spans if span.parent_id is None)
    same((root.name, root.inputs, root.outputs, root.span_type, root.get_attribute("team")), ("answer", {"question": "ua2"}, "UA2", "CHAIN", "air"))
    inner = next(span for span in found.data.spans if span.parent_id is not None)
    same((inner.name, inner.parent_id, inner.outputs), ("look up", root.span_id, {"rows": [1, 2, 3]}))
    true(found.info.execution_duration is not None, "how long it took")

with step("and judged"):
    first = mlflow.log_feedback(trace_id=trace.info.trace_id, name="good", value=True, rationale="it is upper case", metadata={"by": "hand"})
    wanted = mlflow.log_expectation(trace_id=trace.info.trace_id, name="answer", value={"text": "UA2"})
    mlflow.log_feedback(trace_id=trace.info.trace_id, name="broken", error=ValueError("no"), span_id=inner.span_id)
    mlflow.update_assessment(trace.info.trace_id, first.assessment_id, Feedback(name="good", value=0.5, metadata={"again": "yes"}))
    mlflow.update_assessment(trace.info.trace_id, wanted.assessment_id, Expectation(name="answer", value={"text": "UA3"}))
    second = mlflow.override_feedback(trace_id=trace.info.trace_id, assessment_id=first.assessment_id, value="fine")
    said = mlflow.get_trace(trace.info.trace_id).info.assessments
    same(
        [(one.name, one.value, one.valid) for one in said],
        [("good", 0.5, False), ("answer", {"text": "UA3"}, None), ("broken", None, True), ("good", "fine", True)],
    )
    same((said[0].rationale, said[0].metadata), ("it is upper case", {"by": "hand", "again": "yes"}))
    same((said[2].error.error_message, said[2].span_id), ("no", inner.span_id))
    mlflow.delete_assessment(trace.info.trace_id, second.assessment_id)
    mlflow.delete_assessment(trace.info.trace_id, second.assessment_id)
    same(mlflow.get_assessment(trace.info.trace_id, first.assessment_id).valid, True)
    same(len(mlflow.get_trace(trace.info.trace_id).info.assessments), 3)

with step("and judged while it runs"):

    @mlflow.trace
    def checked() -> None:
        mlflow.log_feedback(trace_id=mlflow.get_active_trace_id(), name="live", value=1.5)

    checked()
    mlflow.flush_trace_async_logging()
    ran = mlflow.get_last_active_trace_id()
    live = mlflow.get_trace(ran).info.assessments[0]
    same((live.name, live.value, bool(live.assessment_id)), ("live", 1.5, True))
    client.delete_traces(experiment.experiment_id, trace_ids=[ran])

with step("and tagged, and deleted"):
    mlflow.set_trace_tag(trace.info.trace_id, "k", "v")
    same(
        [one.info.trace_id for one in mlflow.search_traces(locations=[experiment.experiment_id], filter_string="tags.k = 'v'", return_type="list")],
        [trace.info.trace_id],
    )
    mlflow.delete_trace_tag(trace.info.trace_id, "k")
    same("k" in mlflow.get_trace(trace.info.trace_id).info.tags, False)
    client.delete_traces(experiment.experiment_id, trace_ids=[trace.info.trace_id])
    same(len(mlflow.search_traces(locations=[experiment.experiment_id], return_type="list")), 2)
