"""A request's body, decoded and typed in one pass, with an error that names the field."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from davy.core.fields import Field, Kind
from davy.errors import InvalidInput, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGEST_BODY = 8 << 20
MOST_ROWS = 10_000
_TYPES: dict[Kind, Any] = {"int": int, "float": int | float, "decimal": int | float, "str": str, "bool": bool, "time": str | int}
_SAYS: dict[Kind, str] = {"int": "an int", "float": "a number", "decimal": "a number", "str": "a text", "bool": "true or false",
                          "time": 'a time with a zone ("2013-05-01T12:00:00Z") or microseconds'}


class Asked(msgspec.Struct):
    """One row of a request: entity keys and request fields in stored form (see core/fields.py)."""

    entities: dict[str, Any]
    request: dict[str, Any]


class RequestSchema:
    """What the body of a request to one model, or to one of its versions, must look like.

    Args:
        model: for messages.
        entities: the entity keys; all must be sent.
        request: the request fields; all must be sent. Null says that there is none.
    """

    def __init__(self, model: str, entities: Sequence[Field], request: Sequence[Field]) -> None:
        self.model = model
        self.entities, self.request = tuple(entities), tuple(request)
        fields = (*self.entities, *self.request)
        self._fields = {field.name: field for field in fields}
        slots = {field.name: f"f{number}" for number, field in enumerate(fields)}  # a field of a model from elsewhere may have any name
        one = msgspec.defstruct("Request", [(slots[field.name], _TYPES[field.kind] | None) for field in fields], forbid_unknown_fields=True, gc=False,
                                rename={slot: name for name, slot in slots.items()})
        self._one, self._many = msgspec.json.Decoder(one), msgspec.json.Decoder(list[one])  # type: ignore[valid-type]
        self._entity_encoders = [(field.name, slots[field.name], field.encode) for field in self.entities]
        self._request_encoders = [(field.name, slots[field.name], field.encode) for field in self.request]

    @classmethod
    def union(cls, model: str, schemas: Sequence[RequestSchema]) -> RequestSchema:
        """What all of several versions need, so that whether a request is taken never depends on who answers it."""
        entities = {field.name: field for schema in schemas for field in schema.entities}
        request = {field.name: field for schema in schemas for field in schema.request if field.name not in entities}
        return cls(model, tuple(entities.values()), tuple(request.values()))

    def decode(self, body: bytes) -> tuple[list[Asked], bool]:
        """(rows, whether they came as an array).

        Raises:
            InvalidInput: not JSON, or a field is missing, unknown or of another type; names it, and its row.
        """
        many = body[:1] == b"[" or body.lstrip()[:1] == b"["
        try:
            rows = self._many.decode(body) if many else [self._one.decode(body)]
        except msgspec.ValidationError as error:
            raise self._refused(str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidInput(f"The body is not JSON: {error}.", "JSON has no NaN and no Infinity; what is missing is null.", self._example()) from None
        if len(rows) > MOST_ROWS:
            raise InvalidInput(f"The request has {len(rows)} rows.", f"At most {MOST_ROWS} are answered at once.", "Send them in parts.")
        if not many:
            return [self._encode(rows[0])], False
        found = []
        for index, row in enumerate(rows):
            try:
                found.append(self._encode(row))
            except InvalidInput as error:
                raise type(error)(f"Row {index}: {error.came}", error.allowed, error.fix) from None
        return found, True

    def _encode(self, row: Any) -> Asked:
        return Asked({name: self._encoded(name, encode, getattr(row, slot)) for name, slot, encode in self._entity_encoders},
                     {name: self._encoded(name, encode, getattr(row, slot)) for name, slot, encode in self._request_encoders})

    def _encoded(self, name: str, encode: Any, value: Any) -> Any:
        try:
            return encode(value)
        except InvalidInput as error:
            if f"{name!r}" in error.came:
                raise
            raise type(error)(f"The field {name!r}: {error.came}", error.allowed, error.fix) from None

    def _refused(self, said: str) -> InvalidInput:
        """Our words for msgspec's."""
        row = re.search(r"`\$\[(\d+)\]", said)
        where = f"Row {row.group(1)}: " if row else ""
        allowed = f"{self.model} takes {', '.join(f'{field.name} ({field.kind})' for field in self._fields.values())}."
        missing = re.search(r"missing required field `([^`]*)`", said)
        if missing:
            name = missing.group(1)
            return InvalidInput(f"{where}The field {name!r} is missing.", allowed, self._wanted(name))
        unknown = re.search(r"unknown field `([^`]*)`", said)
        if unknown:
            name = unknown.group(1)
            return InvalidInput(f"{where}The field {name!r} is unknown.", allowed, f"Rename or remove it: {nearest(name, self._fields)}")
        mistyped = re.search(r"got `([^`]*)` - at `\$(?:\[\d+\])?\.([^`]*)`", said)
        if mistyped:
            name = mistyped.group(2)
            return InvalidInput(f"{where}The field {name!r} is of the type {mistyped.group(1)}.", allowed, self._wanted(name))
        return InvalidInput(f"{where}The body is not as it should be: {said}.", allowed, self._example())

    def _wanted(self, name: str) -> str:
        return f"Send {name!r} as {_SAYS[self._fields[name].kind]}, or null where there is none."

    def _example(self) -> str:
        pairs = ", ".join(f'"{name}": …' for name in self._fields)
        return f"Send an object {{{pairs}}}, or an array of them, as application/json."
