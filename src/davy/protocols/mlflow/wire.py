"""How MLflow's REST protocol writes its messages and errors: proto3 JSON with proto2 presence.

A message's fields may be named in snake_case or camelCase, 64-bit integers may be texts, NaN and the infinities are
texts, what is not set is left out of an answer, and so are empty lists.
"""

from __future__ import annotations

import json
import math
import re
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin, get_type_hints
from urllib.parse import parse_qs

import msgspec

from davy.errors import Conflict, CorruptData, DavyError, Forbidden, InvalidInput, NotFound, StorageFull, TooLarge, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
STATUS = {
    "BAD_REQUEST": 400, "INVALID_PARAMETER_VALUE": 400, "RESOURCE_ALREADY_EXISTS": 400, "UNAUTHENTICATED": 401, "CUSTOMER_UNAUTHORIZED": 401,
    "PERMISSION_DENIED": 403, "RESOURCE_DOES_NOT_EXIST": 404, "NOT_FOUND": 404, "ENDPOINT_NOT_FOUND": 404, "ALREADY_EXISTS": 409, "ABORTED": 409,
    "RESOURCE_CONFLICT": 409, "REQUEST_LIMIT_EXCEEDED": 429, "RESOURCE_EXHAUSTED": 429, "CANCELLED": 499, "INTERNAL_ERROR": 500, "INVALID_STATE": 400,
    "DATA_LOSS": 500, "NOT_IMPLEMENTED": 501, "TEMPORARILY_UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504,
}
_CODES: tuple[tuple[type[DavyError], str], ...] = (
    (Forbidden, "PERMISSION_DENIED"), (TooLarge, "INVALID_PARAMETER_VALUE"), (InvalidInput, "INVALID_PARAMETER_VALUE"), (NotFound, "RESOURCE_DOES_NOT_EXIST"),
    (Conflict, "INVALID_PARAMETER_VALUE"), (StorageFull, "TEMPORARILY_UNAVAILABLE"), (Unavailable, "TEMPORARILY_UNAVAILABLE"), (CorruptData, "DATA_LOSS"),
)
_SEE = " See the API docs for more information about request parameters."
_AT = re.compile(r" - at `\$\.?(?P<path>.*)`$")
M = TypeVar("M", bound="Message")


class MlflowError(Exception):
    """An error with MLflow's code and text; the code's status goes with it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code, self.message, self.status = code, message, STATUS[code]


class Message(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The base of requests and answers: None is "not set"."""


class KeyValue(Message):
    """A tag or a param."""

    key: str | None = None
    value: str | None = None


def invalid(message: str) -> MlflowError:
    """What is said of a request that can't be taken as it is."""
    return MlflowError("INVALID_PARAMETER_VALUE", message)


def missing(message: str) -> MlflowError:
    """What is said of a thing that is not there."""
    return MlflowError("RESOURCE_DOES_NOT_EXIST", message)


def number(value: float) -> float | str:
    """A double as JSON has it: NaN and infinities are texts."""
    return value if math.isfinite(value) else "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def some(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer without what is empty."""
    return {name: value for name, value in answer.items() if value}


def error_body(code: str, message: str) -> bytes:
    """An error as the client reads it."""
    return msgspec.json.encode({"error_code": code, "message": message})


