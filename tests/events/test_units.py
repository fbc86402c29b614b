"""A bare number says no unit: durations refuse it, and a moment takes it only where it is plausible."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from davy import Stream, agg
from davy.core.fields import Field
from davy.core.time import format_time, parse_duration
from davy.errors import InvalidInput, InvalidTime
from davy.events.client import connect
from events_kit import CLICKS, NOON, ORDERS, click, contents, driven_home, open_log, order

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = NOON // 1_000_000


@pytest.mark.parametrize("make", [lambda: Stream("s", time="at", fields={}, delay=5), lambda: agg.count(window=7), lambda: parse_duration("60")])  # type: ignore[arg-type]
def test_a_duration_without_a_unit_is_refused(make: Any) -> None:
    with pytest.raises(InvalidInput, match="has no unit"):
        make()


def test_durations_have_units() -> None:
    assert parse_duration("5m") == parse_duration("5min") == parse_duration(timedelta(minutes=5)) == 300_000_000
    with pytest.raises(InvalidInput, match=r"min \(or m\)"):
        parse_duration("5 minutes")


@pytest.mark.parametrize("at", [SECONDS, SECONDS * 1000, 0, -1, 10**18, np.int64(SECONDS)])
def test_an_int_of_another_unit_is_no_time(tmp_path: Path, at: Any) -> None:
    log = open_log(driven_home(tmp_path), CLICKS.spec)
    with pytest.raises(InvalidTime, match=r"Row 1(?s:.*)Multiply seconds"):
        log.append("clicks", [click(NOON), click(at)])
    with pytest.raises(InvalidTime, match=r"Row 1(?s:.*)Multiply seconds"):
        log.append_history("clicks", pl.DataFrame([click(NOON), click(int(at))]))
    assert log.append("clicks", [{**click(NOON), "at": "1911-05-01T12:00:00Z"}]).accepted == 1
    log.close()


def test_numpy_scalars_are_numbers_and_texts(tmp_path: Path) -> None:
    log = open_log(driven_home(tmp_path), ORDERS.spec)
    given = {"order": np.str_("o1"), "at": np.int64(NOON), "user": "ann", "amount": np.float32(2.5), "paid": np.bool_(True), "count": np.int32(3)}
    log.append("orders", [given, order("o2", amount=2.5)])
    first, second = ({name: value for name, value in row.items() if name not in ("offset", "ingest", "order")} for row in contents(log, "orders"))
    assert first == second
    for wrong in (np.datetime64("2013-05-01"), np.array([1, 2]), np.complex64(1)):
        with pytest.raises(InvalidInput):
            log.append("orders", [{**order("o3"), "count": wrong}])
    log.close()


def test_an_outcome_under_the_answers_own_name_is_led_on(tmp_path: Path) -> None:
    with connect(driven_home(tmp_path)) as log:
        value = Field("loss", "float", 6)
        with pytest.raises(InvalidInput, match=r'Name it "prediction"'):
            log.outcomes("fraud", [{"prediction_id": "p", "loss": 1.0}], value)
        with pytest.raises(InvalidInput, match=r'\{"prediction": "\.\.\.", \.\.\.\}'):
            log.outcomes("fraud", [{}], value)


def test_what_lies_beyond_the_calendar_is_written_as_its_edge() -> None:
    assert format_time(2**63 - 1)[:20] == "9999-12-31T23:59:59."
    assert format_time(-(2**63))[:20] == "0001-01-01T00:00:00."
    assert format_time(10**25)[:20] == "9999-12-31T23:59:59."
