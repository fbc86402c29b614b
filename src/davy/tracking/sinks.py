"""Where a run that is being written puts what it gets: into its home's database, or into a spool for a server."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from davy.core.clock import SystemClock
from davy.errors import ConfigError, DavyError, NotFound, Unavailable
from davy.home import Home
from davy.tracking import artifacts, runs
from davy.tracking.inputs import CONTEXT_TAG, DatasetInput, log_datasets
from davy.tracking.points import add_points
from davy.tracking.sending import HomeReceiver, Sender, send, tell
from davy.tracking.spool import FOLDER, Backlog, Created, Ended, Head, Kept, Logged, Params, Record, Spool, Tags, Used

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

    from davy.core.clock import Clock
    from davy.tracking.points import Points
    from davy.tracking.records import Status

RETRY_SECONDS = 0.05
WAIT_SECONDS = 10.0


class Sink(Protocol):
    """Where one run is written to. Every method may be called from any thread.

    Attributes:
        run_id: the run.
        clock: what its times are read from.
    """

    run_id: str
    clock: Clock

    def holds(self, home: Home | None, server: str | None) -> bool:
        """Whether a run in this home, or on this server, lies in the same place, so that one may be the other's parent."""
        ...

    def points(self, columns: Mapping[str, Points]) -> None:
        """Store points, or raise and store none."""
        ...

    def aside(self, columns: Mapping[str, Points]) -> None:
        """Keep points on disk while another thread's `points` hangs."""
        ...

    def write(self, record: Params | Tags | Used) -> None:
        """Set params (all or none; another value for one that is set is a `Conflict`) or tags, or note a dataset."""
        ...

    def files(self, files: Mapping[str, Path | bytes]) -> None:
        """Keep artifacts by their path in the run."""
        ...

    def finish(self, status: Status, ended: int) -> None:
        """End the run; microseconds. Points were stored before."""
        ...

    def leave(self) -> None:
        """This process, a fork of the one that started the run, writes no more to it."""
        ...

    def fork(self) -> None:
        """In a forked child: share nothing with the parent but the run."""
        ...


