"""Delta tables: exactly once, whole commits only, damage named."""

from __future__ import annotations

import json
import os
import resource
import signal
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from davy.errors import Conflict, CorruptData, StorageFull
from davy.store.tables import Table


def rows(*numbers: int) -> pl.DataFrame:
    return pl.DataFrame({"_offset": list(numbers), "name": [f"n{number}" for number in numbers],
                         "time": [datetime(2020, 1, 1, tzinfo=UTC)] * len(numbers)}).with_columns(pl.col("time").cast(pl.Datetime("us", "UTC")))


def offsets(table: Table) -> list[int]:
    return sorted(table.collect(table.scan())["_offset"].to_list())


def test_an_append_is_taken_once(tmp_path: Path) -> None:
    table = Table(f"file://{tmp_path}/t")
    assert not table.exists()
    assert table.committed("log") == -1
    assert table.files() == []
    assert table.append(rows(1, 2), writer="log", position=2)
    assert not table.append(rows(1, 2), writer="log", position=2)
    again = Table(f"{tmp_path}/t")
    assert not again.append(rows(2), writer="log", position=1)
    assert again.append(rows(3), writer="log", position=3, marks={"load:x": 1})
    assert again.append(rows(1), writer="other", position=1)
    assert offsets(table) == [1, 1, 2, 3]
    assert (table.committed("log"), table.committed("load:x"), table.committed("other")) == (3, 1, 1)
    assert table.schema["time"] == pl.Datetime("us", "UTC")


def test_a_writer_that_stands_elsewhere_is_refused(tmp_path: Path) -> None:
    table = Table(str(tmp_path / "t"))
    assert table.append(rows(1, 2), writer="log", position=2, after=0)
    with pytest.raises(Conflict, match="stands at 2"):
        table.append(rows(1, 2, 3), writer="log", position=3, after=0)
    assert table.append(rows(3), writer="log", position=3, after=2)
    assert not table.append(rows(3), writer="log", position=3, after=2)
    assert offsets(table) == [1, 2, 3]


def test_staged_files_are_invisible_until_committed(tmp_path: Path) -> None:
    table = Table(str(tmp_path / "t"))
    parts = [table.stage(rows(1, 2)), table.stage(rows(3))]
    assert not table.exists()
    assert table.commit(parts, rows(1).clear(), writer="log", position=3)
    assert offsets(table) == [1, 2, 3]
    late = [table.stage(rows(9))]
    assert not table.commit(late, rows(1).clear(), writer="log", position=3)
    assert not (tmp_path / "t" / late[0].path).exists()
    assert table.commit([], rows(1).clear(), writer="log", position=4)
    assert table.committed("log") == 4


def test_columns_are_added_and_types_kept(tmp_path: Path) -> None:
    table = Table(str(tmp_path / "t"))
    table.append(rows(1), writer="log", position=1)
    table.append(rows(2).with_columns(new=pl.lit(7)), writer="log", position=2)
    assert table.collect(table.scan()).sort("_offset")["new"].to_list() == [None, 7]
    with pytest.raises(Conflict, match="'name'"):
        table.append(rows(3).with_columns(name=pl.lit(1.5)), writer="log", position=3)
    assert offsets(table) == [1, 2]


def test_compaction_keeps_the_rows_and_the_positions(tmp_path: Path) -> None:
    table = Table(str(tmp_path / "t"))
    for number in range(1, 8):
        table.append(rows(number), writer="log", position=number)
    reader = Table(str(tmp_path / "t")).scan()
    assert table.compact() == 7
    assert len(table.files()) == 1
    assert offsets(table) == list(range(1, 8))
    assert Table(str(tmp_path / "t")).committed("log") == 7
    assert reader.collect().height == 7


def test_statistics_let_readers_skip(tmp_path: Path) -> None:
    table = Table(str(tmp_path / "t"))
    table.append(rows(4, 9), writer="log", position=9)
    [commit] = (tmp_path / "t" / "_delta_log").glob("*1.json")
    [added] = [line["add"] for line in map(json.loads, commit.read_text().splitlines()) if "add" in line]
    stats = json.loads(added["stats"])
    assert (stats["numRecords"], stats["minValues"]["_offset"], stats["maxValues"]["_offset"]) == (2, 4, 9)
    assert table.collect(table.scan().filter(pl.col("_offset") > 4))["_offset"].to_list() == [9]
    assert table.collect(table.scan().filter(pl.col("time") >= datetime(2020, 1, 1, tzinfo=UTC))).height == 2


def test_truncated_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    table = Table(str(tmp_path / "t"))
    table.append(rows(*range(2000)), writer="log", position=1)
    [path] = map(Path, table.files())
    good = path.read_bytes()
    path.write_bytes(good[:-20])
    with pytest.raises(CorruptData, match=path.name):
        table.scan()
    path.write_bytes(good[:2000] + b"\xff" * 2000 + good[4000:])
    with pytest.raises(CorruptData, match=path.name):
        table.collect(table.scan())
    path.unlink()
    with pytest.raises(CorruptData, match=f"{path.name} is damaged: it is missing"):
        table.files()


def test_a_commit_torn_by_a_power_loss_is_dropped_by_the_writer(tmp_path: Path) -> None:
    table = Table(str(tmp_path / "t"))
    table.append(rows(1), writer="log", position=1)
    (tmp_path / "t" / "_delta_log" / f"{2:020d}.json").write_bytes(b"")
    table = Table(str(tmp_path / "t"))
    assert table.append(rows(2), writer="log", position=2)
    assert offsets(table) == [1, 2]


def test_a_full_disk_adds_nothing(tmp_path: Path) -> None:
    table = Table(str(tmp_path / "t"))
    table.append(rows(1), writer="log", position=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        with pytest.raises(StorageFull):
            table.append(rows(2), writer="log", position=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert table.append(rows(2), writer="log", position=2)
    assert offsets(table) == [1, 2]
    assert not [name for name in os.listdir(tmp_path / "t") if "#" in name]


def test_what_commits_have_appended_is_told_once_each(tmp_path: Path) -> None:
    table = Table(str(tmp_path / "t"))
    assert table.version() == -1
    assert table.added(-1) == []
    for position in range(1, 4):
        table.append(pl.DataFrame({"n": [position] * position}), writer="w", position=position)
    found = table.added(-1)
    assert found is not None
    assert [addition.rows for addition in found] == [1, 2, 3]
    assert [pl.read_parquet(list(addition.files))["n"].to_list() for addition in found] == [[1], [2, 2], [3, 3, 3]]
    assert table.added(found[1].version) == found[2:]
    assert table.added(table.version()) == []
    table.compact()
    assert table.added(found[-1].version) == [], "merging appends nothing"
    assert table.added(-1) == found, "the merged files are kept for a day"


def test_what_was_appended_can_not_be_told_when_it_is_gone(tmp_path: Path) -> None:
    table = Table(str(tmp_path / "t"))
    for position in range(1, 4):
        table.append(pl.DataFrame({"n": [position]}), writer="w", position=position)
    assert table.added(table.version() + 1) is None, "the table is younger than the one that was followed"
    table.compact(keep_hours=0)
    assert table.added(-1) is None
    assert table.added(table.version()) == []
