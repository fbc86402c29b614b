"""What people, programs and judges say of traces: feedback, and what was expected.

An assessment is a JSON object as MLflow writes it. They are a list in their trace's row, so that reading a trace reads
them too. One may override another, which is not valid then until the first is deleted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from davy.core.clock import new_id
from davy.errors import Conflict, InvalidInput, NotFound
from davy.schema.tables import traces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from davy.core.clock import Clock

MOST, LARGEST = 1000, 1 << 20
ID, OVERRIDES, VALID = "assessment_id", "overrides", "valid"


def add_assessments(connection: sa.Connection, trace_id: str, given: Sequence[dict[str, Any]], *, clock: Clock) -> list[dict[str, Any]]:
    """Add assessments to a trace, valid ones; returns them as they are kept, each with an id.

    One that says the same as one that is there, at the same time, is that one: the request has come twice.

    Raises:
        NotFound: no such trace, or no such assessment to override.
        InvalidInput: too many, or too large.
        Conflict: the id is taken.
    """
    kept = read_assessments(connection, trace_id)
    added = []
    for one in given:
        known = next((old for old in kept if _said(old) == _said(one)), None)
        if known is None:
            known = {**one, ID: one.get(ID) or f"a-{new_id(clock)}", VALID: True}
            if any(old.get(ID) == known[ID] for old in kept):
                raise Conflict(f"Assessment with ID '{known[ID]}' already exists for trace '{trace_id}'")
            if known.get(OVERRIDES):
                kept = _changed(kept, trace_id, known[OVERRIDES], {VALID: False})
            kept.append(known)
        added.append(known)
    _write(connection, trace_id, kept)
    return added


def read_assessments(connection: sa.Connection, trace_id: str) -> list[dict[str, Any]]:
    """All assessments of a trace, as they came.

    Raises:
        NotFound: no such trace.
    """
    found = connection.execute(sa.select(traces.c.assessments).where(traces.c.trace_id == trace_id)).first()
    if found is None:
        raise NotFound(f"Trace with ID '{trace_id}' not found.")
    return msgspec.json.decode(found[0], type=list[dict[str, Any]]) if found[0] else []


def get_assessment(connection: sa.Connection, trace_id: str, assessment_id: str) -> dict[str, Any]:
    """One assessment.

    Raises:
        NotFound: no such trace, or it has no such assessment.
    """
    return _one(read_assessments(connection, trace_id), trace_id, assessment_id)


def change_assessment(connection: sa.Connection, trace_id: str, assessment_id: str, values: dict[str, Any]) -> dict[str, Any]:
    """Set these fields of an assessment; returns it.

    Raises:
        NotFound: no such trace, or it has no such assessment.
        InvalidInput: it is too large then.
    """
    kept = _changed(read_assessments(connection, trace_id), trace_id, assessment_id, values)
    _write(connection, trace_id, kept)
    return _one(kept, trace_id, assessment_id)


def delete_assessment(connection: sa.Connection, trace_id: str, assessment_id: str) -> None:
    """Remove an assessment, if it is there; the one that it has overridden is valid again."""
    try:
        kept = read_assessments(connection, trace_id)
        gone = _one(kept, trace_id, assessment_id)
    except NotFound:
        return
    _write(connection, trace_id, [{**one, VALID: True} if one.get(ID) == gone.get(OVERRIDES) else one for one in kept if one is not gone])


def _one(kept: Sequence[dict[str, Any]], trace_id: str, assessment_id: str) -> dict[str, Any]:
    for one in kept:
        if one.get(ID) == assessment_id:
            return one
    raise NotFound(f"Assessment with ID '{assessment_id}' not found for trace '{trace_id}'")


def _changed(kept: Sequence[dict[str, Any]], trace_id: str, assessment_id: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    changed = _one(kept, trace_id, assessment_id)
    return [{**one, **values} if one is changed else one for one in kept]


def _said(one: dict[str, Any]) -> dict[str, Any]:
    """What a request says: without what is added and changed here."""
    return {name: value for name, value in one.items() if name not in (ID, VALID)}


def _write(connection: sa.Connection, trace_id: str, kept: Sequence[dict[str, Any]]) -> None:
    if len(kept) > MOST:
        raise InvalidInput(f"The trace {trace_id!r} would have {len(kept)} assessments.", f"A trace has at most {MOST}.", "Delete some.")
    texts = [msgspec.json.encode(one) for one in kept]
    if any(len(text) > LARGEST for text in texts):
        raise InvalidInput("An assessment is too large.", f"It has at most {LARGEST} bytes as JSON.", "Keep what it says in an artifact.")
    value = f"[{b','.join(texts).decode()}]" if texts else None
    connection.execute(sa.update(traces).where(traces.c.trace_id == trace_id).values(assessments=value))
