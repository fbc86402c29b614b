"""The way into the log for every process of a home: whoever is first holds it and serves the others.

When the holder ends, another takes over. A push that was on its way then is reported as Unavailable, because nobody can know
whether it was taken; sent again, the ids of its events make it count once.
"""

from __future__ import annotations

import importlib
import select
import socket
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from davy.core.clock import new_id
from davy.errors import Conflict, DavyError, InvalidInput, NotFound, Unavailable, nearest
from davy.events.log import EventLog
from davy.events.outcomes import outcome_rows, outcome_stream
from davy.events.records import Closed, Held, Receipt, Rows
from davy.events.rows import encode_rows
from davy.events.server import Server
from davy.events.streams import shape
from davy.events.wire import (
    Append,
    Declare,
    Ensure,
    Flush,
    History,
    Request,
    Streams,
    Yield,
    read_reply,
    read_request,
    receive,
    send,
    socket_path,
    write_error,
    write_result,
)
from davy.features.definition import StreamSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import polars as pl

    from davy.core.fields import Field
    from davy.features.definition import ViewSpec
    from davy.home import Home

PATIENCE = 10.0
_RETRY = 0.02
_POLITE = 5.0


def connect(home: Home, *, hold: bool = True, keep: bool = False, patience: float = PATIENCE) -> Log:
    """The log of this home.

    Args:
        hold: become the holder where there is none. Without it, there must be a holder within `patience` seconds.
        keep: take the log from whoever holds it, and keep it until `close`.
        patience: how long a call waits for a holder, in seconds of real time.

    Raises:
        Conflict: with `keep`, a keeper holds it already.
        Unavailable: no holder came in time.
    """
    return Log(home, hold=hold or keep, keep=keep, patience=patience)


