"""The event log of one home. Whoever holds its lock is the only writer.

A push is validated, then stamped together with all others that wait (ids looked up, offsets and ingest times given out),
written ahead with one sync, applied to the online state, and acknowledged. Reads therefore never see what could be lost,
and the order on disk is the order of the offsets.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from davy.core.time import parse_duration
from davy.errors import Conflict, CorruptData, DavyError, NotFound, Unavailable, nearest
from davy.events.mover import Mover
from davy.events.records import Aside, Closed, Held, Receipt, Rows, Taken, decode, encode
from davy.events.rows import encode_rows
from davy.events.stamp import Entry, Push, stamp
from davy.events.streams import Registry, Stream, extended, merged, open_stream, shape
from davy.store.wal import Wal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import polars as pl

    from davy.features.definition import StreamSpec, ViewSpec
    from davy.features.online import OnlineFeatures
    from davy.home import Home

SEGMENT_BYTES = 32 << 20
BUILD_ROWS = 20_000
_LOG = logging.getLogger("davy.events")


class EventLog:
    """The open log. Safe to use from several threads, whose pushes share one sync.

    Args:
        home: whose log; its clock stamps.
        online: the online state that pushes are applied to.
        hooks: called at the end of each `flush`, such as to move what other logs hold; a failure of theirs is logged.

    Raises:
        Held: another process holds the log.
        CorruptData: the write-ahead log or a table is damaged.
    """

    def __init__(self, home: Home, online: OnlineFeatures, *, hooks: Sequence[Callable[[], None]] = ()) -> None:
        self.home, self.online = home, online
        self._descriptor = take_lock(home.place("log.lock"))
        try:
            self._registry = Registry(home)
            self.streams: dict[str, Stream] = {}
            self.committing = threading.Lock()
            self.idle = threading.Condition()
            self._queue: deque[Push] = deque()
            self._numbers = 0
            self._failure: Closed | None = None
            self.wal = Wal(home.place("wal", "events"), segment_bytes=SEGMENT_BYTES)
            self._recover()
            self.mover = Mover(self, hooks, every=parse_duration(home.config.events.flush_every) / 1e6, rows=home.config.events.flush_rows)
            self.mover.start()
        except BaseException:
            os.close(self._descriptor)
            raise

    def declare(self, spec: StreamSpec, *, keep: bool = False) -> StreamSpec:
        """Make the stream known, or go on with a changed declaration; returns it with the fields that only its past has.
        A stream without any event takes every declaration.

        Args:
            keep: a stream that is known keeps its tolerance, delay, source and so on, and only gains fields: for a declaration of
                another time, such as that of a model that was trained long ago.

        Raises:
            Conflict: a field changed its type, or the stream its time or id.
        """
        found = self.streams.get(spec.name)
        if found is not None and found.spec == spec:
            return spec
        with self.mover.flushing:
            found = self.streams.get(spec.name)
            if found is None:
                self._registry.save(spec)
                with self.committing:
                    self.streams[spec.name] = open_stream(self.home, spec)
                return spec
            with self.committing:
                try:
                    whole = extended(found.spec, spec) if keep else merged(found.spec, spec)
                except Conflict:
                    if keep or not found.empty or any(push.state is found for push in self._queue):
                        raise
                    whole = spec
                    self.online.forget(spec.name)
                if whole != found.spec:
                    self._registry.save(whole)
                    found.redeclare(whole)
            return whole

    def append(self, stream: str, rows: Sequence[Mapping[str, Any]]) -> Receipt:
        """Take the rows: durable and readable when the call returns. One wrong row refuses them all.

        Raises:
            NotFound: no such stream was declared.
            InvalidInput: names the row and the field.
            StorageFull, Unavailable: nothing was taken.
        """
        return self.append_encoded(stream, encode_rows(self.stream(stream).spec, rows))

    def append_encoded(self, stream: str, rows: Rows, units: Mapping[str, str] | None = None) -> Receipt:
        """`append` for rows in stored form.

        Args:
            units: in which they are stored; see `shape`.

        Raises:
            Conflict: the stream is declared in other units by now.
        """
        state = self.stream(stream)
        if units is not None and (known := shape(state.spec)) != units and any(known.get(name, unit) != unit for name, unit in units.items()):
            raise Conflict(f"The stream {stream!r} has been declared anew since this process read its declaration.", "",
                           "Send it again; where the project's files have changed, start the process again.")
        if not len(rows):
            return Receipt(stream, ingest_time=state.ingest)
        self.mover.throttle()
        push = Push(state, rows)
        self._queue.append(push)
        while not push.done:
            with self.committing:
                if not push.done:
                    self.commit()
            if not push.done:
                with self.idle:
                    self.idle.wait_for(lambda: not state.loading)
        if push.error is not None:
            raise push.error
        return push.receipt

    def append_history(self, stream: str, frame: pl.DataFrame | pl.LazyFrame) -> Receipt:
        """Take a whole history, all or nothing, straight into the table. An event counts as arrived `delay` after its time,
        or when the declared ingest column says; never before what the log has already, and never after now.

        The same content a second time is recognised and counted as duplicates. A lazy frame is read in chunks.

        Raises:
            InvalidInput: a missing column, or a wrong value with its row.
        """
        from davy.events.history import load

        return load(self, self.stream(stream), frame)

    def ensure_views(self, views: Iterable[tuple[StreamSpec, ViewSpec]]) -> None:
        """Keep these views up to date in the online state from now on; a new one is built from the whole log first.
        A stream's settings stay as they are; fields that it lacks are added.

        Raises:
            Conflict: a field has another type than its events, or the stream another time or id.
        """
        kept = {view.digest for _, view in self.online.views()}
        for spec, view in views:
            if view.digest in kept:
                continue
            self.declare(spec, keep=True)  # raises where a field's stored integers would be read in another unit
            self._build(self.streams[spec.name], view)

    def _build(self, state: Stream, view: ViewSpec) -> None:
        """Build a view's past while the log goes on; only the last stretch, and writing it down, holds the log up."""
        building = self.online.begin(state.spec, view)
        if building is None:
            return
        name, fields = state.spec.name, fields_of([view])
        while self.online.mark(name).offset - building.offset > BUILD_ROWS:
            self.check_open()
            building.advance(state.events(building.offset, fields), self.online.mark(name).offset)
        with self.mover.flushing, self.committing:
            self.check_open()
            building.advance(state.events(building.offset, fields), self.online.mark(name).offset)
            self.online.adopt(building)

    def flush(self) -> None:
        """Move everything into the tables now."""
        self.check_open()
        self.mover.flush()

    def stream(self, name: str) -> Stream:
        """The open stream of that name."""
        self.check_open()
        found = self.streams.get(name)
        if found is None:
            raise NotFound(f"There is no stream {name!r}.", nearest(name, self.streams), "Declare it in features.py, and load or push with that name.")
        return found

    def close(self) -> None:
        """Move everything into the tables and let go of the lock. Closing twice is a no-op."""
        if self._descriptor < 0:
            return
        self.mover.stop()
        try:
            self.mover.flush()
        except DavyError as error:
            _LOG.warning("The log closes with events that are not in the tables yet; they move at the next start: %s", error.came)
        self.abandon()

    def abandon(self) -> None:
        """Let go of the lock without moving anything: what is acknowledged is in the write-ahead log."""
        self.mover.stop()
        with self.mover.flushing, self.committing:
            if self._descriptor >= 0:
                self._failure = self._failure or Closed("The log is closed.", "", "Connect again.")
                for push in self._queue:
                    push.fail(self._failure)
                self._queue.clear()
                self.wal.close()
                self.online.store.sync()
                os.close(self._descriptor)
                self._descriptor = -1

    def commit(self) -> None:
        """Stamp, write ahead, sync and apply all pushes that wait, and the set-aside events that are due. Needs `committing`."""
        self.check_open()
        groups = self._groups(now := self.home.clock.now())
        if not groups:
            return
        try:
            self._commit(groups, now)
        except BaseException as error:
            # Whatever this is, the write-ahead log may hold more than memory knows of: only opening it anew makes them agree.
            self._failure = Closed(f"The log stopped at {error!r}.", "What was acknowledged is safe.", "Connect again.")
            unknown = Unavailable(f"The log stopped at {error!r}.", "The events may or may not have been taken.",
                                  "Send them again: those with an id are taken once.")
            for pushes in groups.values():
                for push in pushes:
                    push.fail(unknown)
            raise

    def _commit(self, groups: dict[Stream, list[Push]], now: int) -> None:
        entries: list[Entry] = []
        records: list[bytes] = []
        try:
            for state in groups:
                if state.behind:
                    self.catch_up(state)
            with self.online.store.snapshot() as snapshot:
                entries += [stamp(state, pushes, now, snapshot, self.next_number) for state, pushes in groups.items()]
            for entry in entries:
                entry.position = self.wal.last + len(records)
                records += [encode(record) for record in (entry.taken, entry.aside) if record is not None]
            if records:
                self.wal.append(records)
                self.wal.sync()
        except DavyError as error:
            for pushes in groups.values():
                for push in pushes:
                    push.fail(error)
            for entry in entries:
                entry.undo()
            return
        for number, entry in enumerate(entries):
            try:
                self._enter(entry)
            except DavyError as error:
                self.wal.cut(entry.position)
                for late in entries[number:]:
                    late.undo()
                    for push in late.pushes:
                        push.fail(error)
                return
            for push in entry.pushes:
                push.done = True

    def _enter(self, entry: Entry) -> None:
        state, position = entry.state, entry.position
        if entry.taken is not None:
            position += 1
            self.online.apply(entry.taken.batch)
            state.pending.append((position, entry.taken.batch))
            state.waiting.forget(entry.taken.released)
            self.mover.note(len(entry.taken.batch))
        if entry.aside is not None:
            state.waiting.add(entry.aside, position + 1)
            self.mover.note(0)

    def _groups(self, now: int) -> dict[Stream, list[Push]]:
        groups: dict[Stream, list[Push]] = {state: [] for state in self.streams.values() if not state.loading and state.waiting.due(now)}
        for _ in range(len(self._queue)):
            push = self._queue.popleft()
            if push.state.loading:
                self._queue.append(push)
            else:
                groups.setdefault(push.state, []).append(push)
        return groups

    def catch_up(self, state: Stream) -> None:
        """Apply what the log has and the online state has not."""
        name = state.spec.name
        mark = self.online.mark(name)
        if mark.offset > state.offset:
            raise CorruptData(f"The log of the stream {name!r} ends at event {state.offset}, but {mark.offset} were acknowledged.",
                              "The write-ahead log or the table has lost events.",
                              f"Restore {self.wal.directory} and {state.table.uri} from a backup, or delete {self.home.path / 'online'} to go on without them.")
        if mark.offset < state.offset:
            views = [view for spec, view in self.online.views() if spec.name == name]
            for batch in state.events(mark.offset, fields_of(views)):
                self.online.apply(batch)
        state.behind = False

    def _recover(self) -> None:
        for spec in self._registry.load():
            self.streams[spec.name] = open_stream(self.home, spec)
        for position, data in self.wal.replay():
            record = decode(data)
            name = record.stream if isinstance(record, Aside) else record.batch.stream
            state = self.streams.get(name)
            if state is None:
                raise CorruptData(f"The write-ahead log holds events of the stream {name!r}, whose declaration is gone.", "",
                                  f"Restore {self.home.path / 'streams'} from a backup.")
            if isinstance(record, Taken):
                self._recover_taken(state, record, position)
            elif not record.load or state.table.committed(f"aside:{record.load}") >= 0:
                state.waiting.add(record, position)
                self._numbers = max(self._numbers, *record.numbers)
        for state in self.streams.values():
            if state.ingest == 0:
                mark = self.online.mark(state.spec.name)
                state.ingest = mark.ingest_time if mark.offset == state.offset else state.last_ingest()
            self.catch_up(state)

    def _recover_taken(self, state: Stream, record: Taken, position: int) -> None:
        batch = record.batch
        if batch.last_offset > state.committed:
            if batch.first_offset != state.offset + 1:
                raise CorruptData(f"The log of the stream {batch.stream!r} goes on with event {batch.first_offset} after {state.offset}.",
                                  "Offsets have no gaps.", f"Restore {self.wal.directory} and {state.table.uri} from a backup.")
            state.pending.append((position, batch))
            state.offset = batch.last_offset
        state.ingest = max(state.ingest, batch.ingest[-1])
        state.waiting.forget(record.released)
        self._numbers = max([self._numbers, *record.released])

    def next_number(self) -> int:
        """A number that no set-aside event has had."""
        self._numbers += 1
        return self._numbers

    def check_open(self) -> None:
        """Raise `Closed` if it is."""
        if self._failure is not None:
            raise Closed(self._failure.came, self._failure.allowed, self._failure.fix)


def fields_of(views: Iterable[ViewSpec]) -> frozenset[str]:
    """The fields that these views read."""
    return frozenset(name for view in views for name in (*view.entity, *(feature.field for feature in view.features if feature.field)))


def take_lock(path: Path) -> int:
    """The descriptor of the locked file; closing it, or the end of the process, frees the lock.

    Raises:
        Held: another holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise Held(f"Another process holds the log of {path.parent}.", "One process writes at a time.",
                   "Connect to it: davy.events.client.connect(home)") from None
    return descriptor
