"""The log: what it acknowledges is durable, readable, in order and once."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import msgspec
import polars as pl
import pytest

from davy.core.clock import DrivenClock
from davy.core.fields import Field
from davy.errors import Conflict, CorruptData, InvalidInput, NotFound, Unavailable
from davy.events import segments
from davy.events.frames import table_name
from davy.events.log import EventLog
from davy.events.records import Receipt
from davy.features.definition import StreamSpec
from davy.features.online import OnlineFeatures
from davy.home import CLOCK_FILE, Home
from events_kit import CLICKS, HOUR, NOON, ORDERS, SECOND, User, click, contents, driven_home, open_log, order


def set_clock(home: Home, micros: int) -> None:
    DrivenClock(home.path / CLOCK_FILE).set(micros)


def test_a_push_is_stamped_and_survives(tmp_path: Path) -> None:
    home = driven_home(tmp_path)
    log = open_log(home, CLICKS.spec)
    assert log.append("clicks", [click(NOON - 5), click(NOON)]) == Receipt("clicks", 2, 0, 0, 1, 2, NOON + 1)
    assert log.append("clicks", [click(NOON)]) == Receipt("clicks", 1, 0, 0, 3, 3, NOON + 2)
    assert log.append("clicks", []).accepted == 0
    before = contents(log, "clicks")
    log.abandon()
    log = open_log(home)
    assert contents(log, "clicks") == before
    log.flush()
    assert contents(log, "clicks") == before
    log.close()
    log.close()
    log = open_log(home)
    assert contents(log, "clicks") == before
    assert log.append("clicks", [click(NOON)]).first_offset == 4
    log.close()


def test_the_clock_may_go_back(tmp_path: Path) -> None:
    home = driven_home(tmp_path)
    log = open_log(home, CLICKS.spec)
    log.append("clicks", [click(NOON)])
    set_clock(home, NOON - HOUR)
    assert log.append("clicks", [click(NOON - HOUR)]).ingest_time == NOON + 1
    log.close()
    log = open_log(home)
    assert log.append("clicks", [click(NOON - HOUR)]).ingest_time == NOON + 2
    contents(log, "clicks")
    log.close()


def test_one_wrong_row_refuses_the_whole_push(tmp_path: Path) -> None:
    log = open_log(driven_home(tmp_path), CLICKS.spec)
    with pytest.raises(InvalidInput, match="Row 1"):
        log.append("clicks", [click(NOON), click(NOON, amount=float("nan"))])
    assert contents(log, "clicks") == []
    with pytest.raises(NotFound, match="clikcs"):
        log.append("clikcs", [])
    log.close()


def test_an_id_is_taken_once_also_across_restarts(tmp_path: Path) -> None:
    home = driven_home(tmp_path)
    log = open_log(home, ORDERS.spec)
    assert log.append("orders", [order("a"), order("b"), order("a")]).duplicates == 1
    for flush in (True, False):
        if flush:
            log.flush()
        log.abandon()
        log = open_log(home)
        receipt = log.append("orders", [order("b"), order(f"new{flush}"), order("a")])
        assert (receipt.accepted, receipt.duplicates) == (1, 2)
    assert [row["order"] for row in contents(log, "orders")] == ["a", "b", "newTrue", "newFalse"]
    log.close()


def test_ids_and_views_come_back_when_the_online_state_is_lost(tmp_path: Path) -> None:
    home = driven_home(tmp_path)
    log = open_log(home, ORDERS.spec, CLICKS.spec)
    log.ensure_views([(CLICKS.spec, User.spec)])
    log.append("orders", [order("a"), order("b")])
    log.flush()
    log.append("orders", [order("c")])
    log.append("clicks", [click(NOON)])
    log.abandon()
    home.close()
    for path in (home.path / "online").iterdir():
        path.unlink()
    home = driven_home(tmp_path)
    log = open_log(home)
    assert log.append("orders", [order("a"), order("b"), order("c")]).duplicates == 3
    contents(log, "orders")
    log.ensure_views([(CLICKS.spec, User.spec)])
    assert [view.name for _, view in log.online.views()] == ["User"]
    log.close()


def test_a_stream_may_gain_an_id_and_lose_its_online_state(tmp_path: Path) -> None:
    home = driven_home(tmp_path)
    log = open_log(home, CLICKS.spec)
    log.append("clicks", [click(NOON)])
    log.declare(msgspec.structs.replace(CLICKS.spec, id="press", fields=(*CLICKS.spec.fields, Field("press", "str"))))
    log.append("clicks", [click(NOON) | {"press": "a"}])
    log.close()
    home.close()
    shutil.rmtree(home.path / "online")
    log = open_log(driven_home(tmp_path))
    assert log.append("clicks", [click(NOON) | {"press": "a"}]).duplicates == 1
    assert len(contents(log, "clicks")) == 2
    log.close()


def test_future_events_wait_for_their_time(tmp_path: Path) -> None:
    home = driven_home(tmp_path)
    log = open_log(home, ORDERS.spec)
    receipt = log.append("orders", [order("later", NOON + HOUR), order("now", NOON + SECOND), order("sooner", NOON + HOUR - 1)])
    assert (receipt.accepted, receipt.set_aside, receipt.duplicates) == (1, 2, 0)
    assert log.append("orders", [order("later", NOON)]).duplicates == 1
    log.flush()
    log.abandon()
    log = open_log(home)
    assert log.append("orders", [order("later", NOON)]).duplicates == 1
    set_clock(home, NOON + HOUR)
    log.append("orders", [order("last", NOON + HOUR)])
    found = contents(log, "orders")
    assert [row["order"] for row in found] == ["now", "sooner", "later", "last"]
    log.abandon()
    log = open_log(home)
    assert contents(log, "orders") == found
    assert log.append("orders", [order("sooner")]).duplicates == 1
    log.close()


def test_the_background_releases_what_is_due(tmp_path: Path) -> None:
    home = driven_home(tmp_path)
    log = open_log(home, CLICKS.spec)
    log.append("clicks", [click(NOON + HOUR)])
    assert contents(log, "clicks") == []
    set_clock(home, NOON + 2 * HOUR)
    deadline = time.monotonic() + 10
    while log.online.mark("clicks").offset == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [row["at"] for row in contents(log, "clicks")] == [NOON + HOUR]
    log.close()


def test_set_aside_events_do_not_hold_back_the_write_ahead_log(tmp_path: Path) -> None:
    home = driven_home(tmp_path)
    log = open_log(home, CLICKS.spec)
    log.append("clicks", [click(NOON + HOUR, "future")])
    for _ in range(3):
        log.append("clicks", [click(NOON, "x" * 1000) for _ in range(2000)])
        log.flush()
    assert sum(path.stat().st_size for path in log.wal.directory.iterdir()) < 1_000_000
    log.abandon()
    log = open_log(home)
    set_clock(home, NOON + HOUR)
    log.append("clicks", [click(NOON)])
    assert [row["user"] for row in contents(log, "clicks")][-2:] == ["future", "ann"]
    log.close()


def test_many_threads_share_syncs_and_offsets_have_no_gap(tmp_path: Path) -> None:
    log = open_log(driven_home(tmp_path), CLICKS.spec, ORDERS.spec)
    receipts: list[Receipt] = []

    def work(number: int) -> None:
        for step in range(20):
            receipts.append(log.append("clicks", [click(NOON, f"{number}-{step}-{i}") for i in range(3)]))
            receipts.append(log.append("orders", [order(f"{step}"), order(f"{number}-{step}")]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    clicks, orders = contents(log, "clicks"), contents(log, "orders")
    assert len(clicks) == 480
    assert len(orders) == 20 + 160
    for receipt in receipts:
        if receipt.stream == "clicks":
            users = [row["user"] for row in clicks[receipt.first_offset - 1 : receipt.last_offset]]
            assert [user.rsplit("-", 1)[1] for user in users] == ["0", "1", "2"]
            assert clicks[receipt.last_offset - 1]["ingest"] == receipt.ingest_time
    assert sum(receipt.accepted for receipt in receipts) == 480 + 180
    log.close()


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    home = driven_home(tmp_path)
    log = open_log(home, CLICKS.spec)
    with pytest.raises(Unavailable, match="Another process holds the log"):
        open_log(home)
    log.close()
    with pytest.raises(Unavailable, match="closed"):
        log.append("clicks", [click(NOON)])


def test_a_stream_may_gain_fields_but_not_change_them(tmp_path: Path) -> None:
    home = driven_home(tmp_path)
    log = open_log(home, CLICKS.spec)
    log.append("clicks", [click(NOON)])
    wider = StreamSpec("clicks", "at", (Field("amount", "float", 6), Field("page", "str")), tolerance=5)
    whole = log.declare(wider)
    assert [field.name for field in whole.fields] == ["amount", "page", "user"]
    log.append("clicks", [{**click(NOON), "page": "home"}])
    log.flush()
    with pytest.raises(Conflict, match="amount"):
        log.declare(StreamSpec("clicks", "at", (Field("amount", "int"),)))
    with pytest.raises(Conflict, match="time"):
        log.declare(StreamSpec("clicks", "when", ()))
    log.close()
    log = open_log(home)
    assert [row["page"] for row in contents(log, "clicks")] == [None, "home"]
    log.close()


def test_views_of_an_older_declaration_leave_the_settings_of_a_stream(tmp_path: Path) -> None:
    log = open_log(driven_home(tmp_path), CLICKS.spec)
    now = log.declare(msgspec.structs.replace(CLICKS.spec, tolerance=HOUR, delay=SECOND, source="now.parquet", ingest="seen", id="user"))
    old = msgspec.structs.replace(CLICKS.spec, source="then.parquet", fields=(*CLICKS.spec.fields, Field("page", "str")))
    log.ensure_views([(old, User.spec)])
    held = log.streams["clicks"].spec
    assert held == msgspec.structs.replace(now, fields=(*now.fields, Field("page", "str")))
    assert log.append("clicks", [click(NOON + HOUR)]).set_aside == 0
    for wrong in ({"time": "when"}, {"id": "amount"}, {"fields": (Field("amount", "int"),)}):
        with pytest.raises(Conflict):
            log.declare(msgspec.structs.replace(old, **wrong), keep=True)
    assert log.streams["clicks"].spec == held
    log.close()


def test_what_follows_the_log_can_not_hold_it_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    home = driven_home(tmp_path)
    called = list[int]()

    def fails() -> None:
        raise NotFound("There is no feature set x.") if called else ZeroDivisionError

    log = EventLog(home, OnlineFeatures(home.online), hooks=[fails, lambda: called.append(1)])
    log.declare(CLICKS.spec)
    log.append("clicks", [click(NOON)])
    log.flush()
    log.flush()
    assert called == [1, 1]
    assert "There is no feature set x." in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert log.append_history("clicks", pl.DataFrame([click(NOON - 1)])).accepted == 1
    log.close()
    assert home.table(table_name("clicks")).committed("log") == 2


def test_an_altered_table_is_found_by_its_digests(tmp_path: Path) -> None:
    home = driven_home(tmp_path)
    log = open_log(home, CLICKS.spec)
    for _ in range(3):
        log.append("clicks", [click(NOON), click(NOON)])
        log.flush()
    state = log.streams["clicks"]
    assert [(part.first_offset, part.last_offset) for part in segments.recorded(home, "clicks")] == [(1, 2), (3, 4), (5, 6)]
    assert segments.altered(home, state.spec, state.table) == []
    state.table.compact()
    assert segments.altered(home, state.spec, state.table) == []
    log.close()
    table = home.table(table_name("clicks"))
    frame = table.collect(table.scan()).with_columns(user=pl.when(pl.col("_offset") == 3).then(pl.lit("eve")).otherwise("user"))
    [path] = table.files()
    size = Path(path).stat().st_size
    frame.write_parquet(path)
    if Path(path).stat().st_size == size:
        assert [part.first_offset for part in segments.altered(home, state.spec, table)] == [3]
    else:
        with pytest.raises(CorruptData, match=Path(path).name):
            segments.altered(home, state.spec, table)


def test_lost_events_are_noticed(tmp_path: Path) -> None:
    home = driven_home(tmp_path)
    log = open_log(home, CLICKS.spec)
    log.append("clicks", [click(NOON)])
    log.append("clicks", [click(NOON)])
    log.abandon()
    [path] = (home.path / "wal" / "events").iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CorruptData, match="ends at event 1, but 2 were acknowledged"):
        open_log(home)


def test_a_stream_that_many_declare_at_once_is_one(tmp_path: Path) -> None:
    log = open_log(driven_home(tmp_path))

    def work(number: int) -> None:
        log.declare(CLICKS.spec)
        log.append("clicks", [click(NOON, str(number))])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(row["user"] for row in contents(log, "clicks")) == [str(number) for number in range(8)]
    log.close()
