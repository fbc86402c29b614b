"""The prediction log: nothing that was taken is lost, and nothing is there twice, whoever dies when."""

from __future__ import annotations

import asyncio
import math
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from davy.errors import NotFound, StorageFull
from davy.serving.prediction_frames import to_frame, to_records
from davy.serving.predictions import (
    PredictionLog,
    PredictionRecord,
    find_prediction,
    flush_predictions,
    folder_of,
    pending_predictions,
    read_predictions,
)
from davy.serving.unreadable import Unreadable
from davy.store.tables import Table
from davy.store.wal import Wal
from serving_kit import add_version, feature_set

if TYPE_CHECKING:
    from davy.home import Home

FEATURES = feature_set()


def record(number: int, **changes: Any) -> PredictionRecord:
    base = PredictionRecord(
        f"{number:032x}", 1_700_000_000_000_000 + number, 1_700_000_000_000_001 + number, "fraud", 1 + number % 2, "stable", False, f"key-{number}",
        FEATURES.digest, {"card": f"c{number}"}, {"amount": 0.1 * number, "shop": "books", "asked": 1_600_000_000_000_000}, {"payments": number},
        [number, 0.1 + number, None, 1 / 3, 0.1 * number, "books"], number / 7, 900, 60, 300)
    for name, value in changes.items():
        setattr(base, name, value)
    return base


@pytest.fixture
def shop(home: Home) -> Home:
    add_version(home)
    return home


def ids(home: Home) -> list[str]:
    return [name for frame in read_predictions(home, "fraud").values() for name in frame["prediction"]]


def stored(home: Home) -> list[str]:
    table = home.table(f"predictions/fraud/{FEATURES.digest[7:19]}")
    return table.scan().collect()["prediction"].to_list() if table.exists() else []


def test_frames_give_records_back_bit_for_bit() -> None:
    records = [record(1), record(2, output="fraud"), record(3, output=[0.25, 0.75]), record(4, output=math.pi, arm="pinned", pinned=True),
               record(5, values=[None] * 6, entities={"card": None}, request={"amount": None, "shop": None, "asked": None}), record(6, output=True),
               record(7, output=None, status="error", share=0.05, release="r1", answered="f" * 32)]
    assert to_records(to_frame(records, FEATURES), FEATURES) == records


def test_what_is_logged_is_found_before_and_after_it_is_moved(shop: Home) -> None:
    log = PredictionLog(folder_of(shop))
    log.append([record(1), record(2)])
    assert ids(shop) == [record(1).id, record(2).id]
    assert stored(shop) == []
    assert flush_predictions(shop) == 2
    assert flush_predictions(shop) == 0
    log.append([record(3)])
    assert stored(shop) == [record(1).id, record(2).id]
    assert ids(shop) == [record(number).id for number in (1, 2, 3)]
    assert find_prediction(shop, record(1).id) == record(1)
    assert find_prediction(shop, record(3).id) == record(3)
    with pytest.raises(NotFound):
        find_prediction(shop, "f" * 32)
    log.close()


def test_reading_takes_a_slice_of_time_and_one_version(shop: Home) -> None:
    log = PredictionLog(folder_of(shop))
    log.append([record(number) for number in range(10)])
    flush_predictions(shop)
    log.append([record(number) for number in range(10, 20)])
    (frame,) = read_predictions(shop, "fraud", start=1_700_000_000_000_005, end=1_700_000_000_000_015, version=2).values()
    assert frame["prediction"].to_list() == [record(number).id for number in (5, 7, 9, 11, 13)]
    assert read_predictions(shop, "fraud", start=1_800_000_000_000_000) == {}
    assert read_predictions(shop, "nobody") == {}
    log.close()


def test_rows_of_a_table_from_before_shares_and_states_are_read_as_plain_answers(shop: Home) -> None:
    table = shop.table(f"predictions/fraud/{FEATURES.digest[7:19]}")
    table.append(to_frame([record(1)], FEATURES).drop("share", "status", "release", "answered"), writer="old", position=1)
    assert find_prediction(shop, record(1).id) == record(1)
    log = PredictionLog(folder_of(shop))
    log.append([record(2, status="timeout", output=None, share=0.01, release="r1", kernel="k")])
    log.close()
    flush_predictions(shop)
    (frame,) = read_predictions(shop, "fraud").values()
    assert frame.select("share", "status", "release").rows() == [(1.0, "ok", ""), (0.01, "timeout", "r1")]


