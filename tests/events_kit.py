"""What the tests of the event log share: a stream, a view on it, and the log read back as a plain list."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from databases import write_settings
from davy.core.clock import DrivenClock
from davy.core.fields import Field
from davy.events.log import EventLog
from davy.features.define import Stream, View, agg
from davy.features.definition import StreamSpec
from davy.features.online import OnlineFeatures
from davy.home import CLOCK_FILE, Home

if TYPE_CHECKING:
    from pathlib import Path

NOON = 1_367_409_600_000_000
SECOND = 1_000_000
HOUR = 3600 * SECOND

CLICKS = Stream("clicks", time="at", fields={"user": str, "amount": float})
ORDERS = Stream("orders", time="at", fields={"order": str, "user": str, "amount": float, "paid": bool, "count": int}, id="order")


class User(View):
    """What a user did."""

    stream, entity = CLICKS, "user"
    clicks_1h = agg.count(window="1h")
    spent_1h = agg.sum("amount", window="1h")


def driven_home(root: Path) -> Home:
    """The home of a project whose clock stands at noon."""
    root.mkdir(parents=True, exist_ok=True)
    if not (root / "davy.toml").exists():
        write_settings(root)
    path = root / ".davy"
    if not (path / CLOCK_FILE).exists():
        DrivenClock(path / CLOCK_FILE, start=NOON)
    return Home(root)


def open_log(home: Home, *specs: StreamSpec) -> EventLog:
    """The open log with these streams declared."""
    log = EventLog(home, OnlineFeatures(home.online))
    for spec in specs:
        log.declare(spec)
    return log


def click(at: int, user: str = "ann", amount: float | None = 1.5) -> dict[str, Any]:
    return {"at": at, "user": user, "amount": amount}


def order(name: str, at: int = NOON, amount: float = 2.0) -> dict[str, Any]:
    return {"order": name, "at": at, "user": "ann", "amount": amount, "paid": True, "count": 3}


def contents(log: EventLog, stream: str) -> list[dict[str, Any]]:
    """Every event of the stream in stored form, in order; asserts what must always hold."""
    state, found = log.streams[stream], list[dict[str, Any]]()
    with log.mover.flushing, log.committing:
        everything = list(state.events(0))
    for batch in everything:
        assert batch.first_offset == len(found) + 1
        for i in range(len(batch)):
            values = {name: column[i] for name, column in batch.columns.items()}
            found.append({"offset": batch.first_offset + i, "ingest": batch.ingest[i], "at": batch.times[i], **values})
    assert all(a["ingest"] < b["ingest"] for a, b in pairwise(found))
    assert all(row["at"] <= row["ingest"] + state.spec.tolerance for row in found)
    assert state.offset == len(found)
    assert log.online.mark(stream).offset == len(found)
    return found


FIELDS = [Field("i", "int"), Field("f", "float", 6), Field("g", "float", 3), Field("d", "decimal", 2),
          Field("s", "str"), Field("b", "bool"), Field("t", "time")]
