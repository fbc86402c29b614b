"""Files as histories: a Parquet or CSV file, a folder of such files, or a Delta table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from davy.errors import CorruptData, DavyError, InvalidInput, NotFound
from davy.store.tables import Table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from davy.core.fields import Field

PARQUET, CSV = (".parquet", ".pq"), (".csv", ".csv.gz", ".csv.zst")
_CSV: dict[str, Any] = {"str": pl.String, "int": pl.Int64, "float": pl.Float64, "decimal": pl.Float64, "bool": pl.Boolean}


def scan_source(path: Path, fields: Iterable[Field] = ()) -> pl.LazyFrame:
    """The rows of this file or folder, read when they are needed. A folder's files are taken in the order of their names.

    Args:
        fields: how columns of a CSV are read; others by what their first 10,000 values look like. An empty value is null, and so is
            NA where the field is no text.

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
        return _scan_csv(files, {field.name: field for field in fields})
    wrong = next(file for file in files if not file.name.endswith(PARQUET))
    raise InvalidInput(f"{wrong} can't be read as a source.", "A source is .parquet, .csv, .csv.gz or .csv.zst, or a folder with one kind of them.",
                       "Convert it, or read it yourself and call davy.push.")


def read_source(path: Path, fields: Iterable[Field] = ()) -> pl.DataFrame:
    """All rows of this file or folder; see `scan_source`."""
    try:
        return scan_source(path, fields).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(str(path), error) from error


def unreadable(what: str, error: Exception) -> DavyError:
    """Why a source can't be read: a value of another type than its column, or damage."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, pl.exceptions.ComputeError) and reason.startswith("could not parse"):
        return InvalidInput(f"{what} can't be read: {reason}.",
                            "A column holds values of its field's declared type; elsewhere, of the type that they begin with.",
                            "Mend the value, or change the field's declaration.")
    return CorruptData(f"{what} can't be read: {reason}.", "It is truncated or damaged, or not of the kind that its name says.", "Get the file again.")


def _scan_parquet(files: list[Path]) -> pl.LazyFrame:
    for file in files:
        try:
            pl.scan_parquet(file, glob=False).collect_schema()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise unreadable(str(file), error) from error
    return pl.scan_parquet(files, glob=False, missing_columns="insert", extra_columns="ignore")


def _scan_csv(files: list[Path], fields: dict[str, Field]) -> pl.LazyFrame:
    reading: dict[str, Any] = {"glob": False, "try_parse_dates": False}
    try:
        names = pl.scan_csv(files[0], infer_schema=False, **reading).collect_schema().names()
        kinds = {name: _CSV[fields[name].kind] for name in names if name in fields and fields[name].kind in _CSV}
        lazy = pl.scan_csv(files, infer_schema_length=10_000, schema_overrides=kinds, **reading,
                           null_values={name: "NA" for name in names if kinds.get(name) != pl.String})
        lazy.collect_schema()
    except pl.exceptions.NoDataError:
        raise InvalidInput(f"{files[0]} is empty.", "A CSV file begins with a line of column names.",
                           "Get the file again, or correct source= on the stream.") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(str(files[0]), error) from error
    texts = [name for name, kind in kinds.items() if kind == pl.String]
    return lazy.with_columns(pl.when(pl.col(texts) != "").then(pl.col(texts))) if texts else lazy
