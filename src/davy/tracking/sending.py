"""Sending what spools hold to where it belongs: a server, or the home whose database was locked or full."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from davy.errors import DavyError, Forbidden, NotFound, Unavailable
from davy.tracking import runs
from davy.tracking.points import Points, add_points
from davy.tracking.spool import FOLDER, Backlog, Created, Ended, Logged, Record, Spool, spools, take_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from davy.home import Home

MOST_AT_ONCE = 20_000
FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.25, 30.0
PACE_SECONDS = 0.25


class Receiver(Protocol):
    """Where records go. Taking one twice is the same as once."""

    @property
    def pause(self) -> float:
        """Seconds that it has asked to be left alone for."""
        ...

    def take(self, backlog: Backlog, record: Record) -> None:
        """Store a record of this spool.

        Raises:
            Unavailable: not now; the same record may be taken later.
            DavyError: never; it contradicts what is there, or is not allowed.
        """
        ...

    def close(self) -> None:
        """Let go of what is open; it is opened again when it is needed."""
        ...


class HomeReceiver:
    """The database of a home, for points and ends that it could not take before."""

    pause: Final = 0.0

    def __init__(self, home: Home) -> None:
        self._home = home

    def take(self, backlog: Backlog, record: Record) -> None:
        run_id = backlog.head.run_id
        with self._home.database.begin(lazy=self._home.config.tracking.durability == "process") as connection:
            runs.writable(connection, run_id)
            if isinstance(record, Logged):
                add_points(connection, run_id, record.points())
            elif isinstance(record, Ended) and runs.get_run(connection, run_id).status == "RUNNING":
                runs.finish_run(connection, run_id, status=record.status, ended=record.ended * 1000)

    def close(self) -> None:
        """The home stays open: it is the caller's."""


def send(backlog: Backlog, receiver: Receiver, *, told: Callable[[int], object] = lambda count: None) -> list[DavyError]:
    """Send all that is there now; returns why records were refused for good. Those are kept in the spool, apart.

    Args:
        told: called with the number of records that were dealt with.

    Raises:
        Unavailable: the receiver is away; the rest stays.
        DavyError: it takes nothing of this spool at all.
    """
    errors: list[DavyError] = []
    for position, count, record in _grouped(backlog.records()):
        stored = True
        try:
            receiver.take(backlog, record)
        except Unavailable:
            raise
        except DavyError as error:
            if isinstance(record, Created) or isinstance(error, Forbidden):
                raise
            backlog.refuse(record)
            errors.append(error)
            stored = False
        if stored and isinstance(record, Ended):
            backlog.progress.ended = True
        backlog.sent(position)
        if stored:
            backlog.drop_file(record)
        told(count)
    return errors


def send_all(path: Path, receiver: Receiver, *, told: Callable[[int], object] = lambda count: None) -> list[DavyError] | None:
    """Send a spool whose writer is gone, refused records included, and remove it when nothing is left; None when another process sends it.

    A run whose writer died before it ended is ended as KILLED.
    """
    lock = take_lock(path)
    if lock is None:
        return None
    try:
        try:
            backlog = Backlog(path)
        except NotFound:
            return None
        errors = _again(backlog, receiver) + send(backlog, receiver, told=told)
        if backlog.head.owner and not backlog.progress.ended:
            receiver.take(backlog, Ended("KILLED", backlog.last_written()))
        if not errors:
            backlog.remove()
        return errors
    finally:
        os.close(lock)


def catch_up(home: Home) -> None:
    """Store what earlier processes had to set aside in this home, if the database takes it now.

    What is left, because its run is deleted or the folder is another user's, keeps nobody from working; `davy sync` tells why.
    """
    for path in spools(home.path / FOLDER):
        with suppress(DavyError, OSError):
            if not Backlog(path).head.server:
                send_all(path, HomeReceiver(home))


def _again(backlog: Backlog, receiver: Receiver) -> list[DavyError]:
    """Offer the refused records once more; returns why some are refused still."""
    stored, refused, errors = list[Record](), list[Record](), list[DavyError]()
    for record in backlog.refused():
        try:
            receiver.take(backlog, record)
            stored.append(record)
        except Unavailable:
            raise
        except DavyError as error:
            refused.append(record)
            errors.append(error)
    if stored:
        backlog.keep_refused(refused)
    for record in stored:
        backlog.drop_file(record)
        backlog.progress.ended = backlog.progress.ended or isinstance(record, Ended)
    return errors


