"""Sorted runs: the log of one stream, sorted by (entity, time, offset), in plain column files that are read by slices.

A run covers a range of offsets. Within it, each event belongs to a *layer*; in a layer the events of an entity are in
order of time and of offset at once. Events that came in order (nearly all) are layer 0; of those that were late, the
ones in order among themselves are layer 1, and so on. So what was known at any moment is one slice per layer, found by
binary search, and no query scans for late events. What is left after `LAYERS` layers is kept `loose`, sorted by time.

Runs are derived from the event table: they may be deleted while nobody reads them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import polars as pl

from davy.errors import CorruptData
from davy.events.frames import OFFSET, stored_type, untyped_field
from davy.features.tiles import NONE_YET as NULL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from davy.core.fields import Field
    from davy.features.definition import StreamSpec
    from davy.store.tables import Table

LAYERS = 7
FORMAT = 2


class Column(msgspec.Struct, frozen=True):
    """What is known of a column's stored values: whether any is null, and the largest absolute value."""

    nulls: bool
    largest: int


class Manifest(msgspec.Struct, frozen=True):
    """What a run holds; written last, so that a folder with a manifest is complete."""

    format: int
    first: int
    last: int
    rows: list[int]
    loose: bool
    columns: dict[str, Column]


class Layer:
    """One layer's columns, opened on demand and let go at once, so that memory stays small.

    Attributes:
        rows: number of events. Column files hold one null more, as an end for slices.
        starts: int64, shape (entities + 1,): the entity with code c has rows starts[c] to starts[c + 1].
    """

    def __init__(self, folder: Path, rows: int, loose: bool) -> None:
        self.folder, self.rows, self.loose = folder, rows, loose
        self.starts = np.load(folder / "_starts.npy")

    def column(self, name: str) -> np.ndarray:
        """int64 stored values, shape (rows + 1,), read-only."""
        found: np.ndarray = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        return found