class Log:
    """A connection to the log, or the log itself. Safe to use from several threads."""

    def __init__(self, home: Home, *, hold: bool, keep: bool, patience: float) -> None:
        self._home, self._hold, self._keep, self._patience = home, hold, keep, patience
        self._changing = threading.RLock()
        self._log: EventLog | None = None
        self._server: Server | None = None
        self._idle: list[socket.socket] = []
        self._declared: dict[str, tuple[StreamSpec, StreamSpec]] = {}
        self._closed = False
        self._polite_until = 0.0
        if keep:
            self._take()
        elif hold:
            self._try_hold()

    @property
    def holds(self) -> bool:
        """Whether this process is the writer now."""
        return self._log is not None

    def declare(self, spec: StreamSpec, *, keep: bool = False) -> StreamSpec:
        """Make the stream known; returns it with the fields that only its past has. See `EventLog.declare`."""
        if keep:
            whole: StreamSpec = self._call(Declare(spec, True), StreamSpec)
            self._declared[spec.name] = (whole, whole)
            return whole
        known = self._declared.get(spec.name)
        if known is None or known[0] != spec:
            known = self._declared[spec.name] = (spec, self._call(Declare(spec), StreamSpec))
        return known[1]

    def streams(self) -> dict[str, StreamSpec]:
        """All declared streams by name."""
        return {spec.name: spec for spec in self._call(Streams(), list[StreamSpec])}

    def push(self, stream: StreamSpec | str, rows: Sequence[Mapping[str, Any]]) -> Receipt:
        """Append events: durable and readable when the call returns. One wrong row refuses them all.

        Raises:
            NotFound: no stream of that name was declared.
            InvalidInput: names the row and the field.
            StorageFull: nothing was taken.
            Unavailable: there is no holder; or it ended in between, and the push may or may not have been taken.
        """
        if isinstance(stream, StreamSpec):
            return _append(self._call, self._declared, stream.name, encode_rows(self.declare(stream), rows))
        return _append(self._call, self._declared, stream, encode_with(partial(self._spec, stream), lambda spec: encode_rows(spec, rows)))

    def push_history(self, stream: StreamSpec | str, frame: pl.DataFrame | pl.LazyFrame) -> Receipt:
        """Load a whole history, all or nothing; see `EventLog.append_history`."""
        spec = self.declare(stream) if isinstance(stream, StreamSpec) else self._spec(stream)
        log = self._log
        if log is not None:
            with suppress(Closed):
                return log.append_history(spec.name, frame)
        path = self._home.place("run", f"history-{new_id(self._home.clock)}.parquet")
        try:
            _write(frame, path)
            found: Receipt = self._call(History(spec.name, str(path)), Receipt)
            return found
        finally:
            path.unlink(missing_ok=True)

    def outcomes(self, model: str, rows: Sequence[Mapping[str, Any]], value: Field | None = None) -> Receipt:
        """Append what turned out to be true: rows of `prediction` (its id), the outcome's value, and `time` (default now).

        Args:
            value: the outcome's field; may be left out once the model's outcomes have been declared.
        """
        if value is not None:
            self.declare(outcome_stream(model, value))
        now, name = self._home.clock.now(), f"outcomes/{model}"
        return _append(self._call, self._declared, name, encode_with(partial(self._spec, name), lambda spec: encode_rows(spec, outcome_rows(spec, rows, now))))

    def ensure_views(self, views: Iterable[tuple[StreamSpec, ViewSpec]]) -> None:
        """Keep these views up to date in the online state from now on; a new one is built from the log first."""
        self._call(Ensure(list(views)), None)

    def flush(self) -> None:
        """Move everything that was acknowledged into the tables now."""
        self._call(Flush(), None)

    def close(self) -> None:
        """Let go. A holder moves everything into the tables first; another process takes over when it needs to."""
        self._closed = True
        self._release()
        with self._changing:
            for connection in self._idle:
                connection.close()
            self._idle.clear()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spec(self, stream: str, fresh: bool = True) -> StreamSpec:
        """The stream's declaration; a fresh one is what the log has now."""
        known = None if fresh else self._declared.get(stream)
        if known is None:
            streams = self.streams()
            if stream not in streams:
                raise NotFound(f"There is no stream {stream!r}.", nearest(stream, streams), "Declare it in features.py, and load its history or push to it.")
            known = self._declared[stream] = (streams[stream], streams[stream])
        return known[1]

    def _call(self, request: Request, kind: Any) -> Any:
        deadline = time.monotonic() + self._patience
        while True:
            if self._closed:
                raise Unavailable("This connection to the log is closed.", "", "Connect again.")
            log = self._log
            try:
                if log is not None:
                    return answer(log, request)
                if (data := self._ask(request)) is not None:
                    return read_reply(data, kind)
            except Closed:
                self._release(log)
            if self._hold and time.monotonic() > self._polite_until and self._try_hold():
                continue
            if time.monotonic() > deadline:
                raise Unavailable(f"Nobody holds the log of {self._home.path}.", "davy up starts the process that does.", "Run: davy up")
            time.sleep(_RETRY)

    def _ask(self, request: Request) -> bytes | None:
        """The reply of the holder, or None when there is none to be reached.

        Raises:
            Unavailable: the holder ended after the request was sent.
        """
        import msgspec

        connection = self._connection()
        if connection is None:
            return None
        try:
            send(connection, msgspec.msgpack.encode(request))
            data = receive(connection)
        except OSError:
            data = None
        except BaseException:
            connection.close()
            raise
        if data is None:
            connection.close()
            if isinstance(request, (Append, History)):
                raise Unavailable("The process that holds the log ended while it answered.", "The events may or may not have been taken.",
                                  "Send them again: those with an id are taken once.")
            return None
        with self._changing:
            self._idle.append(connection)
        return data

    def _connection(self) -> socket.socket | None:
        while True:
            with self._changing:
                if not self._idle:
                    break
                connection = self._idle.pop()
            if not select.select([connection], [], [], 0)[0]:
                return connection
            connection.close()
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(socket_path(self._home)))
        except OSError:
            connection.close()
            return None
        return connection

    def _try_hold(self) -> bool:
        from davy.features.online import OnlineFeatures

        with self._changing:
            if self._log is not None:
                return True
            try:
                log = EventLog(self._home, OnlineFeatures(self._home.online), hooks=[lambda: flush_predictions(self._home)])
            except Held:
                return False
            try:
                self._server = Server(socket_path(self._home), self._answer)
            except BaseException:
                log.abandon()
                raise
            self._log = log
            return True

    def _take(self) -> None:
        deadline = time.monotonic() + max(self._patience, 30.0)
        while not self._try_hold():
            data = self._ask(Yield())
            if data is not None:
                read_reply(data, None)
            if time.monotonic() > deadline:
                raise Unavailable(f"The log of {self._home.path} is held by a process that does not let go.", "", "End that process, and run davy up again.")
            time.sleep(_RETRY)

    def _release(self, log: EventLog | None = None) -> None:
        """Stop being the holder."""
        with self._changing:
            held = self._log
            if held is None or log not in (None, held):
                return
            if self._server is not None:
                self._server.close()
                self._server = None
            held.close()
            self._log = None

    def _answer(self, data: bytes) -> bytes:
        log = self._log
        try:
            request = read_request(data)
            if log is None:
                raise Closed("The log is held elsewhere now.", "", "Connect again.")
            if isinstance(request, Yield):
                if self._keep:
                    raise Conflict(f"A keeper holds the log of {self._home.path} already.", "One davy up runs per home.", "Use the one that runs, or end it.")
                self._polite_until = time.monotonic() + _POLITE
                threading.Thread(target=self._release, args=(log,), name="davy-log-yield").start()
                return write_result(None)
            return write_result(answer(log, request))
        except DavyError as error:
            return write_error(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client must hear of it and the server go on
            return write_error(Unavailable(f"The log failed: {error!r}.", "", "Try again."))


def _append(call: Callable[[Request, Any], Any], declared: dict[str, tuple[StreamSpec, StreamSpec]], name: str, encoded: Rows) -> Receipt:
    """Push rows together with the units that they are in; a declaration that is none any more is read again next time."""
    known = declared.get(name)
    try:
        found: Receipt = call(Append(name, encoded, None if known is None else shape(known[1])), Receipt)
    except Conflict:
        declared.pop(name, None)
        raise
    return found


def _write(frame: pl.DataFrame | pl.LazyFrame, path: Path) -> None:
    import polars as pl

    from davy.events.sources import unreadable

    try:
        frame.lazy().sink_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable("The history", error) from error


def encode_with(spec_of: Callable[[bool], StreamSpec], encode: Callable[[StreamSpec], Rows]) -> Rows:
    """The rows as the declaration that is known here says, or as a fresh one does: another process may have added the field that is refused."""
    known = spec_of(False)
    try:
        return encode(known)
    except InvalidInput:
        fresh = spec_of(True)
        if fresh == known:
            raise
        return encode(fresh)


def answer(log: EventLog, request: Request) -> Any:
    """Carry out a request on the open log."""
    match request:
        case Append(stream, rows, units):
            return log.append_encoded(stream, rows, units)
        case Declare(spec, keep):
            return log.declare(spec, keep=keep)
        case Streams():
            return [state.spec for state in log.streams.values()]
        case History(stream, path):
            import polars as pl

            return log.append_history(stream, pl.scan_parquet(path, glob=False))
        case Ensure(views):
            return log.ensure_views(views)
        case Flush():
            return log.flush()
        case _:
            raise Conflict(f"{request!r} is not for the log.", "", "")


def flush_predictions(home: Home) -> None:
    """Let serving's prediction logs follow into their tables whenever the event log does."""
    try:
        module = importlib.import_module("davy.serving.predictions")
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("davy.serving"):
            raise
        return
    module.flush_predictions(home)
