"""Several processes and one log: whoever is first serves the others, and nobody's events are lost when it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from databases import write_settings
from davy.core.fields import Field
from davy.errors import Conflict, InvalidInput, NotFound, Unavailable
from davy.events.client import Log, connect
from davy.events.wire import socket_path
from davy.home import Home
from events_kit import CLICKS, NOON, ORDERS, User, click, contents, driven_home, open_log, order

if TYPE_CHECKING:
    from collections.abc import Iterator

VALUE = Field("amount", "float", 6)
PUSHER = """
import sys
from pathlib import Path
from davy.errors import Unavailable
from davy.events.client import connect
from davy.home import Home
from events_kit import ORDERS, order
root, name, rounds, each = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
log = connect(Home(root), patience=20)
for number in range(rounds):
    rows = [order(f"{name}-{number}-{i}") for i in range(each)]
    while True:
        try:
            log.push(ORDERS.spec, rows)
            break
        except Unavailable:
            continue
    print(number, flush=True)
log.close()
"""


def start(*arguments: object) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen([sys.executable, *map(str, arguments)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path})


def start_keeper(home: Home) -> subprocess.Popen[str]:
    process = start("-m", "davy.events.keeper", "--home", home.path)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert json.loads(line)["ready"], line
    return process


def end(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> int:
    process.send_signal(number)
    code = process.wait(60)
    if process.stdout is not None:
        process.stdout.close()
    return code


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Home]:
    home = driven_home(tmp_path)
    yield home
    home.close()


def test_the_first_holds_and_serves_the_second(place: Home) -> None:
    with connect(place) as first, connect(place) as second:
        assert (first.holds, second.holds) == (True, False)
        for log in (first, second):
            assert log.push(CLICKS.spec, [click(NOON)]).accepted == 1
            assert log.push("clicks", [{"at": "2013-05-01T11:00:00Z", "user": "bo"}]).accepted == 1
            log.ensure_views([(CLICKS.spec, User.spec)])
            with pytest.raises(InvalidInput, match="Row 0"):
                log.push("clicks", [{"at": NOON, "amount": "x"}])
            with pytest.raises(NotFound, match="did you mean 'clicks'"):
                log.push("click", [])
            with pytest.raises(Conflict, match="amount"):
                log.declare(CLICKS.spec.__class__("clicks", "at", (Field("amount", "int"),)))
        history = pl.DataFrame([click(NOON - 7), click(NOON - 6)])
        assert second.push_history("clicks", history).accepted == 2
        assert first.push_history("clicks", history.lazy()).duplicates == 2
        second.flush()
        assert set(second.streams()) == {"clicks"}
        assert place.table("events/clicks").committed("log") == 6
        assert not list((place.path / "run").glob("history-*"))


def test_outcomes_are_events_of_their_own_stream(place: Home) -> None:
    with connect(place) as log, connect(place) as other:
        with pytest.raises(NotFound, match="outcomes/late"):
            other.outcomes("late", [])
        rows = [{"prediction": "p1", "amount": 3.25}, {"prediction": "p2", "amount": 1, "time": NOON - 5}]
        assert log.outcomes("late", rows, VALUE).accepted == 2
        assert other.outcomes("late", rows).duplicates == 2
        assert other.outcomes("late", [{"prediction": "p1", "amount": 4.0}]).accepted == 1
        for wrong in ({"prediction": "p1"}, {"amount": 1.0}, {"prediction": "p1", "amount": 1.0, "x": 1}):
            with pytest.raises(InvalidInput, match="Row 0"):
                other.outcomes("late", [wrong])
        log.flush()
    table = place.table("outcomes/late")
    found = table.collect(table.scan()).sort("_offset")
    assert found["prediction"].to_list() == ["p1", "p2", "p1"]
    assert [float(value) for value in found["amount"]] == [3.25, 1.0, 4.0]


def test_who_may_not_hold_waits_for_a_holder(place: Home) -> None:
    with connect(place, hold=False, patience=0.1) as log, pytest.raises(Unavailable, match="Nobody holds"):
        log.flush()
    with connect(place, hold=False, patience=30) as log:
        found: list[Any] = []
        waiting = threading.Thread(target=lambda: found.append(log.push(CLICKS.spec, [click(NOON)])), daemon=True)
        waiting.start()
        with connect(place) as holder:
            waiting.join(30)
            assert holder.holds
        assert found[0].accepted == 1


def test_a_keeper_takes_the_log_and_keeps_it(place: Home) -> None:
    with connect(place) as log:
        log.push(CLICKS.spec, [click(NOON)])
        assert log.holds
        keeper = start_keeper(place)
        try:
            assert not log.holds
            assert log.push("clicks", [click(NOON)]).first_offset == 2
            second = start("-m", "davy.events.keeper", "--home", place.path)
            assert second.wait(60) == Conflict.exit_code
            assert second.stdout is not None
            second.stdout.close()
            assert log.push("clicks", [click(NOON)]).first_offset == 3
        finally:
            assert end(keeper) == 0
        assert place.table("events/clicks").committed("log") == 3
        log._polite_until = 0.0
        assert log.push("clicks", [click(NOON)]).first_offset == 4
        assert log.holds


def test_a_home_with_a_long_path_has_its_socket_elsewhere(tmp_path: Path) -> None:
    home = driven_home(tmp_path / ("x" * 120))
    assert len(str(socket_path(home))) <= 100
    with connect(home) as first, connect(home) as second:
        assert first.push(CLICKS.spec, [click(NOON)]).accepted == 1
        assert second.push(CLICKS.spec, [click(NOON)]).accepted == 1
    assert not socket_path(home).exists()
    home.close()


def test_processes_push_at_once_and_the_holder_is_killed(place: Home) -> None:
    """Whoever is killed, the others go on; with ids a push that is sent again counts once."""
    with connect(place) as log:
        log.declare(ORDERS.spec)
    victim = start("-c", PUSHER, place.root, "victim", 100_000, 3)
    assert victim.stdout is not None
    victim.stdout.readline()
    others = [start("-c", PUSHER, place.root, name, 30, 3) for name in ("a", "b")]
    for other in others:
        assert other.stdout is not None
        other.stdout.readline()
    victim.kill()
    told = [int(line) for line in victim.stdout.read().split("\n")[:-1]]
    end(victim, 0)
    assert [other.wait(100) for other in others] == [0, 0]
    for other in others:
        assert other.stdout is not None
        other.stdout.close()
    log = open_log(place)
    found = Counter(row["order"] for row in contents(log, "orders"))
    assert set(found.values()) == {1}
    whole = {f"{name}-{number}-{i}" for name in ("a", "b") for number in range(30) for i in range(3)}
    assert {name for name in found if not name.startswith("victim")} == whole
    assert {f"victim-{number}-{i}" for number in [0, *told] for i in range(3)} <= set(found)
    log.close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_the_keeper_is_killed_under_load(place: Home, seed: int) -> None:
    """kill -9 at odd moments, among them while the log moves into tables."""
    write_settings(place.root, '[events]\nflush_every = "200ms"\nflush_rows = 300\n')
    acknowledged: set[str] = set()
    stopped = threading.Event()

    def load(number: int, log: Log) -> None:
        step = 0
        while not stopped.is_set():
            rows = [order(f"{number}-{step}-{i}") for i in range(7)]
            try:
                log.push(ORDERS.spec, rows)
            except Unavailable:
                continue
            acknowledged.update(row["order"] for row in rows)
            step += 1

    keeper = start_keeper(place)
    log = connect(place, hold=False, patience=60)
    threads = [threading.Thread(target=load, args=(number, log), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    for kill in range(4):
        time.sleep(0.15 * seed + 0.23 * kill)
        end(keeper, signal.SIGKILL)
        keeper = start_keeper(place)
    time.sleep(0.3)
    stopped.set()
    for thread in threads:
        thread.join()
    end(keeper, signal.SIGKILL)
    assert len(acknowledged) > 50
    opened = open_log(place)
    found = Counter(row["order"] for row in contents(opened, "orders"))
    assert acknowledged <= set(found)
    assert set(found.values()) == {1}
    opened.flush()
    table = place.table("events/orders")
    assert table.collect(table.scan())["_offset"].sort().to_list() == list(range(1, len(found) + 1))
    opened.close()
    log.close()


LOADER = """
import sys
from pathlib import Path
import polars as pl
from davy.events import client, history
from davy.home import Home
from events_kit import CLICKS
history.CHUNK = 50
home = Home(Path(sys.argv[1]))
log = client.connect(home)
print("go", flush=True)
print(log.push_history(CLICKS.spec, pl.read_parquet(sys.argv[2])).accepted, flush=True)
"""


@pytest.mark.slow
def test_a_load_of_history_that_is_killed_is_there_whole_or_not_at_all(place: Home, tmp_path: Path) -> None:
    rows = [click(NOON - 10_000 + n, f"u{n % 7}") for n in range(2000)] + [click(NOON + 10**9 + n, "later") for n in range(10)]
    pl.DataFrame(rows).write_parquet(tmp_path / "x.parquet")
    with connect(place) as log:
        log.declare(CLICKS.spec)
    done = 0
    for attempt in range(6):
        process = start("-c", LOADER, place.root, tmp_path / "x.parquet")
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.15 * attempt)
        end(process, signal.SIGKILL)
        log = open_log(place)
        done = len(contents(log, "clicks"))
        assert done in (0, 2000)
        assert len(log.streams["clicks"].waiting) == (10 if done else 0)
        log.close()
        if done:
            break
    with connect(place) as again:
        receipt = again.push_history("clicks", pl.read_parquet(tmp_path / "x.parquet"))
        assert (receipt.accepted, receipt.set_aside, receipt.duplicates) == ((0, 0, 2010) if done else (2000, 10, 0))
        assert again.push("clicks", [click(NOON)]).first_offset == 2001
