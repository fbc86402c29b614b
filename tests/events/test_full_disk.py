"""A disk that fills up in the middle: a clear error, nothing acknowledged lost, and on it goes when there is space."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from davy.errors import DavyError, StorageFull
from events_kit import CLICKS, NOON, ORDERS, User, click, contents, driven_home, open_log, order
from store.disk import small_disk


def test_pushes_fail_clearly_and_succeed_again(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "16m") as disk:
        home = driven_home(disk.folder)
        log = open_log(home, ORDERS.spec, CLICKS.spec)
        log.ensure_views([(CLICKS.spec, User.spec)])
        log.append("orders", [order("a"), order("b")])
        log.append("clicks", [click(NOON, f"user {n}") for n in range(100)])
        log.flush()
        log.append("orders", [order("c")])
        kept = [contents(log, name) for name in ("orders", "clicks")]
        with disk.full():
            for attempt in range(3):
                with pytest.raises(StorageFull):
                    log.append("orders", [order(f"full {n}") for n in range(2000)])
                with pytest.raises(StorageFull):
                    log.append("clicks", [click(NOON, f"{attempt} {n}" * 50) for n in range(500)])
            with pytest.raises(DavyError):
                log.append_history("clicks", pl.DataFrame([click(NOON - n, "x" * 9) for n in range(5000)]))
            with pytest.raises(DavyError):
                log.flush()
        assert [contents(log, name) for name in ("orders", "clicks")] == kept
        assert log.append("orders", [order("d"), order("full 0"), order("a")]).duplicates == 1
        log.append("clicks", [click(NOON)])
        log.flush()
        log.abandon()
        log = open_log(home)
        assert [row["order"] for row in contents(log, "orders")] == ["a", "b", "c", "d", "full 0"]
        assert len(contents(log, "clicks")) == 101
        log.close()
        home.close()


def test_the_log_closes_and_opens_on_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "16m") as disk:
        home = driven_home(disk.folder)
        log = open_log(home, ORDERS.spec)
        log.append("orders", [order("a")])
        with disk.full():
            log.close()
            log = open_log(home)
            assert [row["order"] for row in contents(log, "orders")] == ["a"]
            log.close()
        log = open_log(home)
        assert log.append("orders", [order("a"), order("b")]).accepted == 1
        contents(log, "orders")
        log.close()
        home.close()
