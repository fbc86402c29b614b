"""The month is delivered in order, never before it happened, a few events late and a few twice."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl
import pytest

from davy.core.time import to_micros
from davy.demo import data, feed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from davy.demo.data import Flights
    from davy.demo.feed import Month

TIMES = {"departures": "departed", "arrivals": "arrived", "weather": "observed"}
IDS = {"departures": "flight_id", "arrivals": "flight_id", "weather": "observation"}
END = data.START + timedelta(days=3)


@pytest.fixture(scope="module")
def month(flights: Flights) -> Month:
    return feed.month(flights, data.START, END)


def delivered(month: Month) -> Iterator[tuple[int, str, dict[str, Any]]]:
    for step in month.steps:
        for stream, rows in step.pushes.items():
            for row in rows:
                yield step.at, stream, row


def test_steps_are_in_order_and_every_flight_is_asked_an_hour_before_it_should_leave(month: Month) -> None:
    moments = [step.at for step in month.steps]
    assert moments == sorted(set(moments))
    asked = [(step.at, msgspec.json.decode(request.body)) for step in month.steps for _, request in step.asked]
    assert len(asked) == month.predictions > 2_500
    assert all(0 <= to_micros(body["scheduled"]) - at - 60 * feed.MINUTE < 5 * feed.MINUTE for at, body in asked)


def test_a_request_says_nothing_that_was_not_in_the_timetable(month: Month) -> None:
    fields = {name for step in month.steps for _, request in step.asked for name in msgspec.json.decode(request.body)}
    assert fields == {"origin", "carrier", "dest", "tailnum", "flight", "scheduled", "distance", "block_minutes"}


def test_nothing_arrives_before_it_happened(month: Month) -> None:
    waits: dict[str, list[int]] = {stream: [] for stream in TIMES}
    for at, stream, row in delivered(month):
        waits[stream].append(at - row[TIMES[stream]])
    assert min(min(found) for found in waits.values()) > 0
    within = data.FEED_DELAY // timedelta(microseconds=1)
    share = sum(wait > within for wait in waits["departures"] + waits["arrivals"]) / len(waits["departures"] + waits["arrivals"])
    assert 0.03 < share < 0.06
    assert max(waits["weather"]) <= within


def test_every_event_comes_and_a_few_come_twice(month: Month, flights: Flights) -> None:
    counts = Counter((stream, row[IDS[stream]]) for _, stream, row in delivered(month))
    assert len(counts) == month.events
    assert sum(count == 2 for count in counts.values()) == month.twice > 0
    assert max(counts.values()) == 2
    left = flights.departures.filter((pl.col("departed") > data.START) & (pl.col("departed") <= END))["flight_id"]
    assert {("departures", flight) for flight in left} <= set(counts)


def test_outcomes_come_after_the_landing_and_after_the_question(month: Month) -> None:
    asked_at = {flight: step.at for step in month.steps for flight, _ in step.asked}
    found = [(step.at, *outcome) for step in month.steps for outcome in step.outcomes]
    assert len({flight for _, flight, _, _ in found}) == len(found) > 2_300
    assert all(asked_at[flight] < arrived < at for at, flight, _, arrived in found)


def test_the_same_seed_makes_the_same_month(month: Month, flights: Flights) -> None:
    assert feed.month(flights, data.START, END).steps == month.steps
    assert feed.month(flights, data.START, END, seed=1).steps != month.steps
