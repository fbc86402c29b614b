"""Loading a whole history: validated and stamped column by column, staged as Parquet files, and committed at once.

The table's commit is the durability here; until it, nothing of the history is visible, and after it all of it is. It carries the
digest of the content, by which the same history is recognised when it comes again.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from davy.core.clock import new_id
from davy.core.fields import Field
from davy.errors import DavyError, InvalidInput, InvalidTime
from davy.events.frames import INGEST, OFFSET, ContentDigest, stored_type, typed, untyped_field
from davy.events.records import Aside, Receipt, Rows, encode
from davy.events.segments import record, segment_of
from davy.events.sources import unreadable
from davy.events.streams import WRITER, Stream
from davy.features.columns import encode_column, encode_times
from davy.features.keys import encode_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from davy.events.log import EventLog
    from davy.events.segments import Segment
    from davy.features.definition import StreamSpec
    from davy.store.tables import Staged

CHUNK = 500_000
LOOKUP_COST = 20  # looking one id up costs as much as reading so many of the table's
MOST_JOINED = 5_000_000
_FIRST = "_first"


def load(log: EventLog, state: Stream, frame: pl.DataFrame | pl.LazyFrame) -> Receipt:
    """Append the history; see `EventLog.append_history`."""
    with _alone(log, state):
        loader = _Loader(log, state, frame)
        try:
            return loader.load()
        except BaseException:
            state.table.discard(loader.staged)
            raise


@contextmanager
def _alone(log: EventLog, state: Stream) -> Iterator[None]:
    """Pushes to this stream wait; those before are in the table, and the online state knows their ids; no other history of it is being loaded."""
    with log.idle:
        log.idle.wait_for(lambda: not state.loading)
        state.loading = True
    try:
        with log.committing:
            if state.behind:
                log.catch_up(state)
        log.mover.flush()
        yield
    finally:
        with log.idle:
            state.loading = False
            log.idle.notify_all()


class _Loader:
    def __init__(self, log: EventLog, state: Stream, frame: pl.DataFrame | pl.LazyFrame) -> None:
        self.log, self.state, self.spec = log, state, state.spec
        self.now = log.home.clock.now()
        self.staged: list[Staged] = []
        self.offset, self.ingest = state.offset, state.ingest
        self.duplicates = self.clamped = 0
        self.later: list[Rows] = []
        self.segments: list[Segment] = []
        self.digest = ContentDigest()
        self.looked_up = True
        self.source = _Source(self.spec, frame)
        self.empty = typed(self.spec, pl.DataFrame(schema={OFFSET: pl.Int64, INGEST: pl.Int64, self.spec.time: pl.Int64,
                                                           **{field.name: stored_type(field) for field in self.spec.fields}}))

    def load(self) -> Receipt:
        """Stage all chunks, then make them part of the log."""
        state, total = self.state, self.source.height
        self.looked_up = not self._join_ids()
        for base, stored in self.source.chunks():
            self._stage(base, stored)
        key = f"load:{self.digest.hexdigest()}"
        if state.table.committed(key) >= 0:
            state.table.discard(self.staged)
            return Receipt(self.spec.name, duplicates=total, ingest_time=state.ingest)
        accepted = self.offset - state.offset
        first = state.offset + 1 if accepted else 0
        aside = sum(map(len, self.later))
        self._commit(key, accepted)
        return Receipt(self.spec.name, accepted, self.duplicates, aside, first, self.offset if accepted else 0, self.ingest, self.clamped)

    def _stage(self, base: np.ndarray[Any, np.dtype[np.int64]], stored: pl.DataFrame) -> None:
        """Take the new events of one chunk, which is in the order of the log."""
        self.digest.update(stored.drop(_FIRST, strict=False))
        times = stored[self.spec.time].to_numpy()
        ahead = times > self.now + self.spec.tolerance
        new = self._new(stored)
        if ahead.any():
            self.later.append(_rows(self.spec, stored.filter(pl.Series(ahead & new))))
        self.duplicates += int((~new).sum())
        taken = new & ~ahead
        count = int(taken.sum())
        if not count:
            return
        step = np.arange(count, dtype=np.int64)
        arrived = np.minimum(base[taken], self.now)
        if self.state.offset:
            self.clamped += int((arrived < self.state.ingest).sum())
        arrived[0] = max(arrived[0], self.ingest + 1)
        ingest = np.maximum.accumulate(arrived - step) + step
        part = stored if count == stored.height else stored.filter(pl.Series(taken))
        part = part.with_columns(pl.Series(OFFSET, step + self.offset + 1), pl.Series(INGEST, ingest))
        self.staged.append(self.state.table.stage(typed(self.spec, part)))
        self.segments.append(segment_of(self.spec.name, part.select(self.empty.columns)))
        self.offset += count
        self.ingest = int(ingest[-1])

    def _new(self, stored: pl.DataFrame) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which events of a chunk are not in the log; those that come twice in the source were left out before."""
        if self.spec.id is None:
            return np.ones(stored.height, dtype=bool)
        fresh: np.ndarray[Any, np.dtype[np.bool_]] = stored[_FIRST].to_numpy().copy()
        if not self.looked_up:
            return fresh
        waiting, table = self.state.waiting.ids, f"ids/{self.spec.name}"
        if self.state.offset or waiting:
            with self.log.online.store.snapshot() as snapshot:
                for i, identity in enumerate(stored[self.spec.id].cast(pl.String)):
                    if fresh[i] and (identity in waiting or snapshot.get(table, encode_id(identity)) is not None):
                        fresh[i] = False
        return fresh

    def _join_ids(self) -> bool:
        """Leave out the events whose ids the table has, all at once, unless looking up each is cheaper or these are too many; whether it was done."""
        source, offset = self.source, self.state.offset
        if self.spec.id is None or source.first is None or not offset or offset > LOOKUP_COST * source.height or offset + source.height > MOST_JOINED:
            return False
        field = self.spec.field(self.spec.id)
        ids = source.ids(field)
        if ids is None:
            return False
        table = self.state.table
        known = ids.is_in(table.collect(table.scan().select(untyped_field(field))).to_series().implode())
        if self.state.waiting.ids:
            known |= ids.cast(pl.String).is_in(pl.Series(list(self.state.waiting.ids), dtype=pl.String).implode())
        source.first &= ~known.to_numpy()
        return True

    def _commit(self, key: str, accepted: int) -> None:
        log, state, name, attempt = self.log, self.state, self.spec.name, new_id(self.log.home.clock)
        with log.committing:
            log.check_open()
            records = [Aside(name, [log.next_number() for _ in range(len(rows))], rows, attempt) for rows in self.later]
            if records:
                log.wal.append([encode(record) for record in records])
                log.wal.sync()
            position = log.wal.last - len(records)
            if accepted:
                state.table.commit(self.staged, self.empty, writer=WRITER, position=self.offset, after=state.offset,
                                   marks={key: 1, f"aside:{attempt}": 1})
            else:
                state.table.commit([], self.empty, writer=key, position=1, marks={f"aside:{attempt}": 1})
            self.staged = []
            state.offset, state.ingest, state.committed = self.offset, self.ingest, self.offset
            state.behind = True
            for number, aside in enumerate(records, position + 1):
                state.waiting.add(aside, number)
        log.mover.note(0)
        record(log.home, self.spec, state.table, self.segments)
        with log.committing:
            log.catch_up(state)


