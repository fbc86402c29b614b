"""The run that user code holds: it gathers metrics and writes them in batches.

A point is on disk at the latest a second after it was logged, and when the block ends; only `kill -9` or the
loss of power within that second loses it. A batch that a full disk has refused is kept and tried again.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from davy.errors import Conflict, DavyError, InvalidInput
from davy.features.calls import checked_call
from davy.home import Home
from davy.tracking import artifacts, runs
from davy.tracking.experiments import ensure_experiment
from davy.tracking.records import COMMIT, PARENT, SOURCE, USER, Metric, Status, check_key, check_number, check_path, check_step

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextvars import Token
    from types import TracebackType

    from sqlalchemy import Connection

BATCH = 1000
SECONDS = 1.0
_ADJECTIVES = ("brisk", "calm", "clear", "deep", "eager", "fair", "gentle", "keen", "level", "lucid", "merry", "noble", "plain", "quiet", "rapid", "steady")
_NOUNS = ("anchor", "beacon", "bridge", "canal", "comet", "delta", "ember", "flint", "harbor", "lantern", "meadow",
          "orchard", "prism", "river", "summit", "valley")


class Figure(Protocol):
    """Anything that draws itself into a file, as matplotlib's figures do."""

    def savefig(self, file: Any, *, format: str) -> Any: ...


