"""A whole history: all or nothing, once, in the order in which it was known."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from davy.core.clock import DrivenClock
from davy.core.fields import Field
from davy.core.time import EPOCH
from davy.errors import CorruptData, InvalidInput, InvalidTime, NotFound, StorageFull
from davy.events import history, segments
from davy.events.sources import read_source, scan_source
from davy.features.definition import StreamSpec
from davy.home import CLOCK_FILE
from events_kit import CLICKS, HOUR, NOON, ORDERS, SECOND, User, click, contents, driven_home, open_log, order

DAY = 24 * HOUR


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))


def clicks(count: int, seed: int = 1) -> pl.DataFrame:
    chance = random.Random(seed)
    return frame([click(NOON - chance.randrange(DAY), f"u{chance.randrange(5)}", chance.choice([None, chance.uniform(-5, 5)])) for _ in range(count)])


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
def test_it_equals_the_same_events_pushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lazy: bool, ordered: bool) -> None:
    monkeypatch.setattr(history, "CHUNK", 70)
    given = clicks(500).sort("at") if ordered else clicks(500)
    whole, single = open_log(driven_home(tmp_path / "a"), CLICKS.spec), open_log(driven_home(tmp_path / "b"), CLICKS.spec)
    if lazy:
        given.write_parquet(tmp_path / "x.parquet")
    receipt = whole.append_history("clicks", pl.scan_parquet(tmp_path / "x.parquet") if lazy else given)
    assert (receipt.accepted, receipt.first_offset, receipt.last_offset) == (500, 1, 500)
    for row in given.sort("at", maintain_order=True).iter_rows(named=True):
        single.append("clicks", [row])
    loaded, pushed = contents(whole, "clicks"), contents(single, "clicks")
    assert [{**row, "ingest": 0} for row in loaded] == [{**row, "ingest": 0} for row in pushed]
    state = whole.streams["clicks"]
    assert sum(part.last_offset - part.first_offset + 1 for part in segments.recorded(whole.home, "clicks")) == 500
    assert segments.altered(whole.home, state.spec, state.table) == []
    whole.close()
    single.close()


@given(times=st.lists(st.tuples(st.integers(-3, 4), st.integers(-3, 6) | st.none()), max_size=12), delay=st.integers(0, 3), before=st.integers(0, 2))
@settings(max_examples=25, deadline=None)
def test_ingest_times_follow_the_rule(tmp_path_factory: pytest.TempPathFactory, times: list[tuple[int, int | None]], delay: int, before: int) -> None:
    spec = StreamSpec("x", "at", (Field("n", "int"),), ingest="seen", delay=delay, tolerance=1)
    log = open_log(driven_home(tmp_path_factory.mktemp("h")), spec)
    for _ in range(before):
        log.append("x", [{"at": NOON - 3, "n": -1}])
    rows = [{"at": NOON + at, "n": n, "seen": None if seen is None else NOON + seen} for n, (at, seen) in enumerate(times)]
    log.append_history("x", pl.DataFrame(rows, schema={"at": pl.Int64, "n": pl.Int64, "seen": pl.Int64}))

    expected, last = [], NOON + before - 1 if before else 0
    known = []
    for row in rows:
        arrived = row["seen"] if row["seen"] is not None else row["at"] + delay
        known.append((row["at"] if row["at"] > arrived + 1 else arrived, row))
    for arrived, row in sorted(known, key=lambda pair: pair[0]):
        if row["at"] <= NOON + 1:
            last = max(min(arrived, NOON), last + 1)
            expected.append((row["n"], last))
    found = contents(log, "x")[before:]
    assert [(row["n"], row["ingest"]) for row in found] == expected
    DrivenClock(log.home.path / CLOCK_FILE).set(NOON + HOUR)
    log.append("x", [{"at": NOON, "n": 99}])
    assert sorted(row["n"] for row in contents(log, "x")[before:]) == [*range(len(rows)), 99]
    log.close()


def test_the_same_history_is_recognised(tmp_path: Path) -> None:
    home = driven_home(tmp_path)
    log = open_log(home, CLICKS.spec)
    given = clicks(300).vstack(frame([click(NOON + DAY)]))
    first = log.append_history("clicks", given)
    assert (first.accepted, first.set_aside, first.duplicates) == (300, 1, 0)
    files = log.streams["clicks"].table.files()
    log.abandon()
    log = open_log(home)
    again = log.append_history("clicks", given)
    assert (again.accepted, again.set_aside, again.duplicates) == (0, 0, 301)
    assert log.append_history("clicks", given[:-2]).accepted == 299
    assert len(contents(log, "clicks")) == 599
    assert set(files) < set(log.streams["clicks"].table.files())
    folder = Path(files[0]).parent
    assert len(list(folder.glob("*.parquet"))) == 2
    log.close()


def test_events_that_come_after_what_arrived_later_are_counted(tmp_path: Path) -> None:
    log = open_log(driven_home(tmp_path), CLICKS.spec)
    assert log.append_history("clicks", clicks(50)).clamped == 0
    DrivenClock(log.home.path / CLOCK_FILE).set(NOON + HOUR)
    later = frame([click(NOON + SECOND * n) for n in range(5)])
    assert log.append_history("clicks", later).clamped == 0
    log.append("clicks", [click(NOON + HOUR)])
    receipt = log.append_history("clicks", clicks(30, seed=2).vstack(frame([click(NOON + HOUR), click(NOON + 2 * HOUR)])))
    assert (receipt.accepted, receipt.set_aside, receipt.clamped) == (31, 1, 30)
    assert all(row["ingest"] >= NOON + HOUR for row in contents(log, "clicks")[56:])
    assert log.append_history("clicks", later).clamped == 0
    log.close()


def test_ids_are_taken_once_across_histories_and_pushes(tmp_path: Path) -> None:
    log = open_log(driven_home(tmp_path), ORDERS.spec)
    log.append("orders", [order("a")])
    receipt = log.append_history("orders", frame([order("a", NOON - 5), order("b", NOON - 1), order("b", NOON - 2), order("c", NOON)]))
    assert (receipt.accepted, receipt.duplicates, receipt.first_offset) == (2, 2, 2)
    assert log.append("orders", [order("b"), order("c"), order("d")]).duplicates == 2
    found = contents(log, "orders")
    assert [row["order"] for row in found] == ["a", "b", "c", "d"]
    assert found[1]["at"] == NOON - 2
    log.close()


def test_ids_that_are_joined_and_ids_that_are_looked_up_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Histories and pushes with ids of 40 orders, some of them set aside until later."""
    found, receipts = [], []
    for way, most in (("joined", history.MOST_JOINED), ("looked-up", 0)):
        monkeypatch.setattr(history, "MOST_JOINED", most)
        monkeypatch.setattr(history, "CHUNK", 9)
        chance, log, seen = random.Random(5), open_log(driven_home(tmp_path / way), ORDERS.spec), set[str]()
        for turn in range(6):
            rows = [order(f"o{chance.randrange(40)}", NOON + chance.choice([-HOUR, -2, -1, 0, HOUR])) for _ in range(20)]
            receipt = log.append("orders", rows[:5]) if turn % 2 else log.append_history("orders", frame(rows))
            names = {row["order"] for row in (rows[:5] if turn % 2 else rows)}
            assert receipt.accepted + receipt.set_aside == len(names - seen)
            seen |= names
            receipts.append((receipt.accepted, receipt.duplicates, receipt.set_aside))
        found.append([(row["order"], row["at"]) for row in contents(log, "orders")])
        log.close()
    assert found[0] == found[1]
    assert receipts[:6] == receipts[6:]
    assert sum(aside for _, _, aside in receipts) > 5


