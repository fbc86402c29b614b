"""Traces: what a program did for one request, when, for how long and how it ended. The spans are a file among the experiment's artifacts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec
import sqlalchemy as sa

from davy.errors import NotFound
from davy.schema.tables import experiments, trace_metadata, trace_tags, traces
from davy.search.fields import Attribute, Keyed
from davy.search.language import Language
from davy.search.order import Part
from davy.search.select import Selection, select_page, written
from davy.store.database import insert

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MOST = 50_000
_LOOKUP = 500
LOCATION, NAME, PROMPTS, RUN = "mlflow.artifactLocation", "mlflow.traceName", "mlflow.linkedPrompts", "mlflow.sourceRun"
State = Literal["STATE_UNSPECIFIED", "OK", "ERROR", "IN_PROGRESS"]
STATES: tuple[State, ...] = get_args(State)
_column = traces.c
_TAGS, _METADATA = Keyed(trace_tags, ("trace_id",), (_column.trace_id,)), Keyed(trace_metadata, ("trace_id",), (_column.trace_id,))
_ENDED = _column.time + sa.func.coalesce(_column.duration, 0)
TRACES = Language(
    entities={"attribute": "attribute", "attributes": "attribute", "trace": "attribute", "tag": "tag", "tags": "tag", "metadata": "metadata",
              "request_metadata": "metadata"},
    attributes={
        **dict.fromkeys(("trace_id", "request_id"), Attribute(_column.trace_id)), "status": Attribute(_column.state), "state": Attribute(_column.state),
        **dict.fromkeys(("timestamp_ms", "timestamp", "request_time"), Attribute(_column.time, "number")),
        **dict.fromkeys(("execution_time_ms", "execution_time", "execution_duration"), Attribute(_column.duration, "number", nullable=True)),
        **dict.fromkeys(("end_time_ms", "end_time"), Attribute(_ENDED, "number")),
        "experiment_id": Attribute(_column.experiment_id, "identity"), "client_request_id": Attribute(_column.client_request_id, nullable=True),
        "name": Attribute(_column.trace_id, under=(_TAGS, NAME)), "prompt": Attribute(_column.trace_id, under=(_TAGS, PROMPTS)),
        "run_id": Attribute(_column.trace_id, under=(_METADATA, RUN)),
    },
    others={"tag": _TAGS, "metadata": _METADATA},
)


class Trace(msgspec.Struct, frozen=True):
    """A trace. `time` and `duration` are milliseconds; `assessments` is a JSON list, which `davy.tracking.assessments` writes."""

    id: str
    experiment_id: int
    time: int
    duration: int | None
    state: State
    client_request_id: str | None = None
    request_preview: str | None = None
    response_preview: str | None = None
    assessments: str | None = None
    tags: dict[str, str] = {}
    metadata: dict[str, str] = {}


class TracePage(msgspec.Struct, frozen=True):
    """Some traces, and the token of the next page."""

    traces: list[Trace]
    next: str | None


def put_trace(connection: sa.Connection, trace: Trace) -> None:
    """Keep a trace; one of that id is replaced, and its other tags and metadata, and what is said of it, stay."""
    row = {"trace_id": trace.id, "experiment_id": trace.experiment_id, "time": trace.time, "duration": trace.duration, "state": trace.state,
           "client_request_id": trace.client_request_id, "request_preview": trace.request_preview, "response_preview": trace.response_preview}
    connection.execute(insert(connection, traces).values(row).on_conflict_do_update(index_elements=["trace_id"], set_=row))
    location = connection.scalar(sa.select(experiments.c.artifact_location).where(experiments.c.experiment_id == trace.experiment_id))
    set_trace_tags(connection, trace.id, {**trace.tags, LOCATION: f"{location}/traces/{trace.id}/artifacts"})
    set_trace_metadata(connection, trace.id, trace.metadata)


def set_trace_tags(connection: sa.Connection, trace_id: str, values: dict[str, str]) -> None:
    """Set tags of a trace."""
    _set(connection, trace_tags, trace_id, values)


def set_trace_metadata(connection: sa.Connection, trace_id: str, values: dict[str, str]) -> None:
    """Set metadata of a trace."""
    _set(connection, trace_metadata, trace_id, values)


def _set(connection: sa.Connection, table: sa.Table, trace_id: str, values: dict[str, str]) -> None:
    if values:
        statement = insert(connection, table)
        connection.execute(statement.on_conflict_do_update(index_elements=["trace_id", "key"], set_={"value": statement.excluded.value}),
                           [{"trace_id": trace_id, "key": key, "value": value} for key, value in values.items()])


def delete_trace_tag(connection: sa.Connection, trace_id: str, key: str) -> bool:
    """Remove a tag; whether it was there."""
    return bool(connection.execute(sa.delete(trace_tags).where(trace_tags.c.trace_id == trace_id, trace_tags.c.key == key)).rowcount)


def get_trace(connection: sa.Connection, trace_id: str) -> Trace:
    """The trace of that id.

    Raises:
        NotFound: there is none.
    """
    found = read_traces(connection, [trace_id])
    if not found:
        raise NotFound(f"There is no trace {trace_id!r}.", "", "Correct the id.")
    return found[0]


def read_traces(connection: sa.Connection, ids: Sequence[str]) -> list[Trace]:
    """The traces of these ids in this order; unknown ids are left out."""
    return [trace for some in _parts(ids) for trace in _some(connection, some)]


def _some(connection: sa.Connection, ids: Sequence[str]) -> list[Trace]:
    texts: dict[str, tuple[dict[str, str], dict[str, str]]] = {trace_id: ({}, {}) for trace_id in ids}
    for index, table in enumerate((trace_tags, trace_metadata)):
        for trace_id, key, value in connection.execute(sa.select(table).where(table.c.trace_id.in_(ids)).order_by(table.c.trace_id, table.c.key)):
            texts[trace_id][index][key] = value
    rows = {row.trace_id: row for row in connection.execute(sa.select(traces).where(_column.trace_id.in_(ids)))}
    return [msgspec.structs.replace(Trace(*rows[trace_id]), tags=texts[trace_id][0], metadata=texts[trace_id][1]) for trace_id in ids if trace_id in rows]


def search_traces(connection: sa.Connection, *, experiments: Sequence[int], filter: str = "", order_by: Sequence[str] = (), limit: int = 100,
                  after: str | None = None) -> TracePage:
    """A page of the traces of these experiments; without an order, the newest first.

    Raises:
        InvalidInput: the filter or the order can't be read, or the token is another search's.
    """
    selection = Selection(TRACES, traces, (Part(_column.trace_id, False, "text"),), (_column.trace_id,))
    found, following = select_page(
        connection, selection, text=filter, tree=TRACES.read(filter), keys=TRACES.order(order_by or ["timestamp_ms DESC"]), limit=limit, most=MOST,
        after=after, where=[_column.experiment_id.in_(written(experiments))], bound=[sorted(experiments), list(order_by)])
    return TracePage(read_traces(connection, [row[0] for row in found]), following)


def delete_traces(connection: sa.Connection, experiment_id: int, *, until: int | None = None, most: int | None = None,
                  ids: Sequence[str] = ()) -> list[str]:
    """Erase traces of an experiment, the oldest first; returns their ids, whose artifacts are the caller's to erase.

    Args:
        until: only those that began at this time in milliseconds or before.
        most: no more than so many.
        ids: only these.
    """
    query = sa.select(_column.trace_id).where(_column.experiment_id == experiment_id).order_by(_column.time, _column.trace_id)
    if until is not None:
        query = query.where(_column.time <= until)
    asked = [query.where(_column.trace_id.in_(some)) for some in _parts(ids)] if ids else [query]
    found: list[Any] = [trace_id for one in asked for trace_id in connection.scalars(one.limit(most))][:most]
    for some in _parts(found):
        connection.execute(sa.delete(traces).where(_column.trace_id.in_(some)))
    return found


def _parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start:start + _LOOKUP] for start in range(0, len(ids), _LOOKUP))
