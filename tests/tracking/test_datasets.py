"""A dataset's digest covers every row and every column, however large it is."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas
import polars as pl
import pytest

from davy.errors import InvalidInput, NotFound
from davy.features.training_set import frame_digest
from davy.tracking import run as start_run
from davy.tracking.artifacts import read_artifact
from davy.tracking.datasets import describe, table_bytes
from davy.tracking.inputs import datasets_of

if TYPE_CHECKING:
    from pathlib import Path

    from davy.home import Home

ROWS = 20_000


def _frame() -> pl.DataFrame:
    return pl.DataFrame({"a": np.arange(ROWS), "b": np.linspace(0, 1, ROWS), "c": [f"t{row % 7}" for row in range(ROWS)]})


def test_any_row_and_any_column_counts() -> None:
    frame = _frame()
    digest = describe(frame, "d").digest
    assert digest == describe(frame.lazy(), "d").digest == describe(frame.clone(), "other").digest
    changed = [frame.with_columns(pl.when(pl.col("a") == row).then(-1).otherwise(pl.col("a")).alias("a")) for row in (0, ROWS // 2 + 3, ROWS - 1)]
    others = [*changed, frame.rename({"c": "d"}), frame.head(ROWS - 1), frame.reverse(), frame.cast({"a": pl.Int32}), frame.select("b", "a", "c")]
    assert len({digest, *(describe(other, "d").digest for other in others)}) == 1 + len(others)


def test_the_kinds_of_frames_agree() -> None:
    frame = _frame().select("a", "b")
    table = frame.to_arrow()
    assert describe(table, "d").digest == describe(frame, "d").digest
    same = pandas.DataFrame({name: frame[name].to_numpy() for name in frame.columns})
    assert describe(same, "d").digest == describe(frame, "d").digest
    assert describe(same.set_index("a"), "d").digest != describe(same[["b"]], "d").digest


def test_arrays_by_shape_type_and_content() -> None:
    array = np.arange(24.0).reshape(4, 6)
    other = array.copy()
    other[3, 5] = -1
    digests = [describe(item, "d").digest for item in (array, other, array.reshape(6, 4), array.astype("f4"), array[:0])]
    assert len(set(digests)) == 5
    assert digests[0] == describe(np.asfortranarray(array), "d").digest == describe(array.astype(">f8"), "d").digest


def test_files_by_content_and_folders_by_their_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.csv").write_text("1,2\n")
    (tmp_path / "y.csv").write_text("1,2\n")
    assert describe(tmp_path / "y.csv", "d").digest == describe(str(tmp_path / "a" / "x.csv"), "d").digest
    folder = describe(tmp_path / "a", "d")
    assert str(tmp_path / "a") in folder.source
    (tmp_path / "a" / "z.csv").write_text("")
    assert describe(tmp_path / "a", "d").digest != folder.digest


@pytest.mark.parametrize("data", [7, None, {"a": [1]}, np.array([object()]), np.ma.array([1, 2], mask=[0, 1])])
def test_what_has_no_rows_is_no_dataset(data: Any) -> None:
    with pytest.raises(InvalidInput):
        describe(data, "d")


def test_tables_are_kept_in_the_format_that_their_name_says(home: Home) -> None:
    frame = pl.DataFrame({"a": [1, 2], "b": ["x", None]})
    with start_run(home=home) as run:
        for name in ("t.csv", "deep/t.json", "t.parquet"):
            assert run.table(frame, name) == name
        for data, name in ((frame, "t.xlsx"), ([1], "t.csv")):
            with pytest.raises(InvalidInput):
                run.table(data, name)
    with home.database.read() as connection:
        csv, text, parquet = (read_artifact(connection, home.blobs, run.id, name) for name in ("t.csv", "deep/t.json", "t.parquet"))
    assert (csv, text) == (b"a,b\n1,x\n2,\n", b'{"columns": ["a", "b"], "data": [[1, "x"], [2, null]]}')
    assert pl.read_parquet(parquet).equals(frame)
    odd = pl.DataFrame({"a": [1.5, math.nan, math.inf]})
    assert json.loads(table_bytes(odd, "t.json"), parse_constant=pytest.fail) == {"columns": ["a"], "data": [[1.5], [None], [None]]}


def test_a_run_knows_what_it_read(home: Home, tmp_path: Path) -> None:
    frame = _frame()
    with start_run(home=home) as run:
        digest = run.dataset(frame, "flights", context="training", source="s3://bucket/flights")
        assert run.dataset(frame, "flights", context="training") == digest
        run.dataset(frame.head(10), "flights", context="test")
        with pytest.raises(NotFound, match="no file or folder"):
            run.dataset(tmp_path / "none", "d")
        with pytest.raises(InvalidInput, match="name"):
            run.dataset(frame, "")
    with home.database.read() as connection:
        found = datasets_of(connection, [run.id])[run.id]
    assert {(item.dataset.name, item.dataset.digest, item.tags) for item in found} == {
        ("flights", digest, (("mlflow.data.context", "training"),)),
        ("flights", describe(frame.head(10), "d").digest, (("mlflow.data.context", "test"),))}
    first = next(item.dataset for item in found if item.dataset.digest == digest)
    assert first.source == '{"uri":"s3://bucket/flights"}'
    assert first.profile == f'{{"digest":"{frame_digest(frame)}","num_columns":3,"num_rows":{ROWS}}}'
    assert digest == frame_digest(frame)[7:39]
