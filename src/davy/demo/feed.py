"""A month as it happened, as a list of steps: what the feeds delivered, and which flights were asked about, moment by moment."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
import polars as pl

from davy.core.time import to_micros
from davy.demo.client import Request
from davy.demo.data import FEED_DELAY, Flights

MODEL = "late"
SECOND = 1_000_000
MINUTE = 60 * SECOND
POLLED_EVERY = 15 * MINUTE
OUTCOMES_EVERY = 30 * MINUTE
# Minutes past the quarter, or past the half hour: the feeds take turns.
TURN = {"departures": 5 * MINUTE, "arrivals": 10 * MINUTE, "weather": 0, "outcomes": 15 * MINUTE}
LATE_SHARE = 0.04
LATE_MEAN = 15 * MINUTE
VERY_LATE_SHARE = 0.0005
TWICE_SHARE = 0.002
_REQUEST = ("origin", "carrier", "dest", "tailnum", "flight", "distance", "block_minutes")
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Step:
    """One moment of the month.

    Attributes:
        at: microseconds in UTC.
        pushes: per stream the rows that a feed delivered by then.
        outcomes: flights whose outcome is known now: (flight, minutes late, when it landed).
        asked: flights that are an hour from their scheduled departure, and their requests.
    """

    at: int
    pushes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    outcomes: list[tuple[str, float, int]] = field(default_factory=list)
    asked: list[tuple[str, Request]] = field(default_factory=list)

    def requests(self) -> list[Request]:
        """The pushes, one request for each stream."""
        return [Request(f"/events/{stream}", _encode(rows)) for stream, rows in self.pushes.items()]


@dataclass(frozen=True)
class Month:
    """The steps in order, and what is in them.

    Attributes:
        late: events that arrived later than the feeds promise.
        twice: events that were delivered a second time.
    """

    steps: list[Step]
    predictions: int
    events: int
    late: int
    twice: int


def month(flights: Flights, start: datetime, end: datetime, *, seed: int = 2013) -> Month:
    """Everything that arrived from `start` on, for the flights asked about until `end`, up to their last landing.

    Feeds are polled every quarter of an hour, outcomes are reported every half hour. Most events wait for nothing else; a few
    are late by another quarter of an hour on average, a handful by hours, and a few come twice.
    """
    asked = flights.schedule.filter((pl.col("time") >= start) & (pl.col("time") < end))
    last = max(end, asked["arrived"].max() or end)
    chance = random.Random(seed)
    steps: dict[int, Step] = {}
    tally: defaultdict[str, int] = defaultdict(int)
    _ask(steps, asked)
    for stream, frame, time in (("departures", flights.departures, "departed"), ("arrivals", flights.arrivals, "arrived"),
                                ("weather", flights.weather, "observed")):
        known = frame.filter((pl.col(time) + FEED_DELAY > start) & (pl.col(time) <= last))
        _deliver(steps, stream, known, time, to_micros(start), chance, tally)
    landed = asked.filter(pl.col("arr_delay").is_not_null()).select("flight_id", "arr_delay", pl.col("arrived").dt.epoch("us"))
    for flight, minutes, arrived in landed.iter_rows():
        _step(steps, _polled("outcomes", arrived + MINUTE)).outcomes.append((flight, minutes, arrived))
    return Month([steps[at] for at in sorted(steps)], asked.height, tally["events"], tally["late"], tally["twice"])


def _ask(steps: dict[int, Step], asked: pl.DataFrame) -> None:
    path = f"/predict/{MODEL}"
    rows = asked.with_columns(pl.col("time").dt.epoch("us"), pl.col("scheduled").dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    for row in rows.iter_rows(named=True):
        body = {name: row[name] for name in (*_REQUEST, "scheduled")}
        _step(steps, row["time"]).asked.append((row["flight_id"], Request(path, _encode(body))))


def _deliver(steps: dict[int, Step], stream: str, frame: pl.DataFrame, time: str, start: int, chance: random.Random,
             tally: defaultdict[str, int]) -> None:
    for row in frame.with_columns(pl.col(time).dt.epoch("us")).iter_rows(named=True):
        happened = row[time]
        wait, late = (6 * MINUTE, False) if stream == "weather" else _wait(chance)
        arrived = _polled(stream, max(happened + wait, start))
        tally["events"] += 1
        tally["late"] += late
        _step(steps, arrived).pushes.setdefault(stream, []).append(row)
        if chance.random() < TWICE_SHARE:
            tally["twice"] += 1
            _step(steps, _polled(stream, arrived + MINUTE)).pushes.setdefault(stream, []).append(row)


def _wait(chance: random.Random) -> tuple[int, bool]:
    drawn = chance.random()
    if drawn < VERY_LATE_SHARE:
        return int(chance.uniform(2, 6) * 60 * MINUTE), True
    if drawn < LATE_SHARE:
        return POLLED_EVERY + int(chance.expovariate(1 / LATE_MEAN)), True
    return int(chance.uniform(10, 50) * SECOND), False


def _polled(feed: str, moment: int) -> int:
    """The next poll of this feed at or after this moment."""
    every, turn = OUTCOMES_EVERY if feed == "outcomes" else POLLED_EVERY, TURN[feed]
    return -((turn - moment) // every) * every + turn


def _step(steps: dict[int, Step], at: int) -> Step:
    found = steps.get(at)
    if found is None:
        found = steps[at] = Step(at)
    return found
