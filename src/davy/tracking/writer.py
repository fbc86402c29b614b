"""The run that user code holds.

What is logged goes into a buffer; a thread stores it within 100 ms, in the home's database or, for a server, in a spool on
disk from which it is sent. Nothing is lost when the block or the program ends, on an exception, on SIGTERM or in a fork;
`kill -9` and the loss of power take what was logged within the last 100 ms, and where the database takes longer than that to
store anything, within the last 600 ms; the loss of power also what was set aside on disk since the database began to hang.
"""

from __future__ import annotations

import atexit
import io
import itertools
import json
import operator
import os
import signal
import subprocess
import sys
import threading
import traceback
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from davy.core.clock import SystemClock, new_id
from davy.errors import Conflict, DavyError, InvalidInput
from davy.features.calls import checked_call
from davy.home import Home, actor
from davy.tracking import artifacts, runs, sinks
from davy.tracking.buffer import FLOAT, MOST_GATHERED, Buffer
from davy.tracking.experiments import ensure_experiment
from davy.tracking.names import made_up
from davy.tracking.records import COMMIT, LARGEST_STEP, PARENT, RUN_NAME, SOURCE, USER, Status, check_path, check_step
from davy.tracking.sending import catch_up, tell
from davy.tracking.spool import Created, Params, Tags, Used
from davy.tracking.system import SystemMetrics

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import Token
    from types import FrameType, TracebackType

    from davy.tracking.sinks import Sink

TERMINATED = 128 + signal.SIGTERM


class Figure(Protocol):
    """Anything that draws itself into a file, as matplotlib's figures do."""

    def savefig(self, file: Any, *, format: str) -> Any: ...


