"""What a run has logged and what nobody has stored yet: appended to by any thread, taken in packed columns by one.

A point waits `GATHER_SECONDS` before it is stored with all that came meanwhile. Where storing falls behind, whoever logs
waits for it; where it hangs (a database that another process has locked), whoever logs sets the points aside on disk. So
memory is bounded, and `kill -9` loses what was logged within the last 100 ms at most.
"""

from __future__ import annotations

import itertools
import threading
import time
from array import array
from typing import TYPE_CHECKING, Any

from davy.errors import DavyError
from davy.tracking.points import Points
from davy.tracking.records import check_key, check_number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

GATHER_SECONDS = 0.05
LATE_MILLIS, SLOW_MILLIS = 80, 300
MOST_GATHERED = 1 << 15
MOST_HELD = 1 << 19
HANGS_SECONDS = 0.5
_PATIENCE_SECONDS = 0.02
_BACKOFF_SECONDS = 1.0
_NEVER = 1 << 63
FLOAT = frozenset((float,))


class Buffer:
    """The points of one run on their way to the store.

    Args:
        store: keeps columns by key. When it raises, they are offered to it again.
        aside: keeps them somewhere else, while `store` hangs.
        told: hears once why nothing can be stored, until something is.

    Attributes:
        lock: held while points are appended. A signal's handler on the same thread may take it again.
        columns: per key a flat list of step, time in milliseconds and value.
        count: how many points there are in `columns`.
        due: milliseconds; whoever logs later than that calls `relieve` first.
    """

    def __init__(self, store: Callable[[Mapping[str, Points]], None], aside: Callable[[Mapping[str, Points]], None],
                 told: Callable[[DavyError], object]) -> None:
        self._store, self._aside, self._told = store, aside, told
        self.columns: dict[str, list[Any]] = {}
        self._next: dict[str, int] = {}
        self._closed = False
        self._reset()

    def _reset(self) -> None:
        self.lock = threading.RLock()
        self.count, self.due = 0, _NEVER
        self._thread: threading.Thread | None = None
        # All locks may be taken again by their thread: a signal's handler runs in the middle of whatever the main thread does.
        self._changed = threading.Condition(threading.RLock())
        self._wanted = self._hurry = False
        self._storing, self._setting_aside = threading.RLock(), threading.RLock()
        self._turns, self._since = 0, 0.0
        # What is taken from the columns stays here until it is stored or set aside, so that no signal's exception in the middle loses it.
        self._held: dict[int, Mapping[str, Points]] = {}
        self._numbers = itertools.count()
        self._trouble: DavyError | None = None

    def checked(self, given: Mapping[str, Any]) -> dict[str, float]:
        """The values as floats, each with a column to go to."""
        found = {check_key("metric", key): check_number(key, value) for key, value in given.items()}
        with self.lock:  # which whoever takes the points holds, while they go through the columns
            for key in found:
                self.columns.setdefault(key, [])
        return found

    def step(self, key: str) -> int:
        """The step after the last one of this key, whose column is empty."""
        return self._next.get(key, 0)

    def begin(self, now: int) -> None:
        """The first points since the last were taken are about to be appended; the caller holds `lock`."""
        self.due = now + LATE_MILLIS
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="davy-run", daemon=True)
            try:
                thread.start()
                self._thread = thread
            except RuntimeError:  # the interpreter is ending; its exit handlers store what is logged now
                return
        with self._changed:
            self._wanted = True
            self._changed.notify_all()

    def relieve(self, now: int) -> None:
        """Points are late, or many: wait until some are stored, and set them aside when storing hangs.

        Raises:
            DavyError: so many are waiting that no more are taken, and this is why.
        """
        self.due = now + LATE_MILLIS
        thread = self._thread
        if thread is None or not thread.is_alive():
            self.flush()
            return
        turns = self._turns
        while not self._hangs():
            if self._trouble is not None:
                if self.count >= MOST_GATHERED:
                    self._hold()
                return
            with self._changed:
                self._wanted = self._hurry = True
                self._changed.notify_all()
                if self._changed.wait_for(lambda: self._turns != turns, _PATIENCE_SECONDS):
                    return
            if self.count < MOST_GATHERED:
                self.due = now + SLOW_MILLIS  # a store that is slow is not waited for all the time
                return
        self._put_aside()

    def flush(self) -> None:
        """Store all that was appended before.

        Raises:
            DavyError: it is not stored; it is kept and tried again with the next flush.
        """
        while not self._flush_now():
            time.sleep(0.001)
        with self._setting_aside:  # nobody is in the middle of setting aside what was stored here
            pass

    def _flush_now(self) -> bool:
        """Whether all was stored; not while a thread is held up in the middle of appending, by its signal's handler that waits for this."""
        with self._storing:
            if self._since:  # this is a signal's handler, in the middle of this thread's own storing
                return True
            if not self.lock.acquire(timeout=_PATIENCE_SECONDS):
                return False
            try:
                self._take()
            finally:
                self.lock.release()
            self._since = time.monotonic()
            try:
                self._empty(self._store)
                self._trouble = None
            except DavyError as error:
                self._trouble = error
                raise
            finally:
                self._since = 0.0
                with self._changed:
                    self._turns += 1
                    self._changed.notify_all()
            return True

    def close(self) -> None:
        """Let the thread end; what was appended meanwhile is not stored."""
        with self._changed:
            self._closed = self._wanted = self._hurry = True
            self._changed.notify_all()

    def fork(self) -> None:
        """In a forked child: leave to the parent what it has, and count steps on from there."""
        for key, flat in self.columns.items():
            if flat:
                self._next[key] = flat[-3] + 1
                flat.clear()
        self._reset()

    def _work(self) -> None:
        while not self._closed:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted)
                self._changed.wait_for(lambda: self._hurry, GATHER_SECONDS)
                self._wanted = self._hurry = False
            known = self._trouble is not None
            try:
                self.flush()
            except DavyError as error:
                # There is no caller on this thread to raise it to: the points stay, and who logs too many, flushes or finishes hears of it.
                if not known:
                    self._told(error)
                with self._changed:
                    self._changed.wait_for(lambda: self._hurry, _BACKOFF_SECONDS)
                    self._wanted = True

    def _take(self) -> None:
        """Move the points from the columns to what is held, packed."""
        with self.lock:
            taken = {}
            for key, flat in list(self.columns.items()):
                if points := flat.copy():
                    taken[key] = Points(array("q", points[0::3]), array("q", points[1::3]), array("d", points[2::3]))
            if taken:
                self._held[next(self._numbers)] = taken
            self.count, self.due = 0, _NEVER
            for key, packed in taken.items():
                self._next[key] = packed.steps[-1] + 1
                del self.columns[key][:3 * len(packed)]  # and nothing that a signal's handler has logged meanwhile

    def _empty(self, keep: Callable[[Mapping[str, Points]], None]) -> None:
        """Have all that is held kept. Where two threads do it, one storing and one setting aside, either may keep it; both do no harm."""
        while self._held:
            for number in list(self._held):
                columns = self._held.get(number)
                if columns is not None:
                    keep(columns)
                    self._held.pop(number, None)

    def _hold(self) -> None:
        """Make room for further points, unless too many wait in memory."""
        if self._trouble is not None and sum(len(points.steps) for columns in list(self._held.values()) for points in columns.values()) >= MOST_HELD:
            raise self._trouble
        self._take()

    def _hangs(self) -> bool:
        since = self._since
        return bool(since) and time.monotonic() - since > HANGS_SECONDS

    def _put_aside(self) -> None:
        """Keep on disk what the thread that hangs has in its hands, and what has come since. Stored twice is the same as once."""
        with self._setting_aside:
            self._hold()
            try:
                self._empty(self._aside)
            except DavyError as error:
                self._trouble = error