class HomeSink:
    """A run in a home's database. Points that the database does not take go to a spool, and from there to the database once it does."""

    def __init__(self, home: Home, run_id: str, name: str, *, owned: bool) -> None:
        self.home, self.run_id, self.clock = home, run_id, home.clock
        self._name, self._owned, self._owner = name, owned, True
        self._forget()

    def _forget(self) -> None:
        self._spooling = threading.RLock()
        self._spool: Spool | None = None
        self._failed = 0.0

    def holds(self, home: Home | None, server: str | None) -> bool:
        return home is not None and home.path == self.home.path

    def points(self, columns: Mapping[str, Points]) -> None:
        kept = self._spool is not None and self._kept(columns)  # onto the disk first, because the database has kept others waiting
        try:
            if not kept:
                self._store(columns)
                kept = True
            self._catch_up()
        except Unavailable as error:
            self._failed = time.monotonic()
            if not (kept or self._kept(columns)):
                raise error from None
            if (spool := self._spool) is not None:
                spool.sync()

    def _kept(self, columns: Mapping[str, Points]) -> bool:
        try:
            self.aside(columns)
        except Unavailable:
            return False
        return True

    def _store(self, columns: Mapping[str, Points]) -> None:
        with self._writing() as connection:
            add_points(connection, self.run_id, columns)

    def aside(self, columns: Mapping[str, Points]) -> None:
        with self._spooling:
            self._spooled().append(Logged.of(columns))

    def write(self, record: Params | Tags | Used) -> None:
        with self._writing() as connection:
            match record:
                case Params():
                    runs.log_params(connection, self.run_id, record.values)
                case Tags():
                    runs.set_tags(connection, self.run_id, record.values)
                case Used():
                    tags = ((CONTEXT_TAG, record.context),) if record.context else ()
                    experiment = runs.experiment_of(connection, self.run_id)
                    log_datasets(connection, self.run_id, experiment, [DatasetInput(record.dataset, tags)], clock=self.clock)

    def files(self, files: Mapping[str, Path | bytes]) -> None:
        blobs = self.home.blobs
        stored = {path: (blobs.put(source), len(source)) if isinstance(source, bytes) else blobs.put_file(source) for path, source in files.items()}
        with self._writing() as connection:
            artifacts.add_artifacts(connection, self.run_id, stored, clock=self.clock, blobs=blobs)

    def finish(self, status: Status, ended: int) -> None:
        try:
            if time.monotonic() - self._failed > RETRY_SECONDS:
                self._catch_up()
            if self._spool is None:
                with self._begin() as connection:
                    runs.finish_run(connection, self.run_id, status=status, ended=ended)
        except Unavailable as error:
            try:
                self._spooled()
            except DavyError:
                raise error from None
        if self._spool is not None:
            self._spool.append(Ended(status, ended // 1000), sync=True)
        self.leave()

    def leave(self) -> None:
        if self._spool is not None:
            tell(f"The run {self._name!r} is not stored to the end. What is left waits in {self._spool.path}. Store it later: davy sync")
            self._spool.close(remove=False)
            self._spool = None
        if self._owned:
            self.home.close()

    def fork(self) -> None:
        if self._spool is not None:
            self._spool.abandon()
        self._owner = False
        self._forget()

    def _spooled(self) -> Spool:
        if self._spool is None:
            self._spool = Spool(self.home.path / FOLDER, Head(self.run_id, self._name, owner=self._owner))
        return self._spool

    def _catch_up(self) -> None:
        """Bring what the spool holds, if there is one, into the database."""
        spool = self._spool
        if spool is None:
            return
        backlog = Backlog(spool.path)
        errors = send(backlog, HomeReceiver(self.home))
        with self._spooling:
            if backlog.progress.position == spool.last:
                spool.close(remove=not errors)
                self._spool = None
        for error in errors:
            tell(f"A part of the run {self._name!r} is refused, and kept in {backlog.path}: {error.came}")

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._begin() as connection:
            runs.writable(connection, self.run_id)
            yield connection

    def _begin(self) -> AbstractContextManager[Connection]:
        return self.home.database.begin(lazy=self.home.config.tracking.durability == "process")


class ServerSink:
    """A run on a server. Everything goes into a spool first, from which a thread sends it, so that training never waits for the server."""

    def __init__(self, url: str, folder: Path, run_id: str, created: Created) -> None:
        from davy.tracking.remote import without_user

        self.run_id, self._address = run_id, without_user(url)
        self.clock: Clock = SystemClock()
        self.url, self._folder, self._created = url, folder, created
        self._owner, self._complete = True, False
        self._params = dict(created.params)
        self._forget()
        self._append()

    def _forget(self) -> None:
        self._lock = threading.RLock()
        self._spool: Spool | None = None

    def holds(self, home: Home | None, server: str | None) -> bool:
        from davy.tracking.remote import without_user

        return server is not None and without_user(server) == self._address

    def points(self, columns: Mapping[str, Points]) -> None:
        self._append(Logged.of(columns), sync=True)

    def aside(self, columns: Mapping[str, Points]) -> None:
        self._append(Logged.of(columns))

    def write(self, record: Params | Tags | Used) -> None:
        with self._lock:
            if isinstance(record, Params):
                runs.refuse_changes(self._params, record.values)
            self._append(record)
            if isinstance(record, Params):
                self._params |= record.values

    def files(self, files: Mapping[str, Path | bytes]) -> None:
        for path, source in files.items():
            self._append(Kept(path, self._spooled().keep(source)))

    def finish(self, status: Status, ended: int) -> None:
        if not self._complete:
            self._append(Ended(status, ended // 1000))
            self._complete = True  # from now on the sender may remove the spool, also where the wait for it is interrupted
        self.leave()

    def leave(self) -> None:
        if self._spool is not None:
            sender = sender_to(self.url)
            sender.complete(self._spool)
            sender.wait(self._spool, wait_seconds())

    def fork(self) -> None:
        if self._spool is not None:
            self._spool.abandon()
        self._owner = False
        self._forget()

    def _spooled(self) -> Spool:
        """The spool, made with its first record."""
        if self._spool is not None:
            return self._spool
        with self._lock:
            if self._spool is None:
                spool = Spool(self._folder, Head(self.run_id, self._created.name, self._address, owner=self._owner))
                spool.append(self._created)
                sender_to(self.url).add(spool)
                self._spool = spool
            return self._spool

    def _append(self, record: Record | None = None, *, sync: bool = False) -> None:
        spool = self._spooled()
        if record is not None:
            spool.append(record, sync=sync)
        sender_to(self.url).nudge()


_SENDERS: dict[str, Sender] = {}
_SENDERS_LOCK = threading.Lock()


def sender_to(url: str) -> Sender:
    """The one sender of this process to a server."""
    from davy.tracking.remote import Server, ServerReceiver

    with _SENDERS_LOCK:
        if url not in _SENDERS:
            _SENDERS[url] = Sender(ServerReceiver(Server(url)))
        return _SENDERS[url]


def drain() -> None:
    """At the end of the process: send what is left for a while, and say where the rest waits."""
    deadline = time.monotonic() + wait_seconds()
    for sender in list(_SENDERS.values()):
        for spool, why in sender.drain(max(0.0, deadline - time.monotonic())):
            tell(f"The run {spool.head.name!r} is not sent to the end: {why.rstrip('.')}. What is left waits in {spool.path}. Send it later: davy sync")


def wait_seconds() -> float:
    """How long the end of a run, and of the process, waits for the server."""
    text = os.environ.get("DAVY_WAIT", "")
    try:
        return max(float(text), 0.0) if text else WAIT_SECONDS
    except ValueError:
        raise ConfigError(f"DAVY_WAIT is {text!r}.", "It is a number of seconds.", "Correct it, or unset it.") from None


def spool_folder() -> Path:
    """Where the spools of the working directory's project lie; the user's cache folder without a project."""
    try:
        return Home.open().path / FOLDER
    except NotFound:
        return cache_folder()


def cache_folder() -> Path:
    """Where the spools lie that belong to no project."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "davy" / FOLDER


def _forget_senders() -> None:
    global _SENDERS_LOCK
    for sender in _SENDERS.values():
        sender.abandon()
    _SENDERS.clear()
    _SENDERS_LOCK = threading.Lock()


os.register_at_fork(after_in_child=_forget_senders)
