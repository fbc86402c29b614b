"""Delta Lake tables: Parquet files that any engine can read, appended to exactly once.

Each append carries its writer's position as a Delta app transaction, so that the same append after a crash is a no-op.
Files are on disk before the commit that names them, and the commit is on disk when the call returns.
"""

from __future__ import annotations

import io
import json
import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import msgspec
import polars as pl
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from davy.core.clock import SystemClock
from davy.errors import Conflict, CorruptData, InvalidInput, StorageFull, Unavailable
from davy.store.wal import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROW_GROUP = 256 * 1024
_MAGIC = b"PAR1"
_ESCAPE = re.compile("%[0-9A-Fa-f]{2}")
_FULL = ("No space left", "os error 28", "File too large", "os error 27", "quota", "os error 122")


class Staged(msgspec.Struct, frozen=True):
    """A Parquet file that is written but not part of the table until it is committed."""

    path: str
    size: int
    stats: str


class Addition(msgspec.Struct, frozen=True):
    """What one commit appended: its version, the addresses of its files, and how many rows they say that they have."""

    version: int
    files: tuple[str, ...]
    rows: int


class Table:
    """One table, by the address of its folder (a local path or an object store's URL). Safe to use from several threads.

    Readers in other processes see whole commits only.

    Raises:
        InvalidInput: a local path that Delta Lake would read as another one.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.removeprefix("file://").rstrip("/")
        self.local = None if "://" in self.uri else Path(self.uri)
        if self.local is not None and _ESCAPE.search(str(self.local.absolute())):
            raise InvalidInput(f"The path {self.local} holds a % and two hex digits.", "Delta Lake reads them as an escaped character.",
                               "Rename the folder; every other character is fine.")
        self._delta: DeltaTable | None = None
        self._lock = threading.RLock()

    def exists(self) -> bool:
        """Whether anything was ever appended."""
        return self._fresh() is not None

    def committed(self, writer: str) -> int:
        """The position of this writer's last append, -1 when there is none."""
        delta = self._fresh()
        return -1 if delta is None else _position(delta, writer)

    def append(self, frame: pl.DataFrame, *, writer: str, position: int, after: int | None = None, marks: Mapping[str, int] | None = None) -> bool:
        """Add the rows, once: False, and nothing is added, when this writer's position is there already.

        New columns are added to the table; `marks` are further (writer, position) pairs committed with it. With `after`, the
        writer must stand there (0 before its first append), so that two who take themselves for it can't both go on.

        Raises:
            Conflict: a column has another type than in the table, or the writer stands elsewhere.
            StorageFull, Unavailable: nothing was added.
        """
        if self.committed(writer) >= position:
            return False
        staged = [self.stage(frame)] if frame.height else []
        return self.commit(staged, frame.clear(), writer=writer, position=position, after=after, marks=marks)

    def stage(self, frame: pl.DataFrame) -> Staged:
        """Write the rows to a file of the table's folder, invisible until `commit`."""
        import obstore

        buffer = io.BytesIO()
        frame.write_parquet(buffer, compression="zstd", compression_level=1, row_group_size=ROW_GROUP)
        name = f"part-{SystemClock().token(16).hex()}.parquet"
        try:
            obstore.put(self._store(), name, buffer.getvalue())
            if self.local is not None:
                _sync_file(self.local / name)
        except (obstore.exceptions.BaseError, OSError) as error:
            if self.local is not None:
                (self.local / name).unlink(missing_ok=True)
            raise _failure(self.uri, error) from error
        return Staged(name, buffer.getbuffer().nbytes, _statistics(frame))

    def commit(self, staged: Sequence[Staged], empty: pl.DataFrame, *, writer: str, position: int,
               after: int | None = None, marks: Mapping[str, int] | None = None) -> bool:
        """Make staged files part of the table, all at once and once. `empty` has their columns and no rows."""
        with self._lock:
            try:
                delta = self._writable(empty)
                if _position(delta, writer) >= position:
                    self.discard(staged)
                    return False
                if after is not None and max(_position(delta, writer), 0) != after:
                    raise Conflict(f"{writer!r} stands at {_position(delta, writer)} in {self.uri}, not at {after}.",
                                   "One process appends under a writer's name.", "Open what writes to it again.")
                before = delta.version()
                transactions = [Transaction(name, number) for name, number in {writer: position, **(marks or {})}.items()]
                actions: list[AddAction | RemoveAction] = [AddAction(part.path, part.size, {}, 0, True, part.stats) for part in staged]
                delta.create_write_transaction(actions, "append", delta.schema(), commit_properties=CommitProperties(app_transactions=transactions))
                delta.update_incremental()
                self._sync_commits(before, delta.version())
            except (DeltaError, OSError) as error:
                self._delta = None
                raise _failure(self.uri, error) from error
            return True

    def discard(self, staged: Sequence[Staged]) -> None:
        """Remove staged files that will not be committed."""
        import obstore

        if staged:
            obstore.delete(self._store(), [part.path for part in staged])

    def version(self) -> int:
        """The number of the last commit, -1 when there is none."""
        delta = self._fresh()
        return -1 if delta is None else int(delta.version())

    def added(self, after: int) -> list[Addition] | None:
        """What each commit after this version has appended, in order; merging files appends nothing.

        None when that can't be told any more, because a commit or a file of it is gone: start again from `scan()`.
        """
        last, found = self.version(), list[Addition]()
        if last < after:
            return None
        for version in range(after + 1, last + 1):
            try:
                commit = self._get(f"_delta_log/{version:020d}.json")
            except FileNotFoundError:
                return None
            actions = [json.loads(line) for line in commit.splitlines() if line.strip()]
            adds = [action["add"] for action in actions if action.get("add", {}).get("dataChange")]
            if adds:
                found.append(Addition(version, tuple(f"{self.uri}/{unquote(add['path'])}" for add in adds), sum(_rows(add) for add in adds)))
        if self.local is not None and any(not Path(path).exists() for addition in found for path in addition.files):
            return None
        return found

    def files(self) -> list[str]:
        """The addresses of the Parquet files that make up the table now.

        Raises:
            CorruptData: one is missing or truncated; names it.
        """
        delta = self._fresh()
        if delta is None:
            return []
        added = pl.DataFrame(delta.get_add_actions(flatten=True))
        if self.local is not None:
            for path, size in added.select("path", "size_bytes").iter_rows():
                _check_file(self.local / unquote(path), size)
        return [f"{self.uri}/{unquote(path)}" for path in added["path"]]

    def scan(self) -> pl.LazyFrame:
        """All rows, lazily. Collect with `collect`, which names a damaged file.

        Raises:
            CorruptData: a file is missing or truncated; names it.
        """
        files, delta = self.files(), self._fresh()
        if delta is None:
            return pl.LazyFrame()
        return pl.scan_delta(delta) if self.local is None or delta.protocol().min_reader_version > 1 else _scan_local(files, delta)

    def collect(self, lazy: pl.LazyFrame) -> pl.DataFrame:
        """The result of a query over `scan()`.

        Raises:
            CorruptData: a file can't be read; names it.
        """
        try:
            return lazy.collect()
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            for path in self.files():
                try:
                    pl.scan_parquet(path, glob=self.local is None).collect()
                except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as damage:
                    raise _damaged(path, str(damage)) from damage
            raise error

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """The columns and their types, empty when the table does not exist."""
        delta = self._fresh()
        return {} if delta is None else dict(pl.Schema(delta.schema()))

    def compact(self, *, keep_hours: float = 24) -> int:
        """Merge small files, and delete files that no version younger than `keep_hours` names. Returns how many were merged."""
        with self._lock:
            delta = self._fresh()
            if delta is None:
                return 0
            before, version = set(delta.file_uris()), delta.version()
            try:
                merged = int(delta.optimize.compact()["numFilesRemoved"])
                delta.update_incremental()
                if self.local is not None:
                    for uri in set(delta.file_uris()) - before:
                        _sync_file(Path(unquote(uri.removeprefix("file://"))))
                self._sync_commits(version, delta.version())
                delta.vacuum(retention_hours=int(keep_hours), enforce_retention_duration=False, dry_run=False, full=True)
            except (DeltaError, OSError) as error:
                self._delta = None
                raise _failure(self.uri, error) from error
            return merged

    def _fresh(self) -> DeltaTable | None:
        """The table as of now, or None where there is none."""
        with self._lock:
            try:
                if self._delta is None:
                    if self.local is not None and not (self.local / "_delta_log").exists():
                        return None
                    self._delta = DeltaTable(self.uri)
                else:
                    self._delta.update_incremental()
            except TableNotFoundError:
                return None
            except DeltaError as error:
                self._delta = None
                raise _damaged(f"{self.uri}/_delta_log", str(error)) from error
            return self._delta

    def _writable(self, empty: pl.DataFrame) -> DeltaTable:
        """The table, made or widened so that these columns fit."""
        self._drop_torn_commit()
        delta = self._fresh()
        from arro3.core import Table as Arrow

        wanted = Schema.from_arrow(Arrow(empty).schema)
        if delta is None:
            if self.local is not None:
                self.local.mkdir(parents=True, exist_ok=True)
            self._delta = delta = DeltaTable.create(self.uri, schema=wanted)
            self._sync_commits(-1, 0)
            return delta
        known = {field.name: field for field in delta.schema().fields}
        for field in wanted.fields:
            if field.name in known and known[field.name].type != field.type:
                raise Conflict(f"The column {field.name!r} of {self.uri} is {known[field.name].type}; {field.type} came.",
                               "A column keeps the type that it was made with.", "Give the changed column, or the table, a new name.")
        added = [field for field in wanted.fields if field.name not in known]
        if added:
            delta.alter.add_columns(added)
            delta.update_incremental()
        return delta

    def _drop_torn_commit(self) -> None:
        """After a power loss the newest commit may be there by name only. It was never acknowledged."""
        if self.local is None or self._delta is not None:
            return
        commits = sorted((self.local / "_delta_log").glob("[0-9]*.json"))
        if commits and not _complete(commits[-1].read_bytes()):
            commits[-1].unlink()

    def _sync_commits(self, before: int, after: int) -> None:
        if self.local is None:
            return
        folder = self.local / "_delta_log"
        for version in range(before + 1, after + 1):
            path = folder / f"{version:020d}.json"
            if path.exists():
                _sync_file(path)
        sync_folder(folder)
        sync_folder(self.local)

    def _get(self, path: str) -> bytes:
        import obstore

        try:
            return bytes(obstore.get(self._store(), path).bytes())
        except obstore.exceptions.NotFoundError as error:
            raise FileNotFoundError(path) from error

    def _store(self) -> Any:
        from obstore.store import LocalStore, from_url

        return from_url(self.uri) if self.local is None else LocalStore(self.local, mkdir=True)


