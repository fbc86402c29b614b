"""Stamping: which of the waiting events enter the log now, at which offsets and ingest times."""

from __future__ import annotations

from typing import TYPE_CHECKING

from davy.events.records import Aside, Receipt, Rows, Taken
from davy.features.definition import EventBatch
from davy.features.keys import encode_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from davy.engines.online.base import Snapshot
    from davy.errors import DavyError
    from davy.events.streams import Stream


class Push:
    """One caller's events on their way into the log. The caller waits until `done`."""

    __slots__ = ("done", "error", "receipt", "rows", "state")

    def __init__(self, state: Stream, rows: Rows) -> None:
        self.state, self.rows = state, rows
        self.receipt = Receipt(state.spec.name)
        self.error: DavyError | None = None
        self.done = False

    def fail(self, error: DavyError) -> None:
        """Nothing of it was taken."""
        self.error = type(error)(error.came, error.allowed, error.fix)
        self.done = True


class Entry:
    """What one commit writes for one stream. `position` is the write-ahead log's before it."""

    __slots__ = ("aside", "before", "position", "pushes", "state", "taken")

    def __init__(self, state: Stream, pushes: list[Push]) -> None:
        self.state, self.pushes = state, pushes
        self.before = (state.offset, state.ingest)
        self.taken: Taken | None = None
        self.aside: Aside | None = None
        self.position = 0

    def undo(self) -> None:
        """It was not written: what it gave out is free again."""
        self.state.offset, self.state.ingest = self.before
        if self.taken is not None:
            self.state.waiting.restore(self.taken.released)


def stamp(state: Stream, pushes: list[Push], now: int, snapshot: Snapshot, number: Callable[[], int]) -> Entry:
    """Give the events that are new and not in the future their offsets and ingest times, and fill in the receipts.

    Set-aside events whose time has come go first. Ingest times increase strictly, even where the clock went back.
    """
    entry = Entry(state, pushes)
    released = state.waiting.take(now)
    rows, later = state.waiting.rows(released), state.waiting.rows([])
    seen: set[str] = set()
    counts = []
    for push in pushes:
        mine = _fitted(state, push.rows)
        fresh, ahead = _sorted_out(state, mine, now + state.spec.tolerance, snapshot, seen)
        counts.append((len(rows), len(fresh), len(mine) - len(fresh) - len(ahead), len(ahead)))
        if ahead:
            later.extend(mine.pick(ahead))
        if len(fresh) < len(mine):
            mine = mine.pick(fresh)
        if len(rows):
            rows.extend(mine)
        else:
            rows = mine
    first, start = state.offset + 1, max(now, state.ingest + 1)
    for push, (skipped, taken, known, aside) in zip(pushes, counts, strict=True):
        place = (first + skipped, first + skipped + taken - 1, start + skipped + taken - 1) if taken else (0, 0, now)
        push.receipt = Receipt(state.spec.name, taken, known, aside, *place)
    if len(rows):
        ingest = list(range(start, start + len(rows)))
        entry.taken = Taken(EventBatch(state.spec.name, first, ingest, rows.times, rows.columns, rows.ids), released)
        state.offset, state.ingest = first + len(rows) - 1, ingest[-1]
    if len(later):
        entry.aside = Aside(state.spec.name, [number() for _ in range(len(later))], later)
    return entry


def _sorted_out(state: Stream, rows: Rows, limit: int, snapshot: Snapshot, seen: set[str]) -> tuple[Sequence[int], list[int]]:
    """The indexes of new events to take now, and of those to set aside."""
    fresh: Sequence[int] = range(len(rows))
    if rows.ids is not None:
        get, table, waiting = snapshot.get, f"ids/{state.spec.name}", state.waiting.ids
        kept = []
        for i, identity in enumerate(rows.ids):
            if identity not in seen and identity not in waiting and get(table, encode_id(identity)) is None:
                seen.add(identity)
                kept.append(i)
        fresh = kept
    times = rows.times
    if max(times) <= limit:
        return fresh, []
    return [i for i in fresh if times[i] <= limit], [i for i in fresh if times[i] > limit]


def _fitted(state: Stream, rows: Rows) -> Rows:
    """The rows with exactly the stream's fields: a field that the sender did not know of is null."""
    names = [field.name for field in state.spec.fields]
    if len(names) == len(rows.columns) and all(name in rows.columns for name in names):
        return rows
    return Rows(rows.times, {name: rows.columns.get(name) or [None] * len(rows) for name in names}, rows.ids)
