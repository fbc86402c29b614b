"""Runs: made, written to and read. Each function is part of the caller's transaction, so that a batch is written whole or not at all."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa

from davy.core.clock import new_id
from davy.errors import Conflict, InvalidInput, NotFound
from davy.schema.tables import experiments, latest_metrics, params, runs, tags
from davy.store import journal
from davy.store.database import insert
from davy.tracking.records import (
    LONGEST_EXPERIMENT,
    LONGEST_PARAM,
    LONGEST_TAG,
    RUN_NAME,
    RunRecord,
    Status,
    check_key,
    check_value,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from davy.core.clock import Clock

_LOOKUP = 500


def create_run(connection: sa.Connection, *, clock: Clock, user: str, experiment_id: int, name: str, tags: Mapping[str, Any] | None = None,
               started: int | None = None, run_id: str | None = None) -> str:
    """Start a run in an active experiment; returns its id of 32 hex digits.

    Args:
        started: microseconds (default: now).
        run_id: a free id that the caller has made (default: a new one).
    """
    row = connection.execute(sa.select(experiments).where(experiments.c.experiment_id == experiment_id)).first()
    if row is None:
        raise NotFound(f"There is no experiment {experiment_id}.", "", "Make it first.")
    if row.lifecycle_stage != "active":
        raise Conflict(f"The experiment {row.name!r} is deleted.", "Runs are started in active experiments.", "Restore it, or take another.")
    if not name or len(name) > LONGEST_EXPERIMENT:
        raise InvalidInput(f"{name!r} can't be a run's name.", f"A name has 1 to {LONGEST_EXPERIMENT} characters.", "Rename it.")
    run_id = run_id or new_id(clock)
    connection.execute(sa.insert(runs).values(
        run_id=run_id, experiment_id=experiment_id, name=name, user_id=user, status="RUNNING", start_time=(clock.now() if started is None else started) // 1000,
        lifecycle_stage="active", artifact_uri=f"{row.artifact_location}/{run_id}/artifacts"))
    set_tags(connection, run_id, {**(tags or {}), RUN_NAME: name})
    return run_id


def finish_run(connection: sa.Connection, run_id: str, *, status: Status, ended: int) -> None:
    """Set the run's status and its end in microseconds."""
    writable(connection, run_id)
    connection.execute(sa.update(runs).where(runs.c.run_id == run_id).values(status=status, end_time=ended // 1000))


def writable(connection: sa.Connection, run_id: str) -> None:
    """Refuse what is not an active run.

    Raises:
        NotFound: there is no such run.
        Conflict: it is deleted.
    """
    stage = connection.scalar(sa.select(runs.c.lifecycle_stage).where(runs.c.run_id == run_id))
    if stage is None:
        raise _missing(run_id)
    if stage != "active":
        raise Conflict(f"The run {run_id} is deleted.", "Only an active run takes changes.", "Restore it first.")


def log_params(connection: sa.Connection, run_id: str, values: Mapping[str, Any]) -> None:
    """Add params. A param is set once: the same value again changes nothing.

    Raises:
        Conflict: a param has another value already; none of `values` is set.
    """
    texts = param_texts(values)
    known = {row.key: row.value for row in connection.execute(sa.select(params.c.key, params.c.value).where(params.c.run_id == run_id))} if texts else {}
    refuse_changes(known, texts)
    rows = [{"run_id": run_id, "key": key, "value": text} for key, text in texts.items() if key not in known]
    if rows:
        connection.execute(sa.insert(params), rows)


def experiment_of(connection: sa.Connection, run_id: str) -> int:
    """The number of the run's experiment."""
    found = connection.scalar(sa.select(runs.c.experiment_id).where(runs.c.run_id == run_id))
    if found is None:
        raise _missing(run_id)
    return int(found)


def param_texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Params as they are stored, if they may be."""
    return {check_key("param", key): check_value("param", key, value, LONGEST_PARAM) for key, value in values.items()}


def tag_texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Tags as they are stored, if they may be."""
    return {check_key("tag", key): check_value("tag", key, value, LONGEST_TAG) for key, value in values.items()}


def refuse_changes(known: Mapping[str, str], texts: Mapping[str, str]) -> None:
    """Refuse another value for a param that is set."""
    for key, text in texts.items():
        if known.get(key, text) != text:
            raise Conflict(f"The param {key!r} is {known[key]!r} already; {text!r} came.", "A param of a run is set once.",
                           "Start another run, or log it as a metric or tag.")


def set_tags(connection: sa.Connection, run_id: str, values: Mapping[str, Any]) -> None:
    """Set tags; a tag may change. The tag `mlflow.runName` is the run's name."""
    rows = [{"run_id": run_id, "key": key, "value": text} for key, text in tag_texts(values).items()]
    if not rows:
        return
    statement = insert(connection, tags)
    connection.execute(statement.on_conflict_do_update(index_elements=["run_id", "key"], set_={"value": statement.excluded.value}), rows)
    if RUN_NAME in values:
        connection.execute(sa.update(runs).where(runs.c.run_id == run_id).values(name=str(values[RUN_NAME])[:LONGEST_EXPERIMENT]))


def delete_tag(connection: sa.Connection, run_id: str, key: str) -> None:
    """Remove a tag.

    Raises:
        NotFound: the run has no such tag.
    """
    if not connection.execute(sa.delete(tags).where(tags.c.run_id == run_id, tags.c.key == key)).rowcount:
        raise NotFound(f"The run {run_id} has no tag {key!r}.", "", "Correct the key.")


def set_run_stage(connection: sa.Connection, run_id: str, *, clock: Clock, actor: str, stage: Literal["active", "deleted"]) -> None:
    """Delete or restore a run. Nothing is erased; doing it twice is a no-op."""
    present = connection.scalar(sa.select(runs.c.lifecycle_stage).where(runs.c.run_id == run_id))
    if present is None:
        raise _missing(run_id)
    if present == stage:
        return
    deleted = clock.now() // 1000 if stage == "deleted" else None
    connection.execute(sa.update(runs).where(runs.c.run_id == run_id).values(lifecycle_stage=stage, deleted_time=deleted))
    journal.append(connection, clock=clock, actor=actor, action="run.delete" if stage == "deleted" else "run.restore", subject=run_id, details={})


def get_run(connection: sa.Connection, run_id: str) -> RunRecord:
    """The run of that id, or of an unambiguous beginning of it of at least six digits.

    Raises:
        NotFound: there is none.
        Conflict: several ids begin so.
    """
    query = sa.select(runs.c.run_id).where(runs.c.run_id == run_id)
    if len(run_id) >= 6 and len(run_id) < 32:
        query = sa.select(runs.c.run_id).where(runs.c.run_id >= run_id, runs.c.run_id < run_id + "g").limit(2)
    found = connection.scalars(query).all()
    if not found:
        raise _missing(run_id)
    if len(found) > 1:
        raise Conflict(f"Several runs begin with {run_id!r}.", "", "Write more digits of the id.")
    return read_runs(connection, found)[0]


def read_runs(connection: sa.Connection, ids: Sequence[str]) -> list[RunRecord]:
    """The runs of these ids in this order; unknown ids are left out."""
    return [record for start in range(0, len(ids), _LOOKUP) for record in _read_some(connection, ids[start:start + _LOOKUP])]


def _read_some(connection: sa.Connection, ids: Sequence[str]) -> Iterable[RunRecord]:
    texts: list[dict[str, dict[str, str]]] = []
    for table in (params, tags):
        found: dict[str, dict[str, str]] = {run_id: {} for run_id in ids}
        query = sa.select(table.c.run_id, table.c.key, table.c.value).where(table.c.run_id.in_(ids)).order_by(table.c.run_id, table.c.key)
        for run_id, key, value in connection.execute(query):
            found[run_id][key] = value
        texts.append(found)
    numbers: dict[str, dict[str, float]] = {run_id: {} for run_id in ids}
    columns = latest_metrics.c
    metric = sa.select(columns.run_id, columns.key, columns.value, columns.is_nan).where(columns.run_id.in_(ids)).order_by(columns.run_id, columns.key)
    for run_id, key, number, nan in connection.execute(metric):
        numbers[run_id][key] = math.nan if nan else number
    head = sa.select(runs.c.run_id, runs.c.name, runs.c.experiment_id, experiments.c.name.label("experiment"), runs.c.status, runs.c.user_id,
                     runs.c.start_time, runs.c.end_time, runs.c.lifecycle_stage).join(experiments).where(runs.c.run_id.in_(ids))
    heads = {row[0]: row for row in connection.execute(head)}
    for run_id in ids:
        if run_id in heads:
            _, name, number_of, experiment, status, user, started, ended, stage = heads[run_id]
            yield RunRecord(run_id, name, number_of, experiment, status, user, started * 1000, None if ended is None else ended * 1000, stage,
                            texts[0][run_id], texts[1][run_id], numbers[run_id])


def _missing(run_id: str) -> NotFound:
    return NotFound(f"There is no run {run_id!r}.", "A run is named by its id of 32 hex digits, or by the first six or more of them.", "See them: davy runs")
