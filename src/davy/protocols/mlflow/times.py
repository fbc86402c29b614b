"""Times and durations as protobuf writes them in JSON."""

from __future__ import annotations

import re

from davy.core.time import format_time, to_micros
from davy.errors import InvalidInput
from davy.protocols.mlflow.checks import bad_value

_DURATION = re.compile(r"(-?\d{1,12})(?:\.(\d{1,9}))?s")


def milliseconds(text: str, path: str) -> int:
    """The time in a request's field."""
    try:
        return to_micros(text) // 1000
    except InvalidInput:
        raise bad_value(path, text, "It is a time such as 2026-01-31T12:00:00.123Z.") from None


def moment(time: int) -> str:
    """A time in milliseconds, with as many groups of three decimals as it takes."""
    text = format_time(time * 1000)
    return f"{text[:-8]}Z" if text.endswith(".000000Z") else f"{text[:-4]}Z"


def duration(text: str | None, path: str) -> int | None:
    """The milliseconds in a request's field, if it is set."""
    if not text:
        return None
    found = _DURATION.fullmatch(text)
    if found is None:
        raise bad_value(path, text, "It is a number of seconds such as 0.123s.")
    return int(found[1]) * 1000 + int((found[2] or "0").ljust(3, "0")[:3])
