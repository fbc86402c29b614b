"""`traces/...`: kept, found, tagged and erased, in the third version of MLflow's calls, and in the second for older clients.

Spans come as the file `traces.json` among the experiment's artifacts: `/v1/traces` says so, and clients then send that file.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from davy.core.clock import new_id
from davy.errors import NotFound
from davy.protocols.mlflow.api import JSON, Call, endpoint, streaming
from davy.protocols.mlflow.assessments import AssessmentMessage, checked
from davy.protocols.mlflow.checks import LONGEST_KEY, LONGEST_TAG, bad_value, check_length, check_name, check_time, experiment_number, page_size
from davy.protocols.mlflow.experiments import active, find
from davy.protocols.mlflow.runs import head
from davy.protocols.mlflow.times import duration, milliseconds, moment
from davy.protocols.mlflow.wire import Int64, KeyValue, Message, error_body, invalid, missing, required_missing, some
from davy.store import journal
from davy.tracking import traces
from davy.tracking.assessments import add_assessments
from davy.tracking.places import remove_below
from davy.tracking.traces import STATES, State, Trace

if TYPE_CHECKING:
    from davy.protocols.mlflow.api import Exchange

_STATES_2 = {"OK": "OK", "ERROR": "ERROR", "IN_PROGRESS": "IN_PROGRESS", "TRACE_STATUS_UNSPECIFIED": "STATE_UNSPECIFIED"}
_TRACE_ID = re.compile(r"[\w\-:.]{1,250}")
_MOST_FOUND, _MOST_LINKS, _RUN = 500, 100, "mlflow.sourceRun"


class ExperimentPlace(Message):
    experiment_id: str | None = None


class Place(Message):
    type: str | int | None = None
    mlflow_experiment: ExperimentPlace | None = None


class TraceInfo(Message):
    trace_id: str | None = None
    client_request_id: str | None = None
    trace_location: Place | None = None
    request_preview: str | None = None
    response_preview: str | None = None
    request_time: str | None = None
    execution_duration: str | None = None
    state: str | int | None = None
    trace_metadata: dict[str, str] = {}
    assessments: list[AssessmentMessage] = []
    tags: dict[str, str] = {}


class TraceMessage(Message):
    trace_info: TraceInfo | None = None


class StartTrace(Message):
    trace: TraceMessage | None = None


class OneTrace(Message):
    trace_id: str | None = None


class SomeTraces(Message):
    trace_ids: list[str] = []


class SearchTraces(Message):
    locations: list[Place] = []
    experiment_ids: list[str] = []
    filter: str | None = None
    max_results: int | None = None
    order_by: list[str] = []
    page_token: str | None = None


class TraceTag(Message):
    trace_id: str | None = None
    key: str | None = None
    value: str | None = None


class DeleteTraces(Message):
    experiment_id: str | None = None
    max_timestamp_millis: Int64 | None = None
    max_traces: int | None = None
    request_ids: list[str] = []


class LinkToRun(Message):
    trace_ids: list[str] = []
    run_id: str | None = None


class TraceInfo2(Message):
    request_id: str | None = None
    experiment_id: str | None = None
    timestamp_ms: Int64 | None = None
    execution_time_ms: Int64 | None = None
    status: str | int | None = None
    request_metadata: list[KeyValue] = []
    tags: list[KeyValue] = []


@streaming("POST", "/v1/traces")
async def spans(exchange: Exchange) -> None:
    """Clients that are told so send the spans as a file."""
    await exchange.body()
    exchange.answer(501, JSON, error_body("NOT_IMPLEMENTED", "REST OTLP span logging is not supported: spans are kept as artifacts."))


@endpoint("POST", "traces", StartTrace, required=("trace",), write=True, api="3.0")
def start(call: Call, asked: StartTrace) -> dict[str, Any]:
    info = asked.trace.trace_info if asked.trace else None
    if info is None or not info.trace_id:
        raise required_missing("trace.trace_info.trace_id")
    place = info.trace_location.mlflow_experiment if info.trace_location else None
    experiment = active(find(call, place.experiment_id if place else None))
    trace = Trace(
        _check_id(info.trace_id), experiment.id, milliseconds(info.request_time, "request_time") if info.request_time else call.clock.now() // 1000,
        duration(info.execution_duration, "execution_duration"), _state(info.state), info.client_request_id, info.request_preview, info.response_preview,
        tags=_checked(info.tags), metadata=_checked(info.trace_metadata))
    traces.put_trace(call.connection, trace)
    if info.assessments:
        add_assessments(call.connection, trace.id, [checked(trace.id, one, call.clock) for one in info.assessments], clock=call.clock)
    return {"trace": {"trace_info": message(traces.get_trace(call.connection, trace.id))}}


@endpoint("GET", "traces/{trace_id}", OneTrace, api="3.0")
def get(call: Call, asked: OneTrace) -> dict[str, Any]:
    return {"trace": {"trace_info": message(_trace(call, asked.trace_id))}}


@endpoint("POST", "traces/batchGetInfos", SomeTraces, required=("trace_ids",), api="3.0")
def get_some(call: Call, asked: SomeTraces) -> dict[str, Any]:
    return some({"trace_infos": [message(found) for found in traces.read_traces(call.connection, asked.trace_ids)]})


@endpoint("POST", "traces/search", SearchTraces, required=("locations",), api="3.0")
def search(call: Call, asked: SearchTraces) -> dict[str, Any]:
    numbers = [experiment_number(place.mlflow_experiment.experiment_id) for place in asked.locations if place.mlflow_experiment]
    found = _search(call, asked, numbers)
    return some({"traces": [message(trace) for trace in found.traces], "next_page_token": found.next})


@endpoint("GET", "traces", SearchTraces, required=("experiment_ids",))
def search_2(call: Call, asked: SearchTraces) -> dict[str, Any]:
    found = _search(call, asked, [experiment_number(text) for text in asked.experiment_ids])
    return some({"traces": [_message_2(trace) for trace in found.traces], "next_page_token": found.next})


def _search(call: Call, asked: SearchTraces, experiments: list[int]) -> traces.TracePage:
    return traces.search_traces(call.connection, experiments=experiments, filter=asked.filter or "", order_by=asked.order_by,
                                limit=page_size(asked.max_results, 100, _MOST_FOUND), after=asked.page_token or None)


@endpoint("PATCH", "traces/{trace_id}/tags", TraceTag, required=("key",), write=True, api="3.0")
@endpoint("PATCH", "traces/{trace_id}/tags", TraceTag, required=("key",), write=True)
def set_tag(call: Call, asked: TraceTag) -> dict[str, Any]:
    traces.set_trace_tags(call.connection, _trace(call, asked.trace_id).id, _checked({asked.key or "": asked.value or ""}))
    return {}


@endpoint("DELETE", "traces/{trace_id}/tags", TraceTag, required=("key",), write=True, api="3.0")
@endpoint("DELETE", "traces/{trace_id}/tags", TraceTag, required=("key",), write=True)
def delete_tag(call: Call, asked: TraceTag) -> dict[str, Any]:
    if not traces.delete_trace_tag(call.connection, _trace(call, asked.trace_id).id, asked.key or ""):
        raise missing(f"No trace tag with key '{asked.key}' for trace with ID '{asked.trace_id}'")
    return {}


@endpoint("POST", "traces/delete-traces", DeleteTraces, required=("experiment_id",), write=True, api="3.0")
@endpoint("POST", "traces/delete-traces", DeleteTraces, required=("experiment_id",), write=True)
def delete(call: Call, asked: DeleteTraces) -> dict[str, Any]:
    if (asked.max_timestamp_millis is None) == (not asked.request_ids):
        raise invalid("Either `max_timestamp_millis` or `trace_ids` must be specified, but not both.")
    if asked.request_ids and asked.max_traces is not None:
        raise invalid("`max_traces` can't be specified if `trace_ids` is specified.")
    if asked.max_traces is not None and asked.max_traces <= 0:
        raise invalid(f"`max_traces` must be a positive integer, received {asked.max_traces}.")
    experiment = find(call, asked.experiment_id)
    found = traces.delete_traces(call.connection, experiment.id, until=asked.max_timestamp_millis, most=asked.max_traces, ids=asked.request_ids)
    for trace_id in found:
        remove_below(call.connection, f"{experiment.artifact_location}/traces/{trace_id}")
    if found:
        journal.append(call.connection, clock=call.clock, actor=call.actor, action="traces.delete", subject=experiment.name,
                       details={"id": experiment.id, "traces": len(found)})
    return {"traces_deleted": len(found)}


@endpoint("POST", "traces/link-to-run", LinkToRun, required=("trace_ids", "run_id"), write=True)
def link(call: Call, asked: LinkToRun) -> dict[str, Any]:
    if len(asked.trace_ids) > _MOST_LINKS:
        raise invalid(f"Cannot link more than {_MOST_LINKS} traces to a run in a single request. Provided {len(asked.trace_ids)} traces.")
    run_id = head(call, asked.run_id or "").run_id
    for trace_id in asked.trace_ids:
        traces.set_trace_metadata(call.connection, _trace(call, trace_id).id, {_RUN: run_id})
    return {}


@endpoint("POST", "traces", TraceInfo2, write=True)
def start_2(call: Call, asked: TraceInfo2) -> dict[str, Any]:
    experiment = active(find(call, asked.experiment_id))
    trace = Trace(f"tr-{new_id(call.clock)}", experiment.id, check_time(asked.timestamp_ms, "timestamp_ms") or call.clock.now() // 1000, None, "IN_PROGRESS",
                  tags=_checked({tag.key or "": tag.value or "" for tag in asked.tags}),
                  metadata=_checked({item.key or "": item.value or "" for item in asked.request_metadata}))
    traces.put_trace(call.connection, trace)
    return {"trace_info": _message_2(traces.get_trace(call.connection, trace.id))}


@endpoint("PATCH", "traces/{request_id}", TraceInfo2, write=True)
def end_2(call: Call, asked: TraceInfo2) -> dict[str, Any]:
    found = _trace(call, asked.request_id)
    until = check_time(asked.timestamp_ms, "timestamp_ms") or found.time
    ended = msgspec.structs.replace(
        found, duration=max(0, until - found.time), state=_state(_STATES_2.get(str(asked.status), asked.status)),
        tags=_checked({tag.key or "": tag.value or "" for tag in asked.tags}),
        metadata=_checked({item.key or "": item.value or "" for item in asked.request_metadata}))
    traces.put_trace(call.connection, ended)
    return {"trace_info": _message_2(traces.get_trace(call.connection, found.id))}


@endpoint("GET", "traces/{request_id}/info", TraceInfo2)
def get_2(call: Call, asked: TraceInfo2) -> dict[str, Any]:
    return {"trace_info": _message_2(_trace(call, asked.request_id))}


def message(trace: Trace) -> TraceInfo:
    """The trace as MLflow has it."""
    lasted = None if trace.duration is None else f"{trace.duration / 1000:.3f}s"
    return TraceInfo(
        trace_id=trace.id, client_request_id=trace.client_request_id, request_preview=trace.request_preview, response_preview=trace.response_preview,
        trace_location=Place(type="MLFLOW_EXPERIMENT", mlflow_experiment=ExperimentPlace(experiment_id=str(trace.experiment_id))),
        request_time=moment(trace.time), execution_duration=lasted, state=trace.state, trace_metadata=trace.metadata,
        assessments=msgspec.json.decode(trace.assessments, type=list[AssessmentMessage]) if trace.assessments else [], tags=trace.tags)


def _message_2(trace: Trace) -> TraceInfo2:
    return TraceInfo2(
        request_id=trace.id, experiment_id=str(trace.experiment_id), timestamp_ms=trace.time, execution_time_ms=trace.duration,
        status="TRACE_STATUS_UNSPECIFIED" if trace.state == "STATE_UNSPECIFIED" else trace.state,
        request_metadata=[KeyValue(key=key, value=value) for key, value in trace.metadata.items()],
        tags=[KeyValue(key=key, value=value) for key, value in trace.tags.items()])


def _trace(call: Call, trace_id: str | None) -> Trace:
    try:
        return traces.get_trace(call.connection, trace_id or "")
    except NotFound:
        raise missing(f"Trace with ID '{trace_id}' not found.") from None


def _check_id(trace_id: str) -> str:
    if not _TRACE_ID.fullmatch(trace_id) or ".." in trace_id:
        raise bad_value("trace_id", trace_id, "It has 1 to 250 letters, digits, '_', '-', ':' or '.'.")
    return trace_id


def _checked(values: dict[str, str]) -> dict[str, str]:
    return {check_length("key", check_name(key, "key"), LONGEST_KEY): value[:LONGEST_TAG] for key, value in values.items()}


def _state(given: str | int | None) -> State:
    found = STATES[given] if isinstance(given, int) and 0 <= given < len(STATES) else given or "STATE_UNSPECIFIED"
    for state in STATES:
        if found == state:
            return state
    raise bad_value("state", given, f"It is one of {', '.join(STATES)}.")
