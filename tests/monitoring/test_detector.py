"""The stream monitor keeps its promise on streams that stand still, and finds what moves; the full sizes are in the benchmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from davy.monitoring.columns import Reference, make_reference
from davy.monitoring.detector import Bank, BankState
from davy.monitoring.packed import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ROWS = 50
PROMISED = 10_000_000 / ROWS
HOUR, DAY = 3_600_000_000, 86_400_000_000


def batches(bank: Bank, frame: pl.DataFrame) -> NDArray[np.int64]:
    """Counts per batch, column and bin."""
    count, number = len(bank.columns), frame.height // ROWS
    found = np.zeros((number, count, bank.width), dtype=np.int64)
    place = np.arange(number * ROWS) // ROWS * bank.width
    for index, column in enumerate(bank.columns):
        codes = column.coarse_codes(frame[column.name][:number * ROWS])
        found[:, index] = np.bincount(place + codes, minlength=number * bank.width).reshape(number, bank.width)
    return found


def first_alarm(bank: Bank, frame: pl.DataFrame, state: BankState | None = None) -> tuple[int, str, int] | None:
    """After how many rows, which column, and since which row."""
    state = state or bank.start()
    for number, counts in enumerate(batches(bank, frame), 1):
        bank.update(state, counts, weight=1.0, time=number * ROWS)
        for alarm in bank.alarms(state):
            return number * ROWS, alarm.feature, alarm.began
    return None


def reference_of(rows: int, columns: int, seed: int = 0) -> Reference:
    random = np.random.default_rng(seed)
    return make_reference(pl.DataFrame({f"f{number:02}": random.normal(size=rows) for number in range(columns)}))


@pytest.mark.parametrize("known", [1_000, 100_000])
def test_a_stream_that_stands_still_gives_no_alarm(known: int) -> None:
    """Also against a small training set, whose own error is priced in."""
    bank, random = Bank(reference_of(known, 50).columns, budget=PROMISED), np.random.default_rng(1)
    state, most = bank.start(), -1e9
    for _ in range(4):
        for counts in batches(bank, pl.DataFrame({column.name: random.normal(size=10_000) for column in bank.columns})):
            bank.update(state, counts, weight=1.0, time=1)
            most = max(most, bank.evidence(state).max())
    assert most < bank.limit - 2


@pytest.mark.parametrize(("change", "most"), [
    (lambda x, r: x + 0.2, 1_000), (lambda x, r: x - 0.5, 250), (lambda x, r: x * 1.25, 700), (lambda x, r: x * 0.5, 400),
    (lambda x, r: np.where(r.random(len(x)) < 0.2, np.nan, x), 150), (lambda x, r: np.where(r.random(len(x)) < 0.05, 0.3, x), 2_000)])
def test_what_moves_is_found_after_few_rows(change: Callable[[NDArray[np.float64], np.random.Generator], NDArray[np.float64]], most: int) -> None:
    """The bets of one column, with the limit of a family of fifty."""
    family = Bank(reference_of(100_000, 1).columns * 50, budget=PROMISED)
    bank = Bank(family.columns[:1], budget=PROMISED * 50)
    assert bank.limit == pytest.approx(family.limit)
    random, delays, began = np.random.default_rng(2), [], []
    for _ in range(15):
        values = random.normal(size=1_000 + 8_000)
        values[1_000:] = change(values[1_000:], random)
        found = first_alarm(bank, pl.DataFrame({"f00": values}))
        assert found is not None
        delays.append(found[0] - 1_000)
        began.append(found[2] - 1_000)
    assert np.median(delays) <= most
    assert abs(np.median(began)) <= 150, "the alarm says when it began"


def test_texts_that_no_training_set_had() -> None:
    random = np.random.default_rng(3)
    known = make_reference(pl.DataFrame({"shop": [f"s{i}" for i in random.integers(0, 30, 50_000)]}))
    bank = Bank(known.columns, budget=PROMISED * 50)
    now = np.array([f"s{i}" for i in random.integers(0, 30, 6_000)], dtype=object)
    now[1_000:][random.random(5_000) < 0.02] = "new"
    found = first_alarm(bank, pl.DataFrame({"shop": now.astype(str)}))
    assert found is not None
    assert 1_000 < found[0] < 2_500
    rare = make_reference(pl.DataFrame({"shop": [f"s{i}" for i in random.zipf(1.5, 20_000)]}))
    calm = pl.DataFrame({"shop": [f"s{i}" for i in random.zipf(1.5, 20_000)]})
    assert first_alarm(Bank(rare.columns, budget=PROMISED * 50), calm) is None, "a long tail always has texts that nobody has seen"


def weather(days: int, random: np.random.Generator, per_day: int = 200) -> pl.DataFrame:
    """Rows of a day are alike."""
    times = np.arange(days * per_day) * (DAY // per_day)
    level = np.repeat(random.normal(size=days), per_day)
    hour = times // HOUR % 24
    return pl.DataFrame({"temperature": level + random.normal(size=len(times)) / 4, "hour": hour, "time": times})


@pytest.mark.parametrize("tempered", [True, False])
def test_rows_that_hang_together_count_for_fewer(tempered: bool) -> None:
    random = np.random.default_rng(5)
    known = weather(90, random)
    reference = make_reference(known.drop("time"), times=known["time"].to_numpy(), timed=["hour"] if tempered else [])
    if not tempered:
        reference = make_reference(known.drop("time"))
    assert (reference.by_name["temperature"].within[-1:] > 0.8).all()
    bank, now = Bank(reference.columns, budget=PROMISED), weather(90, random)
    state, alarms, hours = bank.start(), set(), now["hour"].to_numpy()
    rate = 200 / DAY if tempered else 0.0
    for number, counts in enumerate(batches(bank, now)):
        span = slice(number * ROWS, (number + 1) * ROWS)
        moments = now["time"].to_numpy()[span]
        parts = []
        for of_week in np.unique(moments // HOUR % 168):
            rows = np.flatnonzero(moments // HOUR % 168 == of_week) + number * ROWS
            parts.append((int(of_week), np.stack([np.bincount(column.coarse_codes(now[column.name][rows]), minlength=bank.width) for column in bank.columns])))
        bank.update(state, counts, weight=1.0, time=int(moments[-1]), rate=rate, hours=parts)
        alarms |= {alarm.feature for alarm in bank.alarms(state)}
    assert len(hours) == 18_000
    assert alarms == (set() if tempered else {"temperature", "hour"})


def test_a_state_goes_on_where_it_was_stored() -> None:
    bank, random = Bank(reference_of(5_000, 3).columns, budget=PROMISED), np.random.default_rng(7)
    frame = pl.DataFrame({column.name: random.normal(size=2_000) + 0.05 for column in bank.columns})
    whole, part = bank.start(), bank.start()
    for number, counts in enumerate(batches(bank, frame)):
        bank.update(whole, counts, weight=1.0, time=number)
        bank.update(part, counts, weight=1.0, time=number)
        part = unpack(pack(part), BankState)
    assert bank.evidence(whole).tolist() == bank.evidence(part).tolist()
    assert whole.rows == part.rows == 2_000
    bank.forget(whole, "f01")
    assert bank.evidence(whole)[1] < -1e8
    assert bank.evidence(whole)[0] == bank.evidence(part)[0]


def test_columns_that_can_not_move() -> None:
    odd = pl.DataFrame({"constant": [7.0] * 200, "nothing": pl.Series([None] * 200, dtype=pl.Float64), "when": pl.Series(range(200)).cast(pl.Datetime("us"))})
    bank = Bank(make_reference(odd).columns, budget=PROMISED)
    assert [column.name for column in bank.columns] == ["constant", "nothing"]
    assert first_alarm(bank, pl.concat([odd] * 20)) is None
    state = bank.start()
    changed = first_alarm(bank, pl.concat([odd] * 20).with_columns(constant=pl.lit(7.5)), state)
    assert changed is not None
    assert changed[1] == "constant"
    assert first_alarm(Bank((), budget=1.0), pl.DataFrame()) is None