def test_several_gateways_log_side_by_side_and_the_log_of_a_dead_one_is_moved_and_removed(shop: Home) -> None:
    first, second = PredictionLog(folder_of(shop)), PredictionLog(folder_of(shop))
    first.append([record(1)])
    second.append([record(2)])
    first.close()
    assert flush_predictions(shop) == 2
    assert [path.name for path in folder_of(shop).iterdir() if path.is_dir()] == [second.id]
    second.append([record(3)])
    second.close()
    assert flush_predictions(shop) == 1
    assert sorted(ids(shop)) == [record(number).id for number in (1, 2, 3)]


def test_records_of_an_unknown_feature_set_are_set_aside_once_and_hold_up_nothing(shop: Home, caplog: pytest.LogCaptureFixture) -> None:
    log = PredictionLog(folder_of(shop))
    lost = [record(2, feature_set="sha256:" + "0" * 64), record(3, model="gone", feature_set="sha256:" + "0" * 64)]
    log.append([record(1), *lost, record(4)])
    assert sorted(ids(shop)) == [record(1).id, record(4).id]
    assert flush_predictions(shop) == 2
    path = folder_of(shop) / "unreadable"
    assert str(path) in caplog.text
    (folder_of(shop) / log.id / "moved").write_text("0")
    assert flush_predictions(shop) == 0
    log.append([record(5)])
    log.close()
    assert flush_predictions(shop) == 1
    assert sorted(stored(shop)) == [record(number).id for number in (1, 4, 5)]
    lines = [msgspec.json.decode(line, type=Unreadable) for line in path.read_bytes().splitlines()]
    assert [msgspec.msgpack.decode(line.record, type=PredictionRecord) for line in sorted(lines, key=lambda line: line.position)] == lost


def test_what_is_no_record_or_does_not_fit_is_set_aside_once_and_holds_up_nothing(shop: Home, caplog: pytest.LogCaptureFixture) -> None:
    log = PredictionLog(folder_of(shop))
    misfits = [
        record(2, values=[1, 2.0]), record(3, values=["one", 0.1, None, 0.1, 0.1, "books"]), record(4, entities={"card": 7}), record(6, values=[0.0] * 7)]
    log.append([record(1), *misfits[:2]])
    foreign = [b"", b"\xc1", msgspec.msgpack.encode({"id": "x"}), msgspec.msgpack.encode(["x"] * 18), b"\x92\xa1\xff"]
    log._wal.append(foreign)
    log.append([*misfits[2:], record(5)])
    assert sorted(ids(shop)) == [record(1).id, record(5).id]
    assert find_prediction(shop, record(5).id) == record(5)
    assert flush_predictions(shop) == 2
    assert "no prediction records" in caplog.text
    assert "don't fit the feature set" in caplog.text
    path = folder_of(shop) / "unreadable"
    before = path.read_bytes()
    (folder_of(shop) / log.id / "moved").write_text("0")
    assert flush_predictions(shop) == 0
    assert path.read_bytes() == before
    log.append([record(7)])
    log.close()
    assert flush_predictions(shop) == 1
    assert sorted(stored(shop)) == [record(number).id for number in (1, 5, 7)]
    lines = sorted((msgspec.json.decode(line, type=Unreadable) for line in before.splitlines()), key=lambda line: line.position)
    assert [line.record for line in lines if not line.id] == foreign
    assert [msgspec.msgpack.decode(line.record, type=PredictionRecord) for line in lines if line.id] == misfits