class Run:
    """An opened run."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self.layers = [Layer(folder / f"layer{index}", rows, manifest.loose and index == LAYERS) for index, rows in enumerate(manifest.rows) if rows]
        self.keys = read_ipc(folder / "_keys.arrow")

    def texts(self, field: str) -> pl.Series:
        """The texts that the codes of a text column stand for."""
        return read_ipc(self.folder / f"{field}.arrow").to_series()


def read_ipc(path: Path) -> pl.DataFrame:
    """An Arrow file by its own name: `*` and `[` in it are no pattern."""
    return pl.scan_ipc(path, glob=False).collect()


class Runs:
    """All runs of one stream for one entity, brought up to date on demand.

    Args:
        folder: theirs alone.
        table: the stream's, with `_offset`, `_ingest_time`, the time column and the fields.
    """

    def __init__(self, folder: Path, stream: StreamSpec, entity: tuple[str, ...], table: Table) -> None:
        self.folder, self.stream, self.entity, self.table = folder, stream, entity, table
        folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def upto(self, last: int) -> Iterator[list[Run]]:
        """Runs that together cover the offsets 1 to `last` (and perhaps more). Within the block nobody merges them away.

        Raises:
            CorruptData: the table lacks some of these events.
        """
        lock = self.folder / "lock"
        while True:
            with shared(lock):
                kept = self._complete()
                if last <= (kept[-1].last if kept else 0):
                    yield [Run(self._place(manifest), manifest) for manifest in kept]
                    return
            with exclusive(lock):
                self._grow(last)

    def _grow(self, last: int) -> None:
        kept = self._complete()
        first = kept[-1].last + 1 if kept else 1
        if first > last:
            return
        while kept and kept[-1].last - kept[-1].first < 2 * (last - first + 1):
            first = kept.pop().first
        kept.append(self._build(first, last))
        self._sweep(kept)

    def _place(self, manifest: Manifest) -> Path:
        return self.folder / f"{manifest.first}-{manifest.last}"

    def _complete(self) -> list[Manifest]:
        """The complete runs that follow each other from offset 1."""
        found: dict[int, Manifest] = {}
        for path in self.folder.glob("*/manifest.json"):
            manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
            current = manifest.format == FORMAT and {field.name for field in self.stream.fields} <= manifest.columns.keys()
            if current and (manifest.first not in found or found[manifest.first].last < manifest.last):
                found[manifest.first] = manifest
        chain: list[Manifest] = []
        while (next_first := chain[-1].last + 1 if chain else 1) in found:
            chain.append(found[next_first])
        return chain

    def _sweep(self, kept: list[Manifest]) -> None:
        names = {self._place(manifest).name for manifest in kept}
        for path in self.folder.iterdir():
            if path.is_dir() and path.name not in names:
                shutil.rmtree(path, ignore_errors=True)

    def _build(self, first: int, last: int) -> Manifest:
        place = self.folder / f".{first}-{last}.{os.getpid()}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        chosen = self.table.scan().filter(pl.col(OFFSET).is_between(first, last))
        arrange, layers, loose = self._arrange(place, chosen, first, last)
        columns = {field.name: self._write_column(place, chosen, field, arrange, layers) for field in self.stream.fields}
        manifest = Manifest(FORMAT, first, last, [len(rows) for rows in layers], loose, columns)
        _on_disk(*(path for path in place.rglob("*") if path.is_file()))
        (place / "manifest.json").write_bytes(msgspec.json.encode(manifest))
        _on_disk(place / "manifest.json")
        final = self._place(manifest)
        shutil.rmtree(final, ignore_errors=True)
        place.rename(final)
        return manifest

    def _arrange(self, place: Path, chosen: pl.LazyFrame, first: int, last: int) -> tuple[np.ndarray | None, list[np.ndarray], bool]:
        """Write the keys, and where each entity's rows begin, with their times and offsets.

        Returns:
            The rows of the table in order of offset (None when they are), then of these the rows of each layer, and whether the last is loose.
        """
        entity = [self.stream.field(name) for name in self.entity]
        skeleton = self.table.collect(chosen.select(OFFSET, pl.col(self.stream.time).cast(pl.Int64).alias("_time"), *map(untyped_field, entity)))
        if skeleton.height != last - first + 1:
            raise CorruptData(
                f"The table of the stream {self.stream.name!r} has {skeleton.height} of the events {first} to {last}.",
                "Offsets have no gaps.",
                f"Restore {self.table.uri} from a backup.",
            )
        arrange = np.argsort(skeleton[OFFSET].to_numpy(), kind="stable") if not skeleton[OFFSET].is_sorted() else None
        if arrange is not None:
            skeleton = skeleton[arrange]
        keys = skeleton.select(self.entity).drop_nulls().unique().sort(self.entity)
        keys.write_ipc(place / "_keys.arrow")
        codes = skeleton.select(self.entity).join(keys.with_row_index("_code"), on=self.entity, how="left", maintain_order="left")["_code"]
        named = codes.is_not_null()
        order = None if named.all() else np.flatnonzero(named.to_numpy())
        code = codes.fill_null(0).to_numpy()
        order = np.argsort(code, kind="stable") if order is None else order[np.argsort(code[order], kind="stable")]
        layers, loose = _layers(code, skeleton["_time"].to_numpy(), order)
        for index, rows in enumerate(layers):
            folder = place / f"layer{index}"
            folder.mkdir()
            np.save(folder / "_starts.npy", np.searchsorted(code[rows], np.arange(keys.height + 1)))
            _save(folder / "_time.npy", skeleton["_time"].to_numpy(), rows)
            _save(folder / "_offset.npy", skeleton[OFFSET].to_numpy(), rows)
        return arrange, layers, loose

    def _write_column(self, place: Path, chosen: pl.LazyFrame, field: Field, arrange: np.ndarray | None, layers: list[np.ndarray]) -> Column:
        name = field.name
        if name in chosen.collect_schema():
            series = self.table.collect(chosen.select(untyped_field(field)))[name]
        else:  # declared after these events were written
            series = pl.select(pl.repeat(None, chosen.select(pl.len()).collect().item(), dtype=stored_type(field)).alias(name)).to_series()
        if field.kind == "str":
            texts = series.drop_nulls().unique().sort()
            texts.to_frame().write_ipc(place / f"{name}.arrow")
            coded = pl.DataFrame({name: series}).join(texts.to_frame().with_row_index("_code"), on=name, how="left", maintain_order="left")
            series = coded["_code"].cast(pl.Int64)
        low, high = series.min(), series.max()
        values = series.fill_null(NULL).to_numpy()
        if arrange is not None:
            values = values[arrange]
        for index, rows in enumerate(layers):
            _save(place / f"layer{index}" / f"{name}.npy", values, rows)
        return Column(series.null_count() > 0, max(abs(int(low or 0)), abs(int(high or 0))))  # type: ignore[arg-type]


def _layers(code: np.ndarray, time: np.ndarray, order: np.ndarray) -> tuple[list[np.ndarray], bool]:
    """Rows per layer, each sorted by (entity, time, offset); whether the last one is loose."""
    layers: list[np.ndarray] = []
    while len(order) and len(layers) < LAYERS:
        frame = pl.DataFrame({"c": code[order], "t": time[order]})
        newest = frame.select(pl.col("t").cum_max().over("c"))["t"].to_numpy()
        in_order = newest == time[order]
        layers.append(order[in_order])
        order = order[~in_order]
    if not len(order):
        return layers, False
    layers.append(order[np.lexsort((order, time[order], code[order]))])
    return layers, True


def _on_disk(*paths: Path) -> None:
    """A manifest must never stand over columns that a power loss left empty."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _save(path: Path, values: np.ndarray, rows: np.ndarray) -> None:
    padded = np.empty(len(rows) + 1, dtype=np.int64)
    np.take(values, rows, out=padded[:-1], mode="clip")  # all are in range; "raise" would go through a copy
    padded[-1] = NULL
    np.save(path, padded)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a file lock alone, so that two processes don't build the same files."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Hold a file lock with other readers, so that nobody takes away what they read."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield
