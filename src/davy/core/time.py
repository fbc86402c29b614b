"""Times are int64 microseconds since 1970 in UTC; durations are int64 microseconds.

A time without a zone is refused wherever it enters, because guessing a zone is how training and serving
come to disagree.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from davy.errors import InvalidInput, InvalidTime

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
UNITS = {"us": 1, "ms": 1_000, "s": 1_000_000, "min": 60_000_000, "m": 60_000_000, "h": 3_600_000_000,
         "d": 86_400_000_000, "w": 604_800_000_000}
EARLIEST, LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999
SOONEST_INT, LATEST_INT = 631_152_000_000_000, 4_102_444_800_000_000
_DURATION = re.compile(r"(\d+)\s*(us|ms|min|s|m|h|d|w)")


def parse_duration(text: str | timedelta) -> int:
    """Microseconds of `"90s"`, `"1h"`, `"7d"`, `"1h 30min"`, or a `timedelta`. A bare number is refused: it could be of any unit.

    >>> parse_duration("1h 30min")
    5400000000
    """
    if isinstance(text, timedelta):
        return text // MICROSECOND
    parts = _DURATION.findall(text) if isinstance(text, str) else []
    if not parts or _DURATION.sub("", text).strip():
        number = str(text).isdigit()
        raise InvalidInput(f"{text!r} {'has no unit' if number else 'is not a duration'}.",
                           "A duration is whole numbers with units us, ms, s, min (or m), h, d, w.",
                           f'Write for example "{text}s", "{text}min" or "{text}d".' if number else 'Write for example "1h", "15min" or "7d".')
    return sum(int(number) * UNITS[unit] for number, unit in parts)


def format_duration(micros: int) -> str:
    """The shortest spelling that `parse_duration` reads back.

    >>> format_duration(5_400_000_000)
    '90min'
    """
    for unit in ("d", "h", "min", "s", "ms"):
        if micros and micros % UNITS[unit] == 0:
            return f"{micros // UNITS[unit]}{unit}"
    return f"{micros}us"


def to_micros(value: object) -> int:
    """UTC microseconds of an aware `datetime`, an ISO 8601 text with a zone, or an int that is microseconds already.

    Raises:
        InvalidTime: no zone, not a time, or outside the years 1 to 9999.

    >>> to_micros("2013-05-01T12:00:00-04:00")
    1367424000000000
    """
    if isinstance(value, int) and not isinstance(value, bool):
        micros = value
    else:
        micros = _from_datetime(_as_datetime(value))
    if not EARLIEST <= micros <= LATEST:
        raise InvalidTime(f"The time {value!r} is outside the years 1 to 9999.", "Times are microseconds since 1970 in UTC.",
                          "Check the unit: seconds and milliseconds must be multiplied.")
    return micros


def event_micros(value: object) -> int:
    """`to_micros` for the moment of an event or a question. An int must lie in 1990 to 2100: elsewhere it is rather of another unit.

    Raises:
        InvalidTime: as `to_micros`, and for such an int.
    """
    if isinstance(value, int) and not isinstance(value, bool) and not SOONEST_INT <= value < LATEST_INT:
        raise implausible(value)
    return to_micros(value)


def implausible(value: int) -> InvalidTime:
    """What is said of an int that would be a time long ago or far ahead."""
    read = f" is {format_time(value)}" if EARLIEST <= value <= LATEST else " is no year from 1 to 9999"
    return InvalidTime(f"The time {value} as microseconds{read}.", "A bare int is microseconds since 1970 in UTC, from 1990 to 2100.",
                       "Multiply seconds by 1_000_000 and milliseconds by 1_000; a time that is really that far away is sent as ISO 8601 with a zone.")


def _as_datetime(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass
    raise InvalidTime(f"{value!r} is not a time.", "A time is ISO 8601 with a zone, an aware datetime, or int microseconds in UTC.",
                      'Write for example "2013-05-01T12:00:00Z".')


def _from_datetime(value: datetime) -> int:
    if value.tzinfo is None or value.utcoffset() is None:
        raise InvalidTime(f"The time {value.isoformat()!r} has no zone.", "Davy never guesses a zone.",
                          'Add one: "…Z" for UTC, "…-04:00", or datetime(..., tzinfo=ZoneInfo("America/New_York")).')
    return (value - EPOCH) // MICROSECOND


def format_time(micros: int) -> str:
    """ISO 8601 in UTC with microseconds. What lies beyond the years 1 to 9999 is written as the nearest second in them.

    >>> format_time(1367424000000000)
    '2013-05-01T16:00:00.000000Z'
    """
    seconds, rest = divmod(micros, 1_000_000)
    return f"{_second(seconds)}.{rest:06d}Z"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    try:
        return (EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()
    except OverflowError:
        return "9999-12-31T23:59:59" if seconds > 0 else "0001-01-01T00:00:00"
