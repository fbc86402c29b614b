"""Moves the log into Delta tables in the background, in large batches and exactly once, and cuts the write-ahead log behind.

Works on real time, whatever the home's clock does; only the release of set-aside events asks that clock.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from davy.errors import DavyError
from davy.events.records import encode
from davy.events.streams import WRITER, Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from davy.events.log import EventLog

LOOK_EVERY = 0.05
COMPACT_EVERY = 50
ROLL_BYTES = 1 << 20
BACKLOG = 20
_LOG = logging.getLogger("davy.events")


class Mover:
    """The background of an open log.

    Args:
        log: whose events to move.
        hooks: called at the end of each flush. What they raise is logged as a warning, and keeps nothing of the log from going on.
        every, rows: a flush starts after so many seconds or when so many events wait.
    """

    def __init__(self, log: EventLog, hooks: Sequence[Callable[[], None]], *, every: float, rows: int) -> None:
        self._log, self._hooks = log, hooks
        self._every, self._rows = every, rows
        self.flushing = threading.RLock()
        self._waiting_rows = 0
        self._flushes: dict[str, int] = {}
        self._due = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="davy-mover", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def note(self, rows: int) -> None:
        """So many more events wait to be moved (0: an event was set aside)."""
        self._waiting_rows += rows
        if rows == 0 or self._waiting_rows >= self._rows:
            self._due.set()

    def throttle(self) -> None:
        """Move first, where the tables have fallen far behind.

        Raises:
            DavyError: they can't be written; nothing more is taken until they can.
        """
        if self._waiting_rows > self._rows * BACKLOG:
            self.flush()

    def flush(self) -> None:
        """Move everything that is in the log now."""
        with self.flushing:
            self._log.check_open()
            states = list(self._log.streams.values())
            for state in states:
                self._move(state)
            self._waiting_rows = sum(len(batch) for state in states for _, batch in list(state.pending))
            self._trim()
            for hook in self._hooks:
                _try(hook)

    def stop(self) -> None:
        """End the background thread."""
        self._stopped.set()
        self._due.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        flushed = time.monotonic()
        while not self._stopped.is_set():
            waiting = any(len(state.waiting) for state in list(self._log.streams.values()))
            self._due.wait(LOOK_EVERY if waiting else self._every)
            self._due.clear()
            if self._stopped.is_set():
                return
            try:
                if waiting:
                    self._release()
                if self._waiting_rows >= self._rows or time.monotonic() - flushed >= self._every:
                    flushed = time.monotonic()
                    self.flush()
            except DavyError as error:
                _LOG.warning("The log could not be moved into tables, and will be tried again: %s", error.came)
            except Exception:  # noqa: BLE001 - whatever a library raised, the thread has to try again: without it nothing would ever move
                _LOG.exception("The log could not be moved into tables, and will be tried again.")

    def _release(self) -> None:
        now = self._log.home.clock.now()
        if any(state.waiting.due(now) for state in list(self._log.streams.values())):
            with self._log.committing:
                self._log.commit()

    def _move(self, state: Stream) -> None:
        from davy.events.frames import stored_frame, typed
        from davy.events.segments import record, segment_of

        pending = list(state.pending)
        if not pending:
            return
        stored = stored_frame(state.spec, [batch for _, batch in pending])
        last = pending[-1][1].last_offset
        state.table.append(typed(state.spec, stored), writer=WRITER, position=last, after=state.committed)
        with self._log.committing:
            state.committed = last
            del state.pending[: len(pending)]
        record(self._log.home, state.spec, state.table, [segment_of(state.spec.name, stored)])
        count = self._flushes[state.spec.name] = self._flushes.get(state.spec.name, 0) + 1
        if count % COMPACT_EVERY == 0:
            state.table.compact()

    def _trim(self) -> None:
        """Drop what the tables hold from the write-ahead log; set-aside events that would hold it back are written anew."""
        log = self._log
        with log.committing:
            states = list(log.streams.values())
            keep = min((state.pending[0][0] for state in states if state.pending), default=log.wal.last + 1)
            if keep > log.wal.last and log.wal.size > ROLL_BYTES:
                log.wal.roll()
            blocking = [state for state in states if len(state.waiting) and state.waiting.position < min(keep, log.wal.first)]
            if blocking:
                position = log.wal.append([encode(state.waiting.record()) for state in blocking])
                log.wal.sync()
                for number, state in enumerate(blocking, position - len(blocking) + 1):
                    state.waiting.position = number
            keep = min([keep, *(state.waiting.position for state in states if len(state.waiting))])
            log.wal.truncate(keep)


def _try(hook: Callable[[], None]) -> None:
    try:
        hook()
    except DavyError as error:
        _LOG.warning("What follows the log was not moved, and will be tried again: %s", error.came)
    except Exception:  # noqa: BLE001 - whatever it is that follows the log, its failure must not hold up events
        _LOG.warning("What follows the log was not moved, and will be tried again.", exc_info=True)