class _Source:
    """A history in stored form and in the order of the log: by when each event counts as arrived, then as it came."""

    def __init__(self, spec: StreamSpec, frame: pl.DataFrame | pl.LazyFrame) -> None:
        self.spec, self.frame = spec, frame
        self.fields = [Field(spec.time, "time"), *spec.fields]
        wanted = [field.name for field in self.fields] + ([spec.ingest] if spec.ingest else [])
        known = frame.lazy().collect_schema().names()
        for name in wanted:
            if name not in known:
                raise InvalidInput(f"The history of {spec.name!r} has no column {name!r}.",
                                   f"It has: {', '.join(known)}.", "Rename the column, or change the stream.")
        keys = _collect(frame.lazy().select({spec.time, *([spec.ingest] if spec.ingest else []), *([spec.id] if spec.id else [])}))
        self.height = keys.height
        times = self._times(keys, spec.time)
        base = times + spec.delay
        if spec.ingest:
            said = encode_times(keys[spec.ingest], Field(spec.ingest, "time"), events=True)
            base = np.where(said.is_null().to_numpy(), base, said.fill_null(0).to_numpy())
        base = np.where(times > base + spec.tolerance, times, base)
        self.order = None if bool(np.all(base[1:] >= base[:-1])) else np.argsort(base, kind="stable")
        self.base = base if self.order is None else base[self.order]
        self.first = self._first_of_id(keys)
        self._ids = keys[spec.id] if spec.id else None

    def ids(self, field: Field) -> pl.Series | None:
        """In the order of the log, each event's id in stored form, asked for once; None when one is wrong, which is told with its row when it is read."""
        raw, self._ids = self._ids, None
        assert raw is not None
        try:
            stored = encode_column(raw, field)
        except InvalidInput:
            return None
        return stored if self.order is None else stored[self.order]

    def chunks(self) -> Iterator[tuple[np.ndarray[Any, np.dtype[np.int64]], pl.DataFrame]]:
        """(arrival times, events) of consecutive parts."""
        for start, stored in self._in_order():
            end = start + stored.height
            if self.first is not None:
                stored = stored.with_columns(pl.Series(_FIRST, self.first[start:end]))
            yield self.base[start:end], stored

    def _in_order(self) -> Iterator[tuple[int, pl.DataFrame]]:
        starts = range(0, self.height, CHUNK)
        if self.order is None:
            for start in starts:
                yield start, self._stored(_collect(self.frame.lazy().slice(start, CHUNK)), start)
        elif isinstance(self.frame, pl.DataFrame):
            whole = self._stored(self.frame, 0)
            for start in starts:
                yield start, whole[self.order[start : start + CHUNK]]
        else:
            yield from self._sorted_on_disk(self.order)

    def _sorted_on_disk(self, order: np.ndarray[Any, np.dtype[np.int64]]) -> Iterator[tuple[int, pl.DataFrame]]:
        """Each slice of the source becomes a sorted file; each chunk of the log is gathered from all of them."""
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        folder = Path(tempfile.mkdtemp(prefix="davy-history-"))
        try:
            for start in range(0, self.height, CHUNK):
                stored = self._stored(_collect(self.frame.lazy().slice(start, CHUNK)), start)
                stored = stored.with_columns(pl.Series("_rank", rank[start : start + CHUNK])).sort("_rank")
                stored.write_parquet(folder / f"{start}.parquet", compression="lz4", row_group_size=CHUNK // 16)
            runs = pl.scan_parquet(sorted(folder.glob("*.parquet")), glob=False)
            for start in range(0, self.height, CHUNK):
                yield start, runs.filter(pl.col("_rank").is_between(start, start + CHUNK - 1)).collect().sort("_rank").drop("_rank")
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _stored(self, raw: pl.DataFrame, start: int) -> pl.DataFrame:
        columns = [pl.Series(self.spec.time, self._times(raw, self.spec.time, start))]
        for field in self.spec.fields:
            try:
                columns.append(encode_column(raw[field.name], field).alias(field.name))
            except InvalidInput:
                raise self._wrong(raw[field.name], field, start) from None
        return pl.DataFrame(columns)

    def _times(self, frame: pl.DataFrame, name: str, start: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
        if frame[name].null_count():
            row = int(frame[name].is_null().arg_max() or 0)
            raise InvalidTime(f"Row {start + row} has no {name!r}.", f"{name!r} is the time of the stream {self.spec.name!r}.",
                              "Leave such rows out, or give them a time.")
        return encode_times(frame[name], Field(name, "time"), events=True).to_numpy()

    def _wrong(self, values: pl.Series, field: Field, start: int) -> DavyError:
        """What is wrong with the first wrong value, by its row in the whole source."""
        for row, value in enumerate(values):
            try:
                field.encode(value)
            except InvalidInput as error:
                return type(error)(f"Row {start + row}: {error.came}", error.allowed, error.fix)
        return InvalidInput(f"The column {field.name!r} is {values.dtype}.", f"It is declared as {field.kind}.", "Cast it, or change the declaration.")

    def _first_of_id(self, keys: pl.DataFrame) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
        """In the order of the log, which events are the first with their id."""
        name = self.spec.id
        if name is None:
            return None
        if keys[name].null_count():
            row = int(keys[name].is_null().arg_max() or 0)
            raise InvalidInput(f"Row {row} has no {name!r}.", f"{name!r} is the id of the stream {self.spec.name!r}.", "Give every event its id.")
        ids = keys[name] if self.order is None else keys[name][self.order]
        first: np.ndarray[Any, np.dtype[np.bool_]] = ids.is_first_distinct().to_numpy().copy()
        return first


def _rows(spec: StreamSpec, stored: pl.DataFrame) -> Rows:
    ids = None if spec.id is None else stored[spec.id].cast(pl.String).to_list()
    return Rows(stored[spec.time].to_list(), {field.name: stored[field.name].to_list() for field in spec.fields}, ids)


def _collect(lazy: pl.LazyFrame) -> pl.DataFrame:
    try:
        return lazy.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable("The history", error) from error