def _rows(add: Mapping[str, Any]) -> int:
    return int(json.loads(add.get("stats") or "{}").get("numRecords", 0))


def _scan_local(files: list[str], delta: DeltaTable) -> pl.LazyFrame:
    """The files by their own names: `scan_delta` takes Delta's URL-quoted ones, and a `*` in a folder's name for a pattern."""
    schema = pl.Schema(delta.schema())
    parts = delta.metadata().partition_columns
    if not files:
        return pl.LazyFrame(schema=schema)
    casts = pl.ScanCastOptions(integer_cast="upcast", float_cast=["upcast", "downcast"], datetime_cast=["nanosecond-downcast", "convert-timezone"],
                               missing_struct_fields="insert", extra_struct_fields="ignore")
    hive = {name: kind for name, kind in schema.items() if name in parts}
    found = pl.scan_parquet(files, glob=False, schema={name: kind for name, kind in schema.items() if name not in hive}, cast_options=casts,
                            hive_schema=hive or None, hive_partitioning=bool(hive), missing_columns="insert", extra_columns="ignore")
    return found.select(schema.names()) if hive else found


def _position(delta: DeltaTable, writer: str) -> int:
    version = delta.transaction_version(writer)
    return -1 if version is None else int(version)


def _complete(commit: bytes) -> bool:
    try:
        lines = [json.loads(line) for line in commit.splitlines() if line.strip()]
    except ValueError:
        return False
    return bool(lines)


