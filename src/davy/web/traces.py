"""Traces as a table, and one trace with its spans across time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from davy.core.time import to_micros
from davy.errors import InvalidInput
from davy.tracking.artifacts import get_artifact
from davy.tracking.assessments import read_assessments
from davy.tracking.experiments import list_experiments
from davy.tracking.places import locate, uri_path
from davy.tracking.traces import TracePage, get_trace, search_traces
from davy.web.render import page

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from starlette.requests import Request
    from starlette.responses import Response

    from davy.home import Home
    from davy.tracking.traces import Trace

PAGE, FEW = 100, 8
NAME, LOCATION, RUN, OWN = "mlflow.traceName", "mlflow.artifactLocation", "mlflow.sourceRun", "mlflow."
MOST_SPANS, LARGEST, LONGEST = 1000, 16 << 20, 20_000


class Span(msgspec.Struct, frozen=True):
    """A step of a trace: how deep it lies within others, its start and length as shares of the whole, and its length in microseconds."""

    name: str
    kind: str
    depth: int
    start: float
    share: float
    took: float
    failed: bool
    details: dict[str, str]


class Said(msgspec.Struct, frozen=True):
    """Feedback on a trace, or what was expected of it: who said it, when (microseconds, if that is known), and whether nothing has overridden it."""

    name: str
    kind: str
    value: str
    source: str
    time: int | None
    rationale: str
    valid: bool


class _Status(msgspec.Struct):
    code: str | int = ""
    message: str = ""


class _Stored(msgspec.Struct):
    span_id: str
    name: str
    start_time_unix_nano: int
    parent_span_id: str | None = None
    end_time_unix_nano: int | None = None
    status: _Status = msgspec.field(default_factory=_Status)
    attributes: dict[str, Any] = {}
    events: list[dict[str, Any]] = []


class _File(msgspec.Struct):
    spans: list[_Stored] = []


def all_traces(home: Home, request: Request) -> Response:
    """`/traces?experiment=NAME&filter=FILTER&after=TOKEN`: a page of traces, the newest first. A filter that can't be read is shown with its fault."""
    query = request.query_params
    text, fault = query.get("filter", "").strip(), None
    with home.database.read() as connection:
        experiments = list_experiments(connection)
        names = {found.id: found.name for found in experiments}
        chosen = next((found.name for found in experiments if str(found.id) == query.get("experiment_id")), query.get("experiment") or None)
        asked = [number for number, name in names.items() if chosen in (None, name)]
        try:
            found = search_traces(connection, experiments=asked, filter=text, limit=PAGE, after=query.get("after") or None) if asked else TracePage([], None)
        except InvalidInput as error:
            fault, found = error, TracePage([], None)
    return page(request, "traces.html", project=home.config.project, now=home.clock.now(), traces=found.traces, following=found.next, names=names,
                experiments=experiments, experiment=chosen, filter=text, fault=fault, status=200 if fault is None else fault.status, few=FEW, name_tag=NAME)


def trace(home: Home, request: Request) -> Response:
    """`/traces/ID`: what was asked and answered, how it ended, and each span with what went in and out."""
    with home.database.read() as connection:
        found = get_trace(connection, request.path_params["trace"])
        names = {item.id: item.name for item in list_experiments(connection)}
        spans = _spans(home, connection, found)
        said = [_said(one) for one in read_assessments(connection, found.id)]
    tags = {key: value for key, value in found.tags.items() if not key.startswith(OWN)}
    return page(request, "trace.html", project=home.config.project, now=home.clock.now(), trace=found, experiment=names.get(found.experiment_id, ""),
                name=found.tags.get(NAME, found.id), tags=tags, run=found.metadata.get(RUN), spans=spans, said=said,
                most=MOST_SPANS)


def _said(one: dict[str, Any]) -> Said:
    kind = next((kind for kind in ("feedback", "expectation", "issue") if kind in one), "feedback")
    content, source = one.get(kind) or {}, one.get("source") or {}
    value = content.get("error") or content.get("value", content.get("serialized_value"))
    by = " ".join(part for part in (source.get("source_type", "").replace("_", " ").lower(), source.get("source_id") or "") if part)
    time = one.get("last_update_time")
    return Said(one.get("assessment_name") or "", kind, _text(value)[:LONGEST], by, to_micros(time) if time else None,
                (one.get("rationale") or "")[:LONGEST], one.get("valid", True))


def _spans(home: Home, connection: Connection, trace: Trace) -> list[Span] | None:
    """The spans, each after what it lies within; None where they are not kept here or can't be read."""
    folder = uri_path(trace.tags.get(LOCATION, ""))
    if folder is None:
        return None
    place = locate(connection, f"{folder}/traces.json")
    file = get_artifact(connection, place.owner, place.path)
    if file is None or file.digest is None or (file.size or 0) > LARGEST:
        return None
    try:
        stored = msgspec.json.decode(home.blobs.get(file.digest), type=_File).spans
    except msgspec.DecodeError:
        return None
    return _laid(stored)


def _laid(stored: list[_Stored]) -> list[Span]:
    if not stored:
        return []
    known = {span.span_id for span in stored}
    within: dict[str | None, list[_Stored]] = {}
    for span in sorted(stored, key=lambda span: span.start_time_unix_nano, reverse=True):
        within.setdefault(span.parent_span_id if span.parent_span_id in known else None, []).append(span)
    first = min(span.start_time_unix_nano for span in stored)
    whole = max(1, *(_end(span) - first for span in stored))
    laid: list[Span] = []
    waiting = [(span, 0) for span in within.get(None, [])]
    while waiting and len(laid) < MOST_SPANS:
        span, depth = waiting.pop()
        took = _end(span) - span.start_time_unix_nano
        laid.append(Span(span.name, _text(span.attributes.get("mlflow.spanType", "")), depth, (span.start_time_unix_nano - first) / whole, took / whole,
                         took / 1000, span.status.code in ("STATUS_CODE_ERROR", 2), _details(span)))
        waiting.extend((child, depth + 1) for child in within.pop(span.span_id, []))
    return laid


def _end(span: _Stored) -> int:
    return max(span.end_time_unix_nano or 0, span.start_time_unix_nano)


def _details(span: _Stored) -> dict[str, str]:
    """What went in and out, what failed, and what else was noted."""
    found = {"inputs": span.attributes.get("mlflow.spanInputs"), "outputs": span.attributes.get("mlflow.spanOutputs"), "error": span.status.message or None}
    found |= {key: value for key, value in span.attributes.items() if not key.startswith(OWN)}
    for event in span.events:
        found |= {key: value for key, value in (event.get("attributes") or {}).items() if key == "exception.stacktrace"}
    return {key: _text(value)[:LONGEST] for key, value in found.items() if value is not None}


def _text(value: Any) -> str:
    """An attribute's value, which clients write as JSON."""
    try:
        read = msgspec.json.decode(value) if isinstance(value, str) else value
    except msgspec.DecodeError:
        read = value
    return read if isinstance(read, str) else msgspec.json.format(msgspec.json.encode(read), indent=2).decode()