CRASHING = """
import os, sys
from pathlib import Path
from davy.home import Home
from davy.serving import predictions
from davy.store.tables import Table
home = Home(Path(sys.argv[1]))
append = Table.append
def die(self, *args, **kwargs):
    if sys.argv[2] == "after":
        append(self, *args, **kwargs)
    os.kill(os.getpid(), 9)
Table.append = die
predictions.flush_predictions(home)
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_flush_that_is_killed_loses_and_doubles_nothing(shop: Home, moment: str) -> None:
    log = PredictionLog(folder_of(shop))
    log.append([record(number) for number in range(5)])
    found = subprocess.run([sys.executable, "-c", CRASHING, str(shop.root), moment], check=False)
    assert found.returncode == -signal.SIGKILL
    log.append([record(number) for number in range(5, 8)])
    flush_predictions(shop)
    assert sorted(stored(shop)) == [record(number).id for number in range(8)]
    log.close()


WRITING = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from serving.test_predictions import record
from davy.serving.predictions import PredictionLog
log = PredictionLog(Path(sys.argv[1]))
for number in range(100_000):
    log.append([record(number)])
    print(number, flush=True)
"""


def test_a_killed_gateway_loses_nothing_that_it_has_answered(shop: Home) -> None:
    from pathlib import Path

    process = subprocess.Popen([sys.executable, "-c", WRITING, str(folder_of(shop)), str(Path(__file__).parent.parent)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    answered = [int(process.stdout.readline()) for _ in range(300)]
    process.kill()
    answered += [int(line) for line in process.communicate()[0].splitlines() if line]
    flush_predictions(shop)
    found = stored(shop)
    assert len(found) == len(set(found))
    assert {record(number).id for number in answered} <= set(found)


def test_it_is_on_disk_soon_and_at_once_when_that_is_asked(shop: Home) -> None:
    async def ask(log: PredictionLog) -> None:
        log.append([record(1)])
        await asyncio.wait_for(log.on_disk(), 10)
        assert log._wal._synced == 1

    log = PredictionLog(folder_of(shop))
    asyncio.run(ask(log))
    log.append([record(2)])
    deadline = time.monotonic() + 10
    while log._wal._synced < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    log.close()


def test_a_full_disk_refuses_and_goes_on(shop: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file may grow no further: what was taken stays, what was not is told, and there is no half of a record."""
    import resource

    log = PredictionLog(folder_of(shop))
    log.append([record(1)])
    size = next(folder_of(shop).glob("*/*.wal")).stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))
    try:
        with pytest.raises(StorageFull):
            log.append([record(2)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    log.append([record(3)])
    log.close()
    assert flush_predictions(shop) == 2
    assert stored(shop) == [record(1).id, record(3).id]


def test_after_a_failed_sync_what_was_answered_is_written_again(shop: Home) -> None:
    from davy.errors import Unavailable

    class Failing(Wal):
        failed = False

        def sync(self) -> None:
            if not self.failed:
                self.failed = True
                self.cut(self._synced)
                raise Unavailable("The disk said no.")
            super().sync()

    log = PredictionLog(folder_of(shop))
    log._wal.close()
    first = log.id
    log._wal = Failing(folder_of(shop) / log.id)
    log.append([record(1), record(2)])

    async def wait() -> None:
        await asyncio.wait_for(log.on_disk(), 10)

    asyncio.run(wait())
    assert log.id != first
    assert {found.id for found in pending_predictions(shop)} == {record(1).id, record(2).id}
    log.append([record(3)])
    log.close()
    flush_predictions(shop)
    assert sorted(stored(shop)) == [record(number).id for number in (1, 2, 3)]


def test_the_table_is_one_that_others_can_read(shop: Home) -> None:
    log = PredictionLog(folder_of(shop))
    log.append([record(1)])
    log.close()
    flush_predictions(shop)
    table: Table = shop.table(f"predictions/fraud/{FEATURES.digest[7:19]}")
    schema = table.scan().collect_schema()
    assert list(schema) == ["prediction", "time", "logged_time", "model", "version", "arm", "pinned", "routing_key", "feature_set", "entities", "request",
                            "watermarks", "features", "output", "output_json", "latency_us", "features_us", "model_us", "kernel", "share",
                            "status", "release", "answered"]
    assert [field.name for field in schema["features"].fields] == list(FEATURES.outputs)  # type: ignore[attr-defined]
