"""The contract of offline engines over ours, and what only it does: derived files that follow the table."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from davy.engines.offline.base import Spine
from davy.engines.offline.contract import NOON, SALES, SHOP, OfflineEngineContract, ask, batches, obvious, sale
from davy.engines.offline.local import LocalEngine
from davy.engines.offline.runs import LAYERS, Runs
from davy.errors import CorruptData
from davy.events.frames import stored_frame, table_name, typed
from davy.events.streams import WRITER
from davy.features.definition import EventBatch, StreamSpec
from davy.features.online import OnlineFeatures
from davy.home import Home


def grow(home: Home, stream: StreamSpec, events: Sequence[EventBatch]) -> None:
    """Bring the stream's table up to these events."""
    table = home.table(table_name(stream.name))
    stood = max(table.committed(WRITER), 0)
    for batch in events:
        if batch.last_offset > stood:
            frame = typed(stream, stored_frame(stream, [batch])).filter(pl.col("_offset") > stood)
            table.append(frame, writer=WRITER, position=batch.last_offset)


class TestLocal(OfflineEngineContract):
    def engine(self, folder: Path, stream: StreamSpec, events: Sequence[EventBatch]) -> LocalEngine:
        home = Home(folder)
        grow(home, stream, events)
        return LocalEngine(home)


def test_runs_follow_the_table_and_are_merged(tmp_path: Path) -> None:
    home = Home(tmp_path)
    events = [sale(NOON + number, items=number) for number in range(12)]
    for size in range(1, 13):
        grow(home, SALES, batches(events[:size]))
        assert LocalEngine(home).last_offset(SALES) == size
        ask(LocalEngine(home), SHOP, [({"shop": "a"}, NOON + 100, size)])
    folder = tmp_path / ".davy" / "sorted" / "sales" / "shop"
    spans = sorted(tuple(map(int, path.name.split("-"))) for path in folder.iterdir() if path.is_dir())
    assert spans[0][0] == 1
    assert spans[-1][1] == 12
    assert all(left[1] + 1 == right[0] for left, right in pairwise(spans))
    assert len(spans) <= 4, "as many as the size has binary digits"


def test_derived_files_may_be_deleted(tmp_path: Path) -> None:
    home = Home(tmp_path)
    events = [sale(NOON + number, items=number) for number in range(30)]
    grow(home, SALES, batches(events))
    question = ({"shop": "a"}, NOON + 100, 30)
    before = ask(LocalEngine(home), SHOP, [question])
    known = LocalEngine(home).known_at(SALES, np.array([NOON + 20])).tolist()
    shutil.rmtree(tmp_path / ".davy" / "sorted")
    assert ask(LocalEngine(home), SHOP, [question]) == before == [obvious(SHOP, events, *question)]
    assert LocalEngine(home).known_at(SALES, np.array([NOON + 20])).tolist() == known


def test_an_interrupted_build_leaves_nothing_that_counts(tmp_path: Path) -> None:
    home = Home(tmp_path)
    events = [sale(NOON + number, items=number) for number in range(9)]
    grow(home, SALES, batches(events))
    folder = home.place("sorted", "sales", "shop", "lock").parent
    (folder / "1-9").mkdir(parents=True)
    (folder / ".1-9.4711").mkdir()
    question = ({"shop": "a"}, NOON + 100, 9)
    assert ask(LocalEngine(home), SHOP, [question]) == [obvious(SHOP, events, *question)]
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"1-9"}
    ingest = home.place("sorted", "sales", "ingest.i64")
    ingest.write_bytes(b"torn")
    assert LocalEngine(home).known_at(SALES, np.array([NOON + 100])).tolist() == [9]


def test_an_event_that_is_applied_but_not_yet_in_the_table_is_not_looked_at(tmp_path: Path) -> None:
    """The online state may be ahead. A run that was built then must not count as complete."""
    home = Home(tmp_path)
    events = [sale(NOON + number, items=number) for number in range(5)]
    OnlineFeatures(home.online).apply(batches(events)[0])
    grow(home, SALES, batches(events[:3]))
    engine, question = LocalEngine(home), ({"shop": "a"}, NOON + 100, 5)
    assert engine.last_offset(SALES) == 3
    assert ask(engine, SHOP, [question]) == [obvious(SHOP, events[:3], *question)]
    grow(home, SALES, batches(events))
    assert ask(engine, SHOP, [question]) == [obvious(SHOP, events, *question)]
    home.close()


def test_a_table_with_a_gap_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path)
    (batch,) = batches([sale(NOON + number) for number in range(5)])
    frame = typed(SALES, stored_frame(SALES, [batch])).filter(pl.col("_offset") != 2)
    home.table("events/sales").append(frame, writer=WRITER, position=5)
    with pytest.raises(CorruptData, match="4 of the events 1 to 5"):
        ask(LocalEngine(home), SHOP, [({"shop": "a"}, NOON + 100, 5)])


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path)
    grow(home, SALES, batches([sale(NOON + number) for number in range(5)]))
    (file,) = (tmp_path / ".davy" / "tables" / "events" / "sales").glob("*.parquet")
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(CorruptData, match=file.name):
        ask(LocalEngine(home), SHOP, [({"shop": "a"}, NOON + 100, 5)])


def test_runs_stay_while_they_are_read(tmp_path: Path) -> None:
    """Another reader, whose log has grown, would merge them away."""
    home = Home(tmp_path)
    events = [sale(NOON + number, items=number) for number in range(40)]
    grow(home, SALES, batches(events[:20]))
    folder, table = home.place("sorted", "sales", "shop", "lock").parent, home.table("events/sales")
    with Runs(folder, SALES, ("shop",), table).upto(20) as runs:
        grow(home, SALES, batches(events))
        other = threading.Thread(target=ask, args=(LocalEngine(home), SHOP, [({"shop": "a"}, NOON + 100, 40)]))
        other.start()
        other.join(0.3)
        assert other.is_alive()
        assert [len(layer.column("items")) for run in runs for layer in run.layers] == [21]
    other.join()
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["1-40"]


def test_late_events_beyond_all_layers_are_kept_loose(tmp_path: Path) -> None:
    home = Home(tmp_path)
    grow(home, SALES, batches([sale(NOON - number) for number in range(LAYERS + 5)]))
    with Runs(home.place("sorted", "x", "lock").parent, SALES, ("shop",), home.table("events/sales")).upto(LAYERS + 5) as (run,):
        assert [(layer.rows, layer.loose) for layer in run.layers] == [(1, False)] * LAYERS + [(5, True)]


def test_a_field_that_is_declared_later_is_null_in_the_past(tmp_path: Path) -> None:
    home = Home(tmp_path)
    narrow = msgspec.structs.replace(SALES, fields=tuple(field for field in SALES.fields if field.name != "note"))
    events = [sale(NOON + number, items=number, note="new") for number in range(8)]
    grow(home, narrow, batches(events[:4]))
    slim = msgspec.structs.replace(SHOP, features=tuple(feature for feature in SHOP.features if feature.field != "note"))
    LocalEngine(home).aggregate(narrow, slim, Spine(pl.DataFrame({"shop": ["a"]}), np.array([NOON + 100]), np.array([4])))
    grow(home, SALES, batches(events))
    known = [sale(NOON + number, items=number, **({"note": "new"} if number >= 4 else {})) for number in range(8)]
    asked = [({"shop": "a"}, NOON + 100, mark) for mark in (3, 4, 5, 8)]
    assert ask(LocalEngine(home), SHOP, asked) == [obvious(SHOP, known, *question) for question in asked]