def test_a_history_after_one_that_the_online_state_has_not_taken_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log(driven_home(tmp_path), ORDERS.spec)

    def full(_: object) -> None:
        raise StorageFull("No space.")

    given = frame([order("a", NOON - 2), order("b", NOON - 1)])
    with monkeypatch.context() as broken:
        broken.setattr(log.online, "apply", full)
        with pytest.raises(StorageFull):
            log.append_history("orders", given)
        with pytest.raises(StorageFull):
            log.append_history("orders", given.vstack(frame([order("c")])))
    assert log.streams["orders"].behind
    receipt = log.append_history("orders", given.vstack(frame([order("c")])))
    assert (receipt.accepted, receipt.duplicates) == (1, 2)
    assert [row["order"] for row in contents(log, "orders")] == ["a", "b", "c"]
    log.close()


def test_a_history_that_lies_all_in_the_future_waits(tmp_path: Path) -> None:
    home = driven_home(tmp_path)
    log = open_log(home, CLICKS.spec)
    given = frame([click(NOON + n * HOUR) for n in (3, 1, 2)])
    assert log.append_history("clicks", given).set_aside == 3
    assert log.append_history("clicks", given).duplicates == 3
    log.abandon()
    DrivenClock(home.path / CLOCK_FILE).set(NOON + 2 * HOUR)
    log = open_log(home)
    log.append("clicks", [click(NOON + 2 * HOUR)])
    assert [row["at"] for row in contents(log, "clicks")] == [NOON + HOUR, NOON + 2 * HOUR, NOON + 2 * HOUR]
    log.close()


