"""Offsets of IANA zones from UTC, out of the pinned tzdata package and never the system's files."""

from __future__ import annotations

import io
import struct
from bisect import bisect_right
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache
from importlib import resources
from zoneinfo import ZoneInfo

from davy.errors import DefinitionError, nearest

SECOND = 1_000_000
STEP = 7 * 86_400
TABLED_UNTIL = 4_102_444_800
CYCLE = 146_097 * 86_400
FIRST, LAST = -(2**63), 2**63
LAST_ASKED = 250_000_000_000
_HEADER = struct.Struct(">4sc15x6I")


def check_zone(name: str) -> str:
    """The name, if tzdata has such a zone.

    Raises:
        DefinitionError: it has not; names the nearest.
    """
    if name not in _names():
        raise DefinitionError(f"{name!r} is no IANA time zone.", nearest(name, _names()), 'Write for example "America/New_York", "Europe/Berlin" or "UTC".')
    return name


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    return frozenset(resources.files("tzdata").joinpath("zones").read_text("utf-8").split())


@lru_cache(maxsize=64)
def zone_offset(name: str) -> Callable[[int], int]:
    """A function from UTC microseconds to the zone's offset from UTC in microseconds.

    It remembers the interval between two transitions that it was asked about last. Up to the year 2100 another
    one costs a binary search; after that the zone's rule is asked. One tuple holds the interval, so that threads may share it.
    """
    zone = load_zone(name)
    listed, before = _transitions(name)
    known, offsets = [moment * SECOND for moment, _ in listed], [before * SECOND, *(offset * SECOND for _, offset in listed)]
    end = LAST
    if _has_rule(name):
        start = listed[-1][0] if listed else 0
        for moment in range(start, TABLED_UNTIL, STEP):
            later = _asked(zone, moment + STEP)
            if later != offsets[-1]:
                known.append(_first(zone, moment, moment + STEP, later) * SECOND)
                offsets.append(later)
        end = max(start, TABLED_UNTIL) * SECOND
    bounds = [FIRST, *known, end]
    latest = (FIRST, FIRST, 0)

    def offset(micros: int) -> int:
        nonlocal latest
        low, high, value = latest
        if low <= micros < high:
            return value
        if micros >= end:
            return _asked(zone, micros // SECOND)
        place = bisect_right(known, micros)
        latest = bounds[place], bounds[place + 1], offsets[place]
        return offsets[place]

    return offset


def load_zone(name: str) -> ZoneInfo:
    """The zone as Python knows it, from tzdata's bytes.

    Raises:
        DefinitionError: tzdata has no such zone.
    """
    return ZoneInfo.from_file(io.BytesIO(_content(name)), key=name)


def _content(name: str) -> bytes:
    return resources.files("tzdata").joinpath("zoneinfo", *check_zone(name).split("/")).read_bytes()


def _has_rule(name: str) -> bool:
    """Whether summer and winter time go on after the last listed transition: the file's last line has a comma then."""
    return b"," in _content(name).rstrip(b"\n").rsplit(b"\n", 1)[1]


def _transitions(name: str) -> tuple[list[tuple[int, int]], int]:
    """The transitions that a TZif file lists (RFC 9636) as (second, offset from then on), and the offset before them."""
    data = _content(name)
    _, _, *first = _HEADER.unpack_from(data)
    start = _HEADER.size + first[3] * 5 + first[4] * 6 + first[5] + first[2] * 8 + first[1] + first[0]
    _, _, *counts = _HEADER.unpack_from(data, start)
    times, types = counts[3], counts[4]
    start += _HEADER.size
    moments = struct.unpack_from(f">{times}q", data, start)
    chosen = data[start + times * 8:start + times * 9]
    kinds = [struct.unpack_from(">iBB", data, start + times * 9 + 6 * number) for number in range(types)]
    before = next((offset for offset, summer, _ in kinds if not summer), kinds[0][0])
    return [(moment, kinds[number][0]) for moment, number in zip(moments, chosen, strict=True)], before


def _asked(zone: ZoneInfo, moment: int) -> int:
    """The offset in microseconds at a second by the zone's rule; beyond the calendar's years by the same weekday 400 or more years away."""
    if moment >= LAST_ASKED:
        moment = LAST_ASKED - CYCLE + (moment - LAST_ASKED) % CYCLE
    offset = datetime.fromtimestamp(moment, zone).utcoffset() or timedelta()
    return offset // timedelta(microseconds=1)


def _first(zone: ZoneInfo, low: int, high: int, offset: int) -> int:
    """The first second after `low` at which the offset holds that holds at `high`."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _asked(zone, middle) == offset else (middle, high)
    return high