def _statistics(frame: pl.DataFrame) -> str:
    """Delta's statistics of a file: rows, nulls, and the range of integers and times, by which readers skip it."""
    stats: dict[str, Any] = {"numRecords": frame.height, "minValues": {}, "maxValues": {}, "nullCount": {}}
    for name, low, high, nulls in _ranges(frame):
        stats["nullCount"][name] = nulls
        if low is not None:
            stats["minValues"][name], stats["maxValues"][name] = low, high
    return json.dumps(stats)


def _ranges(frame: pl.DataFrame) -> Iterator[tuple[str, Any, Any, int]]:
    for column in frame.get_columns():
        if column.dtype == pl.Int64:
            yield column.name, column.min(), column.max(), column.null_count()
        elif column.dtype == pl.Datetime("us", "UTC"):
            spelled = pl.Series([column.min(), column.max()], dtype=column.dtype).dt.strftime("%Y-%m-%dT%H:%M:%S.%6fZ")
            yield column.name, spelled[0], spelled[1], column.null_count()
        elif not column.dtype.is_nested():
            yield column.name, None, None, column.null_count()


def _check_file(path: Path, size: int) -> None:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno()).st_size
            file.seek(-len(_MAGIC), os.SEEK_END) if found >= len(_MAGIC) else None
            ending = file.read()
    except FileNotFoundError:
        raise _damaged(str(path), "it is missing") from None
    if found != size:
        raise _damaged(str(path), f"it has {found} bytes, {size} were written")
    if ending != _MAGIC:
        raise _damaged(str(path), "its footer is gone")


def _damaged(path: str, how: str) -> CorruptData:
    return CorruptData(f"{path} is damaged: {how.splitlines()[0] if how else 'it cannot be read'}.",
                       "A table's files never change after they were written.", "Restore the file from a backup.")


def _failure(uri: str, error: Exception) -> Unavailable:
    text = str(error)
    if any(sign in text for sign in _FULL):
        return StorageFull(f"No space to write {uri}: {text.splitlines()[0]}", "What was acknowledged before is safe.", "Free disk space and try again.")
    return Unavailable(f"{uri} could not be written: {text.splitlines()[0] if text else type(error).__name__}.",
                       "What was acknowledged before is safe.", "Check the disk and try again.")


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