def test_a_wrong_value_refuses_the_history_and_names_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "CHUNK", 10)
    log = open_log(driven_home(tmp_path), CLICKS.spec)
    rows = [click(NOON - 100 + n) for n in range(30)]
    rows[23]["amount"] = float("nan")
    with pytest.raises(InvalidInput, match="Row 23: The field 'amount' got nan"):
        log.append_history("clicks", frame(rows))
    with pytest.raises(InvalidInput, match="amount"):
        log.append_history("clicks", frame(rows).with_columns(amount=pl.lit("x")))
    with pytest.raises(InvalidInput, match="no column 'user'"):
        log.append_history("clicks", frame(rows).rename({"user": "usr"}))
    with pytest.raises(InvalidTime, match="without a zone"):
        log.append_history("clicks", frame(rows[:3]).with_columns(pl.col("at").dt.replace_time_zone(None)))
    with pytest.raises(InvalidTime, match="Row 1 has no 'at'"):
        log.append_history("clicks", frame(rows[:3]).with_columns(pl.when(pl.int_range(3) == 1).then(None).otherwise("at").alias("at")))
    assert contents(log, "clicks") == []
    assert not list((log.home.path / "tables").rglob("*.parquet"))
    rows[23]["amount"] = None
    assert log.append_history("clicks", frame(rows)).accepted == 30
    log.close()


def test_views_catch_up_with_a_history_and_are_built_from_one(tmp_path: Path) -> None:
    early, late = open_log(driven_home(tmp_path / "a"), CLICKS.spec), open_log(driven_home(tmp_path / "b"), CLICKS.spec)
    early.ensure_views([(CLICKS.spec, User.spec)])
    for log in (early, late):
        log.append("clicks", [click(NOON - SECOND)])
        log.append_history("clicks", clicks(200))
        log.append("clicks", [click(NOON)])
    late.ensure_views([(CLICKS.spec, User.spec)])
    tables = [name for name in early.online.store.tables() if name.startswith("state/")]
    assert tables
    from davy.features.keys import encode_key

    for user in ("ann", "u0", "u1", "u2", "u3", "u4"):
        states = []
        for log in (early, late):
            with log.online.store.snapshot() as snapshot:
                states.append(snapshot.get(tables[0], encode_key([user]) or b""))
        assert states[0] == states[1] is not None
    early.close()
    late.close()


def test_sources(tmp_path: Path) -> None:
    given = clicks(20)
    given.write_parquet(tmp_path / "a.parquet")
    given.with_columns(pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%S.%6fZ")).write_csv(tmp_path / "b.csv")
    (tmp_path / "folder").mkdir()
    given[:10].write_parquet(tmp_path / "folder" / "1.parquet")
    given[10:].write_parquet(tmp_path / "folder" / "2.parquet")
    log = open_log(driven_home(tmp_path), CLICKS.spec)
    assert log.append_history("clicks", scan_source(tmp_path / "a.parquet")).accepted == 20
    for source in ("b.csv", "folder"):
        assert log.append_history("clicks", scan_source(tmp_path / source)).duplicates == 20, source
    delta = log.streams["clicks"].table.uri
    assert read_source(Path(delta)).height == 20
    log.close()
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-50])
    with pytest.raises(CorruptData, match=r"a\.parquet"):
        scan_source(tmp_path / "a.parquet")
    with pytest.raises(NotFound, match="nothing"):
        scan_source(tmp_path / "nothing.parquet")
    (tmp_path / "c.txt").write_text("x")
    with pytest.raises(InvalidInput, match=r"c\.txt"):
        scan_source(tmp_path / "c.txt")


def test_times_with_any_zone_and_unit(tmp_path: Path) -> None:
    log = open_log(driven_home(tmp_path), CLICKS.spec)
    moment = EPOCH + timedelta(microseconds=NOON - HOUR)
    assert moment == datetime(2013, 5, 1, 11, tzinfo=UTC)
    for number, kind in enumerate([pl.Datetime("ns", "America/New_York"), pl.Datetime("ms", "UTC"), pl.Datetime("us", "Asia/Tokyo")]):
        log.append_history("clicks", pl.DataFrame({"at": [moment], "user": [str(number)], "amount": [1.0]}).with_columns(pl.col("at").cast(kind)))
    assert [row["at"] for row in contents(log, "clicks")] == [NOON - HOUR] * 3
    assert msgspec.to_builtins(CLICKS.spec)["time"] == "at"
    log.close()
