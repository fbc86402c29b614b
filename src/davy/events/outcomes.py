"""Outcomes are events of an implicit stream per model: which prediction, what turned out to be true, and when it was known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from davy.core.digest import digest_json
from davy.core.fields import Field
from davy.core.time import event_micros
from davy.errors import InvalidInput, nearest
from davy.features.definition import StreamSpec


def outcome_stream(model: str, value: Field) -> StreamSpec:
    """The stream of this model's outcomes. Its id makes an outcome that is sent twice count once; a corrected one is a new event."""
    return StreamSpec(f"outcomes/{model}", "time", (Field("id", "str"), Field("prediction", "str"), value), id="id")


def outcome_rows(spec: StreamSpec, rows: Sequence[Mapping[str, Any]], now: int) -> list[dict[str, Any]]:
    """The rows as events: without a time they happened now, without an id it is the digest of what was sent.

    Raises:
        InvalidInput: a missing prediction or value, or an unknown field; names the row.
    """
    value = next(field.name for field in spec.fields if field.name not in ("id", "prediction"))
    known = ("id", "prediction", "time", value)
    found = []
    for row, given in enumerate(rows):
        if not isinstance(given, Mapping):
            raise InvalidInput(f"Row {row} is {given!r}.", "An outcome is an object.", f'Send {{"prediction": "...", "{value}": ...}}.')
        unknown = sorted(str(key) for key in given if key not in known)
        if unknown:
            raise InvalidInput(f"Row {row} has the unknown field {unknown[0]!r}.", nearest(unknown[0], known),
                               'Name it "prediction".' if unknown[0] == "prediction_id" else "Rename or remove it.")
        if not isinstance(given.get("prediction"), str) or not given["prediction"]:
            raise InvalidInput(f"Row {row} names no prediction.", "An outcome belongs to a prediction.",
                               f'Send as "prediction" the prediction_id that came with the answer: {{"prediction": "...", "{value}": ...}}')
        if given.get(value) is None:
            raise InvalidInput(f"Row {row} has no {value!r}.", f"{value!r} is what turned out to be true.", "Send outcomes once they are known.")
        time = None if given.get("time") is None else event_micros(given["time"])
        identity = given.get("id") or digest_json([given["prediction"], str(given[value]), time])
        found.append({**given, "id": identity, "time": now if time is None else time})
    return found
