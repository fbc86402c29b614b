"""One stream of the open log: its declaration, where it stands, and what has not yet moved into its table."""

from __future__ import annotations

import heapq
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from davy.core.fields import Field
from davy.errors import Conflict, CorruptData, StorageFull, Unavailable
from davy.events.frames import INGEST, OFFSET, batches, table_name, untyped
from davy.events.records import Aside, Column, Rows
from davy.features.definition import EventBatch, StreamSpec
from davy.store.wal import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from davy.home import Home
    from davy.store.tables import Table

WRITER = "log"
CATCH_UP_ROWS = 500_000


class Waiting:
    """The set-aside events of a stream. `position` is that of the oldest write-ahead record that holds one."""

    def __init__(self, spec: StreamSpec) -> None:
        self.spec = spec
        self.ids: set[str] = set()
        self.position = 0
        self._order: list[tuple[int, int]] = []
        self._held: dict[int, tuple[int, dict[str, int | str | None], str | None]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def add(self, aside: Aside, position: int) -> None:
        """Take in what a record holds; a number that is known already is passed over."""
        if not self._held:
            self.position = position
        rows = aside.rows
        for i, number in enumerate(aside.numbers):
            if number not in self._held:
                identity = None if rows.ids is None else rows.ids[i]
                self._held[number] = (rows.times[i], {name: values[i] for name, values in rows.columns.items()}, identity)
                heapq.heappush(self._order, (rows.times[i], number))
                if identity is not None:
                    self.ids.add(identity)

    def due(self, now: int) -> bool:
        """Whether the time of one has come."""
        while self._order and self._order[0][1] not in self._held:
            heapq.heappop(self._order)
        return bool(self._order) and self._order[0][0] <= now

    def take(self, now: int) -> list[int]:
        """The numbers of the events whose time has come, in the order of their times. `forget` or `restore` them."""
        numbers = []
        while self.due(now):
            numbers.append(heapq.heappop(self._order)[1])
        return numbers

    def restore(self, numbers: Iterable[int]) -> None:
        """What was taken waits again."""
        for number in numbers:
            heapq.heappush(self._order, (self._held[number][0], number))

    def forget(self, numbers: Iterable[int]) -> None:
        """These are in the log."""
        for number in numbers:
            held = self._held.pop(number, None)
            if held is not None and held[2] is not None:
                self.ids.discard(held[2])

    def rows(self, numbers: Sequence[int]) -> Rows:
        """The events of these numbers."""
        held = [self._held[number] for number in numbers]
        columns: dict[str, Column] = {field.name: [values.get(field.name) for _, values, _ in held] for field in self.spec.fields}
        return Rows([time for time, _, _ in held], columns, None if self.spec.id is None else [identity or "" for _, _, identity in held])

    def record(self) -> Aside:
        """All that wait, in one record."""
        numbers = sorted(self._held)
        return Aside(self.spec.name, numbers, self.rows(numbers))


class Stream:
    """Attributes:
        offset, ingest: the last that were given out.
        pending: (write-ahead position, batch) of what is not in the table yet, in order.
        loading: whether a history is being loaded; pushes wait.
        behind: whether the online state has to catch up before anything else is applied.
    """

    def __init__(self, spec: StreamSpec, table: Table) -> None:
        self.spec, self.table = spec, table
        self.offset = self.committed = max(table.committed(WRITER), 0)
        self.ingest = 0
        self.pending: list[tuple[int, EventBatch]] = []
        self.waiting = Waiting(spec)
        self.loading = False
        self.behind = False

    @property
    def empty(self) -> bool:
        """Whether it has never had an event, so that nothing holds its declaration."""
        return self.offset == 0 and not self.loading and not len(self.waiting)

    def redeclare(self, spec: StreamSpec) -> None:
        """Go on with this declaration; what waits is null in its new fields."""
        self.spec = self.waiting.spec = spec

    def last_ingest(self) -> int:
        """The ingest time of the last event in the table, 0 when there is none."""
        import polars as pl

        if self.committed == 0:
            return 0
        latest = self.table.collect(self.table.scan().filter(pl.col(OFFSET) == self.committed))
        return int(untyped(self.spec, latest)["_ingest_time"][0])

    def events(self, after: int, columns: frozenset[str] | None = None) -> Iterator[EventBatch]:
        """Everything in the log beyond this offset: what is in the table, then what is pending."""
        import polars as pl

        fields = [field for field in self.spec.fields if columns is None or field.name in columns or field.name == self.spec.id]
        present = self.table.schema
        wanted = [name for name in (OFFSET, INGEST, self.spec.time, *(field.name for field in fields)) if name in present]
        spec = msgspec.structs.replace(self.spec, fields=tuple(fields))
        while after < self.committed:
            until = min(after + CATCH_UP_ROWS, self.committed)
            found = self.table.collect(self.table.scan().filter(pl.col(OFFSET) > after, pl.col(OFFSET) <= until).select(wanted)).sort(OFFSET)
            if found.height != until - after:
                raise CorruptData(f"The table of the stream {self.spec.name!r} has {found.height} of the events {after + 1} to {until}.",
                                  "Offsets have no gaps.", f"Restore {self.table.uri} from a backup.")
            yield from batches(spec, untyped(spec, found))
            after = until
        for _, batch in list(self.pending):
            if batch.last_offset > after:
                yield batch


class Registry:
    """The declarations of a home's streams, kept beside the log so that it can be read without the project."""

    def __init__(self, home: Home) -> None:
        self._folder = home.place("streams", "x").parent

    def load(self) -> list[StreamSpec]:
        """All that were ever declared."""
        return [msgspec.json.decode(path.read_bytes(), type=StreamSpec) for path in sorted(self._folder.rglob("*.json"))]

    def save(self, spec: StreamSpec) -> None:
        """Keep this declaration; it is on disk when the call returns."""
        path = self._folder / f"{spec.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            replace_file(path, msgspec.json.encode(spec))
        except OSError as error:
            kind = StorageFull if error.errno in (28, 122, 27) else Unavailable
            raise kind(f"{path} could not be written: {error.strerror}.", "The stream was not declared.", "Free disk space and try again.") from error


def merged(old: StreamSpec, new: StreamSpec) -> StreamSpec:
    """The new declaration, with the fields that only the old one has.

    Raises:
        Conflict: a field changed its type, or the stream its time or id.
    """
    known: dict[str, Field] = {field.name: field for field in old.fields}
    for field in new.fields:
        if known.get(field.name, field) != field:
            before = known[field.name]
            raise Conflict(f"The field {field.name!r} of the stream {new.name!r} is declared as {field.described}.",
                           f"Its events hold {before.described}.", "Give the changed field a new name.")
    if new.time != old.time or (old.id is not None and new.id != old.id):
        raise Conflict(f"The stream {new.name!r} is declared with time {new.time!r} and id {new.id!r}.",
                       f"Its events have time {old.time!r} and id {old.id!r}.", "Give the changed stream a new name.")
    declared = {field.name for field in new.fields}
    kept = tuple(field for field in old.fields if field.name not in declared)
    return msgspec.structs.replace(new, fields=(*new.fields, *kept))


def shape(spec: StreamSpec) -> dict[str, str]:
    """The unit in which each field's values are stored."""
    return {field.name: f"{field.kind}:{field.scale}" for field in spec.fields}


def extended(old: StreamSpec, other: StreamSpec) -> StreamSpec:
    """The old declaration with the fields that only the other one has; everything else stays as it is.

    Raises:
        Conflict: they differ in a field's type, or in the time, or both have an id and not the same.
    """
    merged(old, msgspec.structs.replace(other, id=other.id if old.id and other.id else old.id))
    known = {field.name for field in old.fields}
    return msgspec.structs.replace(old, fields=(*old.fields, *(field for field in other.fields if field.name not in known)))


def open_stream(home: Home, spec: StreamSpec) -> Stream:
    """The stream as its table has it."""
    return Stream(spec, home.table(table_name(spec.name)))


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; it is on disk when the call returns."""
    beside = path.with_suffix(".new")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync_folder(path.parent)