class Run:
    """A run that is being written. Use it as a context manager, or call `finish()`. All methods may be called from any thread.

    Attributes:
        id: 32 hex digits.
        name: what people call it.
    """

    def __init__(self, home: Home, run_id: str, name: str, *, owned: bool = False) -> None:
        self.id, self.name = run_id, name
        self._home, self._owned, self._process = home, owned, os.getpid()
        self._points: list[Metric] = []
        self._steps: dict[str, int] = {}
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._ended = False
        self._token: Token[Run | None] | None = None
        _LIVE.add(self)

    def log(self, values: Mapping[str, Any] | None = None, /, *, step: int | None = None, time: int | None = None, **more: Any) -> None:
        """Log metrics: `run.log(loss=0.3, step=1)` or `run.log({"val/loss": 0.3}, step=1)`.

        Args:
            step: where on the curve; left out, each metric counts on from its own last step, starting at 0.
            time: microseconds (default: now).
        """
        moment = self._home.clock.now() if time is None else time
        given = {**values, **more} if values else more
        checked = [(check_key("metric", key), check_number(key, value)) for key, value in given.items()]
        with self._lock:
            self._open()
            for key, value in checked:
                at = self._steps.get(key, 0) if step is None else check_step(key, step)
                self._steps[key] = at + 1
                self._points.append(Metric(key, value, at, moment))
            full = len(self._points) >= BATCH
            if checked and self._timer is None and not full:
                self._timer = threading.Timer(SECONDS, self._flush_later)
                self._timer.daemon = True
                self._timer.start()
        if full:
            self.flush()

    def flush(self) -> None:
        """Return when all that was logged is on disk.

        Raises:
            StorageFull: it is not; it is kept and written with the next flush.
        """
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            points = self._points
            if not points:
                return
            with self._home.database.begin() as connection:
                runs.writable(connection, self.id)
                runs.log_metrics(connection, self.id, points)
            self._points = []

    @checked_call("run.param")
    def param(self, key: str, value: Any) -> None:
        """Set a param, once: the same value again is fine, another is a `Conflict`."""
        self.params({key: value})

    def params(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Set several params in one transaction: all of them or none."""
        with self._lock, self._writing() as connection:
            runs.log_params(connection, self.id, {**(values or {}), **more})

    @checked_call("run.tag")
    def tag(self, key: str, value: Any) -> None:
        """Set a tag; it may be changed."""
        self.tags({key: value})

    def tags(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Set several tags in one transaction."""
        with self._lock, self._writing() as connection:
            runs.set_tags(connection, self.id, {**(values or {}), **more})

    def artifact(self, source: str | Path | bytes | bytearray, name: str | None = None) -> str:
        """Keep a file or a folder (a path), or bytes (then with a name); returns the artifact's path in the run.

        Args:
            name: the path in the run (default: the file's own name).
        """
        if isinstance(source, (bytes, bytearray)):
            path = check_path(name or "")
            self._add({path: (self._home.blobs.put(source), len(source))})
            return path
        path = check_path(name or Path(source).resolve().name)
        self._add({at: self._home.blobs.put_file(file) for at, file in artifacts.collect(Path(source), path).items()})
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

    def finish(self, status: Status = "FINISHED") -> None:
        """End the run. Ending it twice is a no-op."""
        with self._lock:
            if self._ended:
                return
            self.flush()
            with self._home.database.begin() as connection:
                runs.finish_run(connection, self.id, status=status, ended=self._home.clock.now())
            self._ended = True
        _LIVE.discard(self)
        if self._owned:
            self._home.close()

    def __enter__(self) -> Self:
        self._token = _CURRENT.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._token is not None:
            _CURRENT.reset(self._token)
            self._token = None
        if kind is None or (issubclass(kind, SystemExit) and not getattr(error, "code", 1)):
            self.finish("FINISHED")
        else:
            self.finish("KILLED" if issubclass(kind, (KeyboardInterrupt, GeneratorExit)) else "FAILED")

    def __repr__(self) -> str:
        return f"<Run {self.name} {self.id}>"

    def _flush_later(self) -> None:
        try:
            self.flush()
        except DavyError:
            # There is no caller on this thread to tell: the points stay, and the next log, flush or finish raises what is still wrong.
            return

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        self._open()
        with self._home.database.begin() as connection:
            runs.writable(connection, self.id)
            yield connection

    def _add(self, files: dict[str, tuple[str, int]]) -> None:
        with self._lock, self._writing() as connection:
            artifacts.add_artifacts(connection, self.id, files, clock=self._home.clock, blobs=self._home.blobs)

    def _open(self) -> None:
        if self._ended:
            raise Conflict(f"The run {self.name!r} has ended.", "A run is written to inside its block.", "Start another: davy.run(...)")


def start(name: str | None = None, *, experiment: str = "Default", params: Mapping[str, Any] | None = None, tags: Mapping[str, Any] | None = None,
          parent: str | None = None, home: Home | None = None) -> Run:
    """Start a run; see `davy.run`. Experiment, run, params and tags are written in one transaction."""
    outer = _CURRENT.get()
    owned = home is None and outer is None
    home = home or (outer._home if outer is not None else Home.open())
    if parent is None and outer is not None and outer._home.path == home.path:
        parent = outer.id
    name = name or _made_up(home)
    marks = {USER: home.actor, SOURCE: sys.argv[0] or "python", **(tags or {})}
    if COMMIT not in marks and (commit := _commit(home.root)):
        marks[COMMIT] = commit
    if parent is not None:
        marks[PARENT] = parent
    with home.database.begin() as connection:
        if parent is not None:
            runs.writable(connection, parent)
        found = ensure_experiment(connection, clock=home.clock, actor=home.actor, name=experiment)
        run_id = runs.create_run(connection, clock=home.clock, user=home.actor, experiment_id=found.id, name=name, tags=marks)
        runs.log_params(connection, run_id, params or {})
    return Run(home, run_id, name, owned=owned)


def current() -> Run | None:
    """The run whose block this is, if any."""
    return _CURRENT.get()


_CURRENT: ContextVar[Run | None] = ContextVar("davy_run", default=None)
_LIVE: set[Run] = set()


def _made_up(home: Home) -> str:
    adjective, noun, number = home.clock.token(3)
    return f"{_ADJECTIVES[adjective % len(_ADJECTIVES)]}-{_NOUNS[noun % len(_NOUNS)]}-{number}"


def _commit(root: Path) -> str | None:
    try:
        found = subprocess.run(["git", "rev-parse", "--verify", "-q", "HEAD"], cwd=root, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None


def _finish_all() -> None:
    """At the end of the interpreter: end what was left open, as failed when an error ended the program."""
    kind = getattr(sys, "last_type", None)
    status: Status = "FINISHED" if kind is None else "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"
    for run in list(_LIVE):
        if run._process == os.getpid():
            run.finish(status)


atexit.register(_finish_all)
