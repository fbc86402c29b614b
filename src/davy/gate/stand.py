"""A test stand: the real gateway and the real worker processes, on sockets and in a log of their own, beside those that serve.

Versions are loaded, warmed up and asked exactly as they will be, and what happens here reaches no user and no prediction log.
Features are read from the home's own online state. The stand's event loop runs in a thread; its methods block.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np

from davy.core.time import parse_duration
from davy.errors import DavyError, ModelFailed, NotEnoughData
from davy.events.client import connect
from davy.features.online import OnlineFeatures
from davy.home import Home
from davy.serving.fleet import worker_name, workers_folder
from davy.serving.gateway import Gateway
from davy.serving.predictions import PredictionLog, folder_of
from davy.serving.routes import ModelRoute, Routes, VersionRoute
from davy.serving.sockets import listen
from davy.serving.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping, Sequence

    from davy.features.definition import FeatureSet

BATCH = 500
INTERNAL_ERROR = 500
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_WATCH_SECONDS = 0.05
_MOST_STARTS = 5
_CANNOT_LOAD = 1
T = TypeVar("T")


class Stand:
    """Versions of one model, ready to be asked.

    Args:
        versions: they are started at once, and warm up while other things are done.
    """

    def __init__(self, home: Home, model: str, versions: Iterable[int]) -> None:
        self.model = model
        self._real, self._folder = home, Path(tempfile.mkdtemp(prefix="davy-gate-"))
        self._home = _Aside(home, self._folder)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gate", daemon=True)
        self._thread.start()
        self._log = PredictionLog(folder_of(self._home))
        self._fleet, self._routes, self._gateway = self._run(self._assemble())
        self._starting = {version: asyncio.run_coroutine_threadsafe(self._routes.version(model, version), self._loop) for version in versions}

    def route(self, version: int) -> VersionRoute:
        """The version, once it has answered its warm-up.

        Raises:
            DavyError: why it can't be loaded.
        """
        return self._starting[version].result()

    def ready(self, *versions: int) -> None:
        """Return when these are warm.

        Raises:
            NotEnoughData: one can't be started, so that nothing can be measured on it.
        """
        for version in versions:
            try:
                self.route(version)
            except DavyError as error:
                raise NotEnoughData(f"{self.model}@{version} can't be started: {error.came}", "", "See the check `loads`.") from error

    def predict(self, version: int, matrix: np.ndarray, *, batch: int = BATCH) -> np.ndarray | list[Any]:
        """The version's answers for (n, d) rows from its worker, in requests of `batch` rows: floats of shape (n,) or (n, k), or n labels.

        Raises:
            ModelFailed, TimedOut, Unavailable: it did not answer.
        """
        self.ready(version)
        found = self._run(self._predict(version, matrix, batch))
        return np.array(found, dtype=np.float64) if _numeric(found) else found

    def predict_each(self, version: int, matrix: np.ndarray) -> list[Any]:
        """One answer for each row, each asked alone; an error takes the place of an answer that did not come."""
        self.ready(version)
        return self._run(self._predict_each(version, matrix))

    def time_pairs(self, versions: Sequence[int], rows: Mapping[int, Sequence[bytes]], *, pairs: int, seconds: float) -> dict[int, list[float]]:
        """Microseconds that single rows take through the socket and back, the versions taking turns; as many for each.

        Args:
            seconds: no more are begun after this time.
        """
        self.ready(*versions)
        return self._run(self._time_pairs(versions, rows, pairs, seconds))

    def ask(self, version: int, body: bytes) -> tuple[int, Any]:
        """The HTTP status and the decoded answer that the gateway gives this body for a pinned version."""
        self.ready(version)
        return self._run(self._ask(body, version))

    def ask_all(self, version: int, bodies: Sequence[bytes]) -> list[tuple[int, Any]]:
        """`ask` for many bodies, one after the other."""
        self.ready(version)
        return self._run(self._ask_in_turn(bodies, version))

    def pid(self, version: int) -> int:
        """The worker's process."""
        self.ready(version)
        return self._fleet.pid(worker_name(self.model, version))

    def ends(self, version: int) -> int:
        """How often the worker has ended by itself."""
        return self._fleet.ends.get(worker_name(self.model, version), 0)

    def memory(self, version: int) -> int | None:
        """Bytes of memory that the worker holds now (resident); None where the system doesn't tell."""
        with suppress(OSError, ValueError, IndexError):
            return int(Path(f"/proc/{self.pid(version)}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return None

    def rehearse(self, plan: Sequence[Mapping[int, float]], bodies: Sequence[bytes], *, clients: int, seconds: float) -> Rehearsal:
        """Set the weights of each step of the plan in turn, for `seconds` each, while clients ask without a pause."""
        self.ready(*{version for weights in plan for version in weights})
        return self._run(self._rehearse(plan, bodies, clients, seconds))

    def close(self) -> None:
        """End the workers and remove everything."""
        for started in self._starting.values():
            started.cancel()
        with suppress(RuntimeError):
            self._run(self._dismantle())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Stand:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _assemble(self) -> tuple[_Fleet, Routes, Gateway]:
        timeout = parse_duration(self._home.config.serving.timeout) / 1e6
        fleet = _Fleet(self._home)
        routes = Routes(self._home, OnlineFeatures(self._real.online), fleet, self._ensure_views, timeout)
        return fleet, routes, Gateway(self._home, routes, self._log, acknowledged=False, timeout=timeout)

    def _ensure_views(self, feature_set: FeatureSet) -> None:
        with connect(self._real) as log:
            log.ensure_views([(feature_set.stream(view.stream), view) for view in feature_set.views])

    async def _dismantle(self) -> None:
        self._routes.close()
        await self._fleet.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _predict(self, version: int, matrix: np.ndarray, batch: int) -> list[Any]:
        link = (await self._routes.version(self.model, version)).link
        found: list[Any] = []
        for start in range(0, len(matrix), batch):
            part = np.ascontiguousarray(matrix[start : start + batch], dtype="<f8")
            found += await link.predict(len(part), part.tobytes())
        return found

    async def _predict_each(self, version: int, matrix: np.ndarray) -> list[Any]:
        link = (await self._routes.version(self.model, version)).link
        found: list[Any] = []
        for row in np.ascontiguousarray(matrix, dtype="<f8"):
            try:
                found += await link.predict(1, row.tobytes())
            except DavyError as error:
                found.append(error)
        return found

    async def _time_pairs(self, versions: Sequence[int], rows: Mapping[int, Sequence[bytes]], pairs: int, seconds: float) -> dict[int, list[float]]:
        links = {version: (await self._routes.version(self.model, version)).link for version in versions}
        took: dict[int, list[float]] = {version: [] for version in versions}
        end = time.perf_counter() + seconds
        for turn in range(pairs):
            for version in versions if turn % 2 == 0 else reversed(versions):
                row = rows[version][turn % len(rows[version])]
                before = time.perf_counter_ns()
                with suppress(ModelFailed):
                    await links[version].predict(1, row)
                took[version].append((time.perf_counter_ns() - before) / 1000)
            if time.perf_counter() > end:
                break
        return took

    async def _ask_in_turn(self, bodies: Sequence[bytes], version: int) -> list[tuple[int, Any]]:
        return [await self._ask(body, version) for body in bodies]

    async def _ask(self, body: bytes, version: int | None, key: str | None = None) -> tuple[int, Any]:
        """What the server's application makes of it: a DavyError has its status, anything else is a 500."""
        try:
            return 200, msgspec.json.decode(await self._gateway.predict(self.model, body, version=version, routing_key=key))
        except DavyError as error:
            return error.status, f"{error.code}: {error.came}"
        except Exception as error:  # noqa: BLE001 - any other exception is what the server answers 500 for; the check tells of it
            return INTERNAL_ERROR, "".join(traceback.format_exception_only(error)).strip()

    async def _rehearse(self, plan: Sequence[Mapping[int, float]], bodies: Sequence[bytes], clients: int, seconds: float) -> Rehearsal:
        routes = {version: await self._routes.version(self.model, version) for weights in plan for version in weights}
        asked: list[_Asked] = []
        stop = asyncio.Event()
        self._switch(plan[0], routes, 1)
        asking = [asyncio.create_task(self._client(number, bodies, asked, stop)) for number in range(clients)]
        moments = [time.perf_counter()]
        await asyncio.sleep(seconds)
        for revision, weights in enumerate(plan[1:], 2):
            self._switch(weights, routes, revision)
            moments.append(time.perf_counter())
            await asyncio.sleep(seconds)
        stop.set()
        await asyncio.gather(*asking)
        return Rehearsal(tuple(dict(weights) for weights in plan), tuple(moments), tuple(asked))

    def _switch(self, weights: Mapping[int, float], routes: Mapping[int, VersionRoute], revision: int) -> None:
        """What a running gateway does when it has seen new weights."""
        traffic = Traffic(self.model, revision, {f"{self.model}@{version}": weight for version, weight in weights.items()}, 0, "gate")
        self._routes.models[self.model] = ModelRoute(traffic, {version: routes[version] for version in weights})

    async def _client(self, number: int, bodies: Sequence[bytes], asked: list[_Asked], stop: asyncio.Event) -> None:
        turn = number
        while not stop.is_set():
            before = time.perf_counter()
            status, answer = await self._ask(bodies[turn % len(bodies)], None, f"rehearsal {turn}")
            asked.append(_Asked(before, time.perf_counter(), status, answer["version"] if status == 200 else None, None if status == 200 else str(answer)))
            turn += 1009


class _Asked(msgspec.Struct, frozen=True):
    """One request of a rehearsal: when it was begun and answered (seconds), by whom, or with which error."""

    began: float
    ended: float
    status: int
    version: int | None
    error: str | None


class Rehearsal(msgspec.Struct, frozen=True):
    """What clients met while weights moved. `moments` are when each step's weights were set."""

    plan: tuple[dict[int, float], ...]
    moments: tuple[float, ...]
    asked: tuple[_Asked, ...]


class _Aside(Home):
    """A home whose sockets, workers and prediction log lie in another folder, and everything else where it is."""

    def __init__(self, home: Home, folder: Path) -> None:
        super().__init__(home.root, path=folder, clock=home.clock)
        self.__dict__ |= {"database": home.database, "blobs": home.blobs}


class _Fleet:
    """Keeps the stand's workers running, each on a socket that it inherits, as the supervisor does."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._workers: dict[str, tuple[subprocess.Popen[bytes], socket.socket]] = {}
        self.ends: dict[str, int] = {}
        self._output = (home.path / "gate.log").open("ab")
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    def want(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._workers:
                listener = listen(workers_folder(self._home) / f"{name}.sock")
                self._workers[name] = self._start(name, listener), listener

    def restart(self, name: str) -> None:
        self._workers[name][0].kill()

    def pid(self, name: str) -> int:
        return self._workers[name][0].pid

    async def close(self) -> None:
        self._watching.cancel()
        for process, listener in self._workers.values():
            process.kill()
            process.wait()
            listener.close()
        self._output.close()

    def _start(self, name: str, listener: socket.socket) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "davy.serving.worker", str(workers_folder(self._home) / f"{name}.json"), str(listener.fileno()), str(os.getpid())]
        return subprocess.Popen(command, cwd=self._home.root, stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._output, start_new_session=True,
                                pass_fds=[listener.fileno()], env={**os.environ, **_ONE_THREAD})

    async def _watch(self) -> None:
        """Start again what has died while it served, a few times. One that can't load its model has said why, and stays away."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            for name, (process, listener) in list(self._workers.items()):
                if process.poll() not in (None, _CANNOT_LOAD) and self.ends.get(name, 0) < _MOST_STARTS:
                    self.ends[name] = self.ends.get(name, 0) + 1
                    self._workers[name] = self._start(name, listener), listener


def _numeric(found: Sequence[Any]) -> bool:
    return all(isinstance(item, (int, float, list)) and not isinstance(item, bool) for item in found)
