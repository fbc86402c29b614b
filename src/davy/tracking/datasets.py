"""Frames: kept as tables, and as datasets by a digest over every row and column of a frame or array, or over every byte of a file."""

from __future__ import annotations

import hashlib
import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from davy.core.digest import canonical_json
from davy.errors import InvalidInput, MissingExtra, NotFound
from davy.tracking.inputs import Dataset
from davy.tracking.records import LONGEST_EXPERIMENT

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

DIGITS = 32


def describe(data: Any, name: str, source: str = "") -> Dataset:
    """The dataset's record.

    Args:
        data: a polars, pandas or Arrow frame, a numpy array, or the path of a file or folder.
        source: where it is from, for people (default: the path, if it is one).

    Raises:
        InvalidInput: nothing of that kind.
    """
    if not isinstance(name, str) or not name or len(name) > LONGEST_EXPERIMENT:
        raise InvalidInput(f"{name!r} can't be a dataset's name.", f"A name has 1 to {LONGEST_EXPERIMENT} characters.", "Rename it.")
    if isinstance(data, (str, Path)):
        return _file(Path(data), name, source)
    if type(data).__module__.split(".")[0] == "numpy" and hasattr(data, "dtype") and hasattr(data, "tobytes"):
        return _array(data, name, source)
    return _frame(_polars(data), name, source)


def table_bytes(data: Any, name: str) -> bytes:
    """A frame in the format that the name ends with; JSON as MLflow keeps tables: columns and rows."""
    frame, ending, buffer = _polars(data), Path(name).suffix, io.BytesIO()
    if ending == ".json":
        rows = [[None if isinstance(value, float) and not math.isfinite(value) else value for value in row] for row in frame.rows()]  # JSON has no NaN
        return json.dumps({"columns": frame.columns, "data": rows}, default=str).encode()
    if ending not in (".csv", ".parquet"):
        raise InvalidInput(f"{name!r} does not say in which format.", "A table's name ends with .csv, .json or .parquet.", "Write for example rows.parquet.")
    frame.write_csv(buffer) if ending == ".csv" else frame.write_parquet(buffer)
    return buffer.getvalue()


def _frame(frame: pl.DataFrame, name: str, source: str) -> Dataset:
    from davy.features.training_set import frame_digest

    schema = {"columns": [{"name": column, "type": str(kind)} for column, kind in frame.schema.items()]}
    return _dataset(name, frame_digest(frame), "code", source, schema, {"num_rows": frame.height, "num_columns": frame.width})


def _array(array: np.ndarray[Any, Any], name: str, source: str) -> Dataset:
    import numpy as np

    if array.dtype.hasobject:
        raise InvalidInput(f"The dataset {name!r} is an array of Python objects.", "A digest covers numbers, texts and times.",
                           "Give it a dtype, or pass a frame.")
    if isinstance(array, np.ma.MaskedArray):
        raise InvalidInput(f"The dataset {name!r} is a masked array.", "A digest covers every value, and what is masked has none.",
                           "Pass array.filled(...), or a frame with nulls.")
    found = hashlib.sha256(canonical_json([list(array.shape), str(array.dtype.newbyteorder("<"))]))
    found.update(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).view(np.uint8).data if array.size else b"")
    schema = {"shape": list(array.shape), "type": str(array.dtype)}
    return _dataset(name, f"sha256:{found.hexdigest()}", "code", source, schema, {"num_elements": int(array.size)})


def _file(path: Path, name: str, source: str) -> Dataset:
    """A file by its bytes; a folder by its files' paths and bytes."""
    if not path.exists():
        raise NotFound(f"There is no file or folder {path}.", "A dataset is a frame, an array or a path.", "Correct the path.")
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    digests = {file.relative_to(path).as_posix(): _bytes(file) for file in files}
    whole = digests["."] if path.is_file() else hashlib.sha256(canonical_json(digests)).hexdigest()
    size = sum(file.stat().st_size for file in files)
    return _dataset(name, f"sha256:{whole}", "local", source or str(path.resolve()), None, {"num_files": len(files), "num_bytes": size})


def _bytes(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _dataset(name: str, digest: str, kind: str, source: str, schema: dict[str, Any] | None, profile: dict[str, Any]) -> Dataset:
    """The record: its digest is the beginning of the whole one, which stands in the profile; the protocol has room for 36 characters."""
    profile = {**profile, "digest": digest}
    place = {"uri": source} if source else {}
    texts = [None if value is None else canonical_json(value).decode() for value in (schema, profile)]
    return Dataset(name, digest.removeprefix("sha256:")[:DIGITS], kind, canonical_json(place).decode(), *texts)


def _polars(data: Any) -> pl.DataFrame:
    import polars as pl

    if isinstance(data, pl.LazyFrame):
        return data.collect()
    if isinstance(data, pl.Series):
        return data.to_frame()
    if isinstance(data, pl.DataFrame):
        return data
    try:
        if type(data).__module__.split(".")[0] == "pandas":
            return pl.from_pandas(data if hasattr(data, "columns") else data.to_frame(), include_index=not _plain(data.index))
        if hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__"):
            return pl.DataFrame(data)
    except ModuleNotFoundError as error:
        raise MissingExtra(f"A pandas frame needs {error.name}.", "Polars reads its columns with it.", f"pip install {error.name}") from error
    raise InvalidInput(f"A {type(data).__name__} came where a frame was asked for.", "It is a polars, pandas or Arrow frame, a numpy array, or a path.",
                       "Make a frame of it: polars.DataFrame(...)")


def _plain(index: Any) -> bool:
    """Whether a pandas index only counts the rows."""
    return type(index).__name__ == "RangeIndex" and index.name is None