class Run:
    """A run that is being written. Use it as a context manager, or call `finish()`. All methods may be called from any thread.

    In a forked child the run may be written to as well; only the process that started it ends it.

    Attributes:
        id: 32 hex digits.
        name: what people call it.
    """

    def __init__(self, sink: Sink, name: str) -> None:
        self.id, self.name = sink.run_id, name
        self._sink, self._process, self._now = sink, os.getpid(), sink.clock.now
        self._buffer = Buffer(sink.points, sink.aside, lambda error: tell(f"The run {name!r} is kept in memory for now: {error}"))
        self._lock = threading.RLock()
        self._ended = False
        self._token: Token[Run | None] | None = None
        self._system: SystemMetrics | None = None

    def log(self, values: Mapping[str, Any] | None = None, /, *, step: int | None = None, time: int | None = None, **more: Any) -> None:
        """Log metrics: `run.log(loss=0.3, step=1)` or `run.log({"val/loss": 0.3}, step=1)`. Costs about a microsecond.

        Args:
            step: where on the curve; left out, each metric counts on from its own last step, starting at 0.
            time: microseconds (default: now).

        Raises:
            InvalidInput: a key, a value or the step can't be one; nothing of the call is taken.
            StorageFull: so much is waiting for space that nothing of the call is taken; what was taken before is kept and tried again.
        """
        now = self._now() // 1000
        given = more if values is None else {**values, **more}
        buffer = self._buffer
        if now > buffer.due or buffer.count >= MOST_GATHERED:
            buffer.relieve(now)
        columns = buffer.columns
        if not (columns.keys() >= given.keys() and FLOAT.issuperset(map(type, given.values()))):
            given = buffer.checked(given)
        at_time = now if time is None else _millis(time)
        with buffer.lock:
            if self._ended:
                raise self._closed()
            if not buffer.count:
                buffer.begin(now)
            if step is None:
                for key, value in given.items():
                    flat = columns[key]
                    at = flat[-3] + 1 if flat else buffer.step(key)
                    if at > LARGEST_STEP:
                        for taken in itertools.takewhile(key.__ne__, given):
                            del columns[taken][-3:]
                        check_step(key, at)
                    flat.extend((at, at_time, value))
            else:
                step = check_step(next(iter(given), ""), step)
                for key, value in given.items():
                    columns[key].extend((step, at_time, value))
            buffer.count += len(given)

    def flush(self) -> None:
        """Return when all that was logged is stored, as durably as `tracking.durability` says.

        Raises:
            StorageFull: it is not; it is kept and written with the next flush.
        """
        self._buffer.flush()

    @checked_call("run.param")
    def param(self, key: str, value: Any) -> None:
        """Set a param, once: the same value again is fine, another is a `Conflict`."""
        self.params({key: value})

    def params(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Set several params in one transaction: all of them or none."""
        self._open().write(Params(runs.param_texts({**(values or {}), **more})))

    @checked_call("run.tag")
    def tag(self, key: str, value: Any) -> None:
        """Set a tag; it may be changed."""
        self.tags({key: value})

    def tags(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Set several tags in one transaction."""
        self._open().write(Tags(runs.tag_texts({**(values or {}), **more})))

    def artifact(self, source: str | Path | bytes | bytearray, name: str | None = None) -> str:
        """Keep a file or a folder (a path), or bytes (then with a name); returns the artifact's path in the run.

        Args:
            name: the path in the run (default: the file's own name).
        """
        if isinstance(source, (bytes, bytearray)):
            path = check_path(name or "")
            self._open().files({path: bytes(source)})
            return path
        path = check_path(name or Path(source).resolve().name)
        self._open().files(artifacts.collect(Path(source), path))
        return path

    def text(self, text: str, name: str) -> str:
        """Keep a text as the file `name`."""
        return self.artifact(text.encode(), name)

    def json(self, value: Any, name: str) -> str:
        """Keep a JSON-able value as the file `name`."""
        return self.artifact(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True).encode(), name)

    def figure(self, figure: Figure, name: str) -> str:
        """Keep a figure in the format that the name ends with: `run.figure(fig, "roc.svg")`."""
        ending = Path(name).suffix.removeprefix(".")
        if not ending:
            raise InvalidInput(f"{name!r} does not say in which format.", "A figure's name ends like .svg or .png.", f"Write {name}.svg.")
        buffer = io.BytesIO()
        figure.savefig(buffer, format=ending)
        return self.artifact(buffer.getvalue(), name)

    def table(self, data: Any, name: str) -> str:
        """Keep a polars, pandas or Arrow frame in the format that the name ends with: `run.table(frame, "errors.csv")`, or .parquet or .json."""
        from davy.tracking.datasets import table_bytes

        return self.artifact(table_bytes(data, name), name)

    def dataset(self, data: Any, name: str, *, context: str = "", source: str = "") -> str:
        """Note that the run reads this data; returns its digest, which covers every row and column.

        Args:
            data: a polars, pandas or Arrow frame, a numpy array, or the path of a file or folder.
            context: what it is for, such as "training".
            source: where it is from, for people (default: the path, if it is one).
        """
        from davy.tracking.datasets import describe

        found = describe(data, name, source)
        self._open().write(Used(found, context))
        return found.digest

    def finish(self, status: Status = "FINISHED") -> None:
        """End the run. Ending it twice is a no-op.

        A run on a server waits `DAVY_WAIT` seconds at most until all is sent; `davy sync` sends what is left.

        Raises:
            StorageFull: it is not stored; the run is still open.
        """
        with self._lock:
            if self._ended:
                return
            if self._system is not None:
                self._system.stop()
            with self._buffer.lock:
                self._ended = True
            try:
                self._buffer.flush()
                if self._process == os.getpid():
                    self._sink.finish(status, self._now())
                else:
                    self._sink.leave()
            except BaseException:
                self._ended = False
                raise
        self._buffer.close()
        _LIVE.discard(self)
        _watch_for_the_end()

    def __enter__(self) -> Self:
        self._token = _CURRENT.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._token is not None:
            _CURRENT.reset(self._token)
            self._token = None
        self.finish(_status(kind, error))

    def __repr__(self) -> str:
        return f"<Run {self.name} {self.id}>"

    def _open(self) -> Sink:
        if self._ended:
            raise self._closed()
        return self._sink

    def _closed(self) -> Conflict:
        return Conflict(f"The run {self.name!r} has ended.", "A run is written to inside its block.", "Start another: davy.run(...)")

    def _fork(self) -> None:
        """In a forked child: what the parent has gathered is the parent's to store."""
        self._lock = threading.RLock()
        self._system = None
        self._buffer.fork()
        self._sink.fork()