def translated(error: DavyError) -> MlflowError:
    """Our error in MLflow's codes; its text says what came, what is allowed, and what to do."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), "INTERNAL_ERROR")
    return MlflowError(code, str(error))


def read_json(kind: type[M], body: bytes, required: tuple[str, ...] = ()) -> M:
    """The message of a JSON body; an empty body is an empty message.

    Raises:
        MlflowError: not JSON, a value of another type, both spellings of a field, or a required field that is missing.
    """
    if not body:
        return _complete(kind(), required, {})
    if body[:1] == b"{" and not any(alias in body for alias in _aliases(kind)):
        try:
            found: M = _decoder(kind).decode(body)
            if not any(getattr(found, name) == [] for name in required):  # only the object tells an empty list from none
                return _complete(found, required, None)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # the slow way takes what Python's own clients write, and names what is wrong
    raw = _parse(body)
    if isinstance(raw, str):  # old clients encode twice
        raw = _parse(raw.encode())
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise invalid(f"The request body must be a JSON object, not a {type(raw).__name__}.")
    return convert(kind, raw, required)


def read_query(kind: type[M], query: str, required: tuple[str, ...] = ()) -> M:
    """The message of a query string; fields that are lists are repeated parameters."""
    try:
        given = parse_qs(query, keep_blank_values=True, errors="strict", max_num_fields=10_000)
    except ValueError as error:
        raise invalid(f"The query can't be read: {error}.") from None
    lists = _lists(kind)
    raw: dict[str, Any] = {name: values if name in lists else values[0] for name, values in given.items()}
    return convert(kind, raw, required)


def convert(kind: type[M], raw: dict[str, Any], required: tuple[str, ...] = ()) -> M:
    """The message of a decoded object."""
    raw = _snake(raw, kind)
    try:
        return _complete(msgspec.convert(raw, kind, strict=False), required, raw)
    except msgspec.ValidationError as error:
        raise _mistyped(str(error), raw) from None


def _complete(message: M, required: tuple[str, ...], raw: dict[str, Any] | None) -> M:
    for name in required:
        value = getattr(message, name)
        if value is None or value == "" or (value == [] and (raw is None or name not in raw)):
            raise required_missing(name)
    return message


def required_missing(path: str) -> MlflowError:
    """What is said of a required field that is not set."""
    return invalid(f"Missing value for required parameter '{path}'.{_SEE}")


def _mistyped(said: str, raw: Any) -> MlflowError:
    found = _AT.search(said)
    path = found["path"] if found else ""
    value = raw
    for part in re.findall(r"[^.\[\]]+", path):
        value = value[int(part)] if isinstance(value, list) and part.isdigit() else value.get(part) if isinstance(value, dict) else value
    shown = json.dumps(value, sort_keys=True, separators=(",", ":"))
    shown = shown if len(shown) <= 500 else f"{shown[:500]}..."
    return invalid(f"Invalid value {shown} for parameter '{path}' supplied:  Hint: Value was of type '{type(value).__name__}'.{_SEE}")


def _parse(body: bytes) -> Any:
    """Python's own JSON, which its clients write: with NaN and Infinity."""
    try:
        found = json.loads(body)
        msgspec.json.encode(found)  # lone surrogates are no text
        return found
    except RecursionError:
        raise invalid("The request body is nested too deeply.") from None
    except (ValueError, UnicodeError, msgspec.MsgspecError) as error:
        raise MlflowError("BAD_REQUEST", f"The request body is not JSON: {error}") from None


@cache
def _decoder(kind: type[M]) -> msgspec.json.Decoder[M]:
    return msgspec.json.Decoder(kind, strict=False)


@cache
def _children(kind: type[Message]) -> dict[str, type[Message] | None]:
    """The fields, with the message that each holds or is a list of, if any."""
    hints = get_type_hints(kind)
    return {name: next(_messages(hint), None) for name, hint in hints.items() if not name.startswith("_")}


def _messages(hint: Any) -> Iterator[type[Message]]:
    if isinstance(hint, type) and issubclass(hint, Message):
        yield hint
    for inner in get_args(hint):
        yield from _messages(inner)


@cache
def _lists(kind: type[Message]) -> frozenset[str]:
    return frozenset(name for name, hint in get_type_hints(kind).items() if any(get_origin(part) is list for part in (hint, *get_args(hint))))


@cache
def _aliases(kind: type[Message]) -> tuple[bytes, ...]:
    """The camelCase spellings, quoted, of all fields in this message and beneath it."""
    found = {f'"{_camel(name)}"'.encode() for name in _children(kind) if "_" in name}
    for child in _children(kind).values():
        found.update(_aliases(child) if child is not None and child is not kind else ())
    return tuple(sorted(found))


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def _snake(raw: dict[str, Any], kind: type[Message]) -> dict[str, Any]:
    """The object with its fields, and those of the objects beneath, in snake_case."""
    found = dict(raw)
    for name, child in _children(kind).items():
        camel = _camel(name)
        if camel != name and camel in found:
            if name in found:
                raise invalid(f"Request specifies both '{name}' and '{camel}'; provide only one of them.")
            found[name] = found.pop(camel)
        value = found.get(name)
        if child is not None and isinstance(value, list):
            found[name] = [_snake(item, child) if isinstance(item, dict) else item for item in value]
        elif child is not None and isinstance(value, dict):
            found[name] = _snake(value, child)
        elif value is None:
            found.pop(name, None)  # null is "not set", also for a list
    return found
