"""Files as histories: a Parquet or CSV file, a folder of such files, or a Delta table."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from davy.errors import CorruptData, InvalidInput, NotFound
from davy.store.tables import Table

PARQUET, CSV = (".parquet", ".pq"), (".csv", ".csv.gz", ".csv.zst")


def scan_source(path: Path) -> pl.LazyFrame:
    """The rows of this file or folder, read when they are needed. A folder's files are taken in the order of their names.

    Raises:
        NotFound: no such file, or a folder without data.
        InvalidInput: a kind of file that can't be read.
        CorruptData: truncated or damaged; names the file.
    """
    if not path.exists():
        raise NotFound(f"There is no {path}.", "A source is a Parquet or CSV file, a folder of them, or a Delta table.",
                       "Correct source= on the stream, or the path; it is relative to the project.")
    if (path / "_delta_log").is_dir():
        return Table(str(path)).scan()
    files = [path] if path.is_file() else sorted(found for found in path.rglob("*") if found.name.endswith((*PARQUET, *CSV)))
    if not files:
        raise NotFound(f"{path} holds no Parquet or CSV file.", "", "Put the files there, or correct source= on the stream.")
    if all(file.name.endswith(PARQUET) for file in files):
        return _scan_parquet(files)
    if all(file.name.endswith(CSV) for file in files):
        return _scan_csv(files)
    wrong = next(file for file in files if not file.name.endswith(PARQUET))
    raise InvalidInput(f"{wrong} can't be read as a source.", "A source is .parquet, .csv, .csv.gz or .csv.zst, or a folder with one kind of them.",
                       "Convert it, or read it yourself and call davy.push.")


def read_source(path: Path) -> pl.DataFrame:
    """All rows of this file or folder; see `scan_source`."""
    try:
        return scan_source(path).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _damaged(path, error) from error


def _scan_parquet(files: list[Path]) -> pl.LazyFrame:
    for file in files:
        try:
            pl.scan_parquet(file, glob=False).collect_schema()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise _damaged(file, error) from error
    return pl.scan_parquet(files, glob=False, missing_columns="insert", extra_columns="ignore")


def _scan_csv(files: list[Path]) -> pl.LazyFrame:
    lazy = pl.scan_csv(files, glob=False, infer_schema_length=10_000, null_values=["", "NA"], try_parse_dates=False)
    try:
        lazy.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _damaged(files[0], error) from error
    return lazy


def _damaged(path: Path, error: Exception) -> CorruptData:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CorruptData(f"{path} can't be read: {reason}.", "It is truncated or damaged, or not of the kind that its name says.",
                       "Get the file again.")