def start(name: str | None = None, *, experiment: str = "Default", params: Mapping[str, Any] | None = None, tags: Mapping[str, Any] | None = None,
          parent: str | None = None, home: Home | None = None, server: str | None = None, system_metrics: bool | float = True) -> Run:
    """Start a run; see `davy.run`."""
    outer = _CURRENT.get()
    owned = home is None and outer is None
    if home is not None and server is not None:
        raise InvalidInput("Both home= and server= came.", "A run is kept in one place.", "Leave one of them out.")
    if home is None and server is None:
        if outer is None:
            server = os.environ.get("DAVY_URL") or None
        elif isinstance(outer._sink, sinks.HomeSink):
            home = outer._sink.home
        elif isinstance(outer._sink, sinks.ServerSink):
            server = outer._sink.url
    system = SystemMetrics(None if system_metrics is True else system_metrics) if system_metrics else None
    if server is None:
        home = home or Home.open()
    if parent is None and outer is not None and outer._sink.holds(home, server):
        parent = outer.id
    clock = home.clock if home is not None else SystemClock()
    name = name or made_up(clock)
    marks = {USER: actor(), SOURCE: sys.argv[0] or "python", **(tags or {}), RUN_NAME: name}
    if COMMIT not in marks and (commit := _commit(home.root if home is not None else Path.cwd())):
        marks[COMMIT] = commit
    if parent is not None:
        marks[PARENT] = parent
    if home is None:
        created = Created(experiment, name, actor(), clock.now() // 1000, runs.tag_texts(marks), runs.param_texts(params or {}))
        sink: Sink = sinks.ServerSink(server or "", sinks.spool_folder(), new_id(clock), created)
    else:
        sink = _in_home(home, name, experiment, params or {}, marks, owned=owned)
    run = Run(sink, name)
    _LIVE.add(run)
    _watch_for_the_end()
    if system is not None:
        run._system = system
        system.start(run.log)
    return run


def _in_home(home: Home, name: str, experiment: str, params: Mapping[str, Any], tags: Mapping[str, Any], *, owned: bool) -> Sink:
    """A new run in a home: experiment, run, params and tags are written in one transaction."""
    catch_up(home)
    with home.database.begin(lazy=home.config.tracking.durability == "process") as connection:
        if (parent := tags.get(PARENT)) is not None:
            runs.writable(connection, parent)
        found = ensure_experiment(connection, clock=home.clock, actor=home.actor, name=experiment)
        run_id = runs.create_run(connection, clock=home.clock, user=home.actor, experiment_id=found.id, name=name, tags=tags)
        runs.log_params(connection, run_id, params)
    return sinks.HomeSink(home, run_id, name, owned=owned)


def current() -> Run | None:
    """The run whose block this is, if any."""
    return _CURRENT.get()


_CURRENT: ContextVar[Run | None] = ContextVar("davy_run", default=None)
_LIVE: set[Run] = set()
_terminated = _ending = False


def _millis(micros: Any) -> int:
    try:
        found = operator.index(micros) // 1000
    except TypeError:
        found = -1
    if not 0 <= found <= LARGEST_STEP:
        raise InvalidInput(f"time={micros!r} came.", "A time is a whole number of microseconds since 1970.", "Pass time=int(seconds * 1e6).")
    return found


def _status(kind: type[BaseException] | None, error: BaseException | None) -> Status:
    """How a run ends whose block was left so."""
    if kind is None:
        return "FINISHED"
    if issubclass(kind, SystemExit):
        code = getattr(error, "code", 1)
        return "KILLED" if code == TERMINATED else "FAILED" if code else "FINISHED"
    return "KILLED" if issubclass(kind, (KeyboardInterrupt, GeneratorExit)) else "FAILED"


def _commit(root: Path) -> str | None:
    try:
        found = subprocess.run(["git", "rev-parse", "--verify", "-q", "HEAD"], cwd=root, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None


def _finish_all() -> None:
    """At the end of the interpreter: end what was left open, as failed when an error ended the program."""
    global _ending
    _ending = True
    status: Status = "KILLED" if _terminated else _status(getattr(sys, "last_type", None), None)
    for run in list(_LIVE):
        try:
            run.finish(status)
        except (DavyError, KeyboardInterrupt) as error:
            tell(f"The end of the run {run.name!r} is not stored: {str(error) or 'it was interrupted.'}")
        except Exception as error:  # noqa: BLE001 - the last line of defence: a bug with one run is told, and the others are ended
            traceback.print_exception(error)
    sinks.drain()


def _watch_for_the_end() -> None:
    """While runs are open, SIGTERM unwinds the main thread as Ctrl-C does, so that they are ended; unless the program has its own handler."""
    if threading.current_thread() is not threading.main_thread():
        return
    present = signal.getsignal(signal.SIGTERM)
    if _LIVE and present is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)
    elif not _LIVE and present is _terminate:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    global _terminated
    if any(run._process == os.getpid() for run in list(_LIVE)):
        _terminated = True
        if _ending:
            return  # which is what it asks for
        raise SystemExit(TERMINATED)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def _forked() -> None:
    """In a forked child. Those that `multiprocessing` makes end without the interpreter's exit handlers, so they get one of its own."""
    for run in list(_LIVE):
        run._fork()
    if signal.getsignal(signal.SIGTERM) is _terminate:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if "multiprocessing.util" in sys.modules:
        from multiprocessing import util

        util.register_after_fork(_finish_all, lambda _: util.Finalize(None, _finish_all, exitpriority=10))


os.register_at_fork(after_in_child=_forked)
atexit.register(_finish_all)
