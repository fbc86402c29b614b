"""Outcomes are events of an implicit stream per model: which prediction, what turned out to be true, and when it was known.

Who does not know the prediction names its entity instead; the outcome then belongs to the last prediction of that entity before its time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from davy.core.digest import canonical_json, digest_json
from davy.core.fields import Field
from davy.core.time import event_micros
from davy.errors import InvalidInput, nearest
from davy.features.definition import StreamSpec

PREDICTION, ENTITY = "prediction", "entity"
_OWN = ("id", PREDICTION, ENTITY)


def outcome_stream(model: str, value: Field) -> StreamSpec:
    """The stream of this model's outcomes. Its id makes an outcome that is sent twice count once; a corrected one is a new event."""
    return StreamSpec(f"outcomes/{model}", "time", (Field("id", "str"), Field(PREDICTION, "str"), value, Field(ENTITY, "str")), id="id")


def outcome_rows(spec: StreamSpec, rows: Sequence[Mapping[str, Any]], now: int) -> list[dict[str, Any]]:
    """The rows as events: without a time they happened now, without an id it is the digest of what was sent.

    Raises:
        InvalidInput: neither a prediction nor an entity with a time, no value, or an unknown field; names the row.
    """
    value = next(field.name for field in spec.fields if field.name not in _OWN)
    known = ("id", PREDICTION, ENTITY, "time", value)
    found = []
    for row, given in enumerate(rows):
        if not isinstance(given, Mapping):
            raise InvalidInput(f"Row {row} is {given!r}.", "An outcome is an object.", f'Send {{"prediction": "...", "{value}": ...}}.')
        unknown = sorted(str(key) for key in given if key not in known)
        if unknown:
            raise InvalidInput(f"Row {row} has the unknown field {unknown[0]!r}.", nearest(unknown[0], known),
                               'Name it "prediction".' if unknown[0] == "prediction_id" else "Rename or remove it.")
        entity = _entity(row, given)
        if given.get(value) is None:
            raise InvalidInput(f"Row {row} has no {value!r}.", f"{value!r} is what turned out to be true.", "Send outcomes once they are known.")
        time = None if given.get("time") is None else event_micros(given["time"])
        named = given.get(PREDICTION) or entity
        identity = given.get("id") or digest_json([named, str(given[value]), time])
        found.append({"id": identity, PREDICTION: given.get(PREDICTION), ENTITY: entity, value: given[value], "time": now if time is None else time})
    return found


def _entity(row: int, given: Mapping[str, Any]) -> str | None:
    """The entity keys as they are stored, or None when the row names a prediction."""
    prediction, entity = given.get(PREDICTION), given.get(ENTITY)
    if isinstance(prediction, str) and prediction and entity is None:
        return None
    if prediction is not None or not isinstance(entity, Mapping) or not entity:
        raise InvalidInput(f"Row {row} names no prediction.", "An outcome belongs to a prediction, or to an entity at a time.",
                           'Send as "prediction" the prediction_id that came with the answer: {"prediction": "...", ...}, or "entity": {...} with "time".')
    if given.get("time") is None:
        raise InvalidInput(f"Row {row} names an entity and no time.", "It belongs to the last prediction of the entity before its time.",
                           "Send when it turned out, or the prediction_id.")
    return canonical_json({str(key): item for key, item in entity.items()}).decode()