class Sender:
    """Sends the spools of this process to one receiver, on a thread of its own, for as long as it takes.

    While the receiver is away it tries again and again, at longer and longer intervals.

    Attributes:
        trouble: why the last attempt failed, while the receiver is away.
    """

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._changed = threading.Condition(threading.RLock())
        self._open: dict[Path, tuple[Spool, Backlog]] = {}
        self._complete: set[Path] = set()
        self._stopped: dict[Path, DavyError] = {}
        self._thread: threading.Thread | None = None
        self._hurry = False
        self._longest = LONGEST_BACKOFF_SECONDS
        self._begun = self._done = 0  # attempts
        self._told: set[tuple[Path, str]] = set()
        self.trouble: Unavailable | None = None

    def add(self, spool: Spool) -> None:
        """Send what this spool holds, and what is appended to it until `complete`."""
        with self._changed:
            self._open[spool.path] = spool, Backlog(spool.path)

    def complete(self, spool: Spool) -> None:
        """Nothing more is appended: the spool goes away once all of it is sent."""
        with self._changed:
            self._complete.add(spool.path)
        self.nudge()

    def nudge(self) -> None:
        """Something was appended."""
        with self._changed:
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="davy-sender", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the interpreter is ending; what the spool holds is sent by davy sync
                    return
                self._thread = thread
            self._changed.notify_all()

    def wait(self, spool: Spool, seconds: float) -> bool:
        """Wait until all of the spool is sent, or an attempt from now on shows that the receiver is away; whether all is sent."""
        path = spool.path
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            before = self._begun
            self._changed.wait_for(lambda: not self._left(path) or path in self._stopped or (self.trouble is not None and self._done > before), seconds)
            return not self._left(path)

    def drain(self, seconds: float) -> list[tuple[Spool, str]]:
        """At the end of the process: give what is left that long; returns the spools that are not sent to the end, and why."""
        self._longest = PACE_SECONDS
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not any(self._left(path) and path not in self._stopped for path in self._open), seconds)
            left = [spool for path, (spool, _) in self._open.items() if self._left(path)]
            return [(spool, reason.came if (reason := self._stopped.get(spool.path) or self.trouble) else "the time was up.") for spool in left]

    def abandon(self) -> None:
        """In a forked child: let go of the parent's spools, those of ended runs too."""
        for spool, _ in self._open.values():
            spool.abandon()

    def _left(self, path: Path) -> bool:
        """Whether something of it is to be sent or to be removed."""
        if path not in self._open:
            return False
        spool, backlog = self._open[path]
        return path in self._complete or backlog.progress.position < spool.last

    def _busy(self) -> list[Path]:
        return [path for path in self._open if path not in self._stopped and self._left(path)]

    def _work(self) -> None:
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            with self._changed:
                self._changed.wait_for(self._busy)
                busy = self._busy()
            for path in busy:
                self._send(path)
            if not self._open:
                self._receiver.close()
            if self._receiver.pause:
                time.sleep(self._receiver.pause)
            backoff = FIRST_BACKOFF_SECONDS if self.trouble is None else min(backoff * 2, LONGEST_BACKOFF_SECONDS)
            with self._changed:
                self._changed.wait_for(lambda: self._hurry, PACE_SECONDS if self.trouble is None else min(backoff, self._longest))
                self._hurry = False

    def _send(self, path: Path) -> None:
        spool, backlog = self._open[path]
        complete, trouble, stopped = path in self._complete, None, None
        self._begun += 1
        try:
            for error in send(backlog, self._receiver):
                if (path, error.came) not in self._told:
                    self._told.add((path, error.came))
                    tell(f"The server refused a part of the run {spool.head.name!r}, which is kept in {path}: {error.came}")
        except Unavailable as error:
            trouble = error
        except DavyError as error:
            stopped = error
            tell(f"The server takes nothing of the run {spool.head.name!r}: {error}\nAll is kept in {path}. Send it later: davy sync")
        except Exception as error:  # noqa: BLE001 - the last line of defence: a bug with one run is told, and the others go on
            traceback.print_exception(error)
            stopped = DavyError(f"{error!r} is a bug in Davy.")
        finished = complete and trouble is None and stopped is None
        if finished:
            spool.close(remove=not backlog.refused())
        with self._changed:
            self.trouble, self._done = trouble, self._begun
            if stopped is not None:
                self._stopped[path] = stopped
            if finished:
                del self._open[path]
                self._complete.discard(path)
            self._changed.notify_all()


def tell(text: str) -> None:
    """A line for the person who watches."""
    print(text, file=sys.stderr, flush=True)


def _grouped(records: Iterator[tuple[int, Record]]) -> Iterator[tuple[int, int, Record]]:
    """(last position, how many, record): consecutive batches of points as one."""
    gathered: dict[str, Points] = {}
    count, size, last = 0, 0, 0
    for position, record in records:
        if isinstance(record, Logged):
            for key, points in record.points().items():
                size += len(points.steps)
                before = gathered.get(key)
                if before is None:
                    gathered[key] = points
                else:
                    before.steps.extend(points.steps)
                    before.times.extend(points.times)
                    before.values.extend(points.values)
            count, last = count + 1, position
        if gathered and (size >= MOST_AT_ONCE or not isinstance(record, Logged)):
            yield last, count, Logged.of(gathered)
            gathered, count, size = {}, 0, 0
        if not isinstance(record, Logged):
            yield position, 1, record
    if gathered:
        yield last, count, Logged.of(gathered)
