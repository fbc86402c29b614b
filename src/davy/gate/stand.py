"""A test stand: the real gateway and the real worker processes, on sockets and in a log of their own, beside those that serve.

Versions are loaded, warmed up and asked exactly as they will be, and what happens here reaches no user and no prediction log.
Features are read from the home's own online state. The stand's event loop runs in a thread; its methods block.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from davy.core.time import parse_duration
from davy.errors import DavyError, NotEnoughData
from davy.events.client import connect
from davy.features.online import OnlineFeatures
from davy.gate import asking
from davy.gate.fleet import StandFleet
from davy.home import Home
from davy.serving.fleet import worker_name, workers_folder
from davy.serving.gateway import Gateway
from davy.serving.predictions import PredictionLog, folder_of
from davy.serving.routes import Routes, VersionRoute

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence
    from concurrent.futures import Future

    from davy.features.definition import FeatureSet

BATCH = 500
_LOOK_SECONDS = 0.002
T = TypeVar("T")


class Stand:
    """Versions of one model, each started when it is first asked for."""

    def __init__(self, home: Home, model: str) -> None:
        self.model = model
        self._real, self._folder = home, Path(tempfile.mkdtemp(prefix="davy-gate-"))
        self._home = _Aside(home, self._folder)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gate", daemon=True)
        self._thread.start()
        self._log_is_ours = threading.Lock()
        self._log = PredictionLog(folder_of(self._home))
        self._fleet, self._gateway = self._run(self._assemble())
        self._starting: dict[int, Future[VersionRoute]] = {}

    def start(self, version: int) -> Future[VersionRoute]:
        """Let a version be loaded and warm up while other things are done; returns once its files are laid out, so that the store is asked in turn."""
        if version not in self._starting:
            started = self._starting[version] = asyncio.run_coroutine_threadsafe(self._gateway.routes.version(self.model, version), self._loop)
            laid_out = workers_folder(self._home) / f"{worker_name(self.model, version)}.json"
            while not laid_out.exists() and not started.done():
                time.sleep(_LOOK_SECONDS)
        return self._starting[version]

    def route(self, version: int) -> VersionRoute:
        """The version, once it has answered its warm-up.

        Raises:
            DavyError: why it can't be loaded.
        """
        return self.start(version).result()

    def ready(self, version: int) -> VersionRoute:
        """`route` for those who measure.

        Raises:
            NotEnoughData: it can't be started, so that nothing can be measured on it.
        """
        try:
            return self.route(version)
        except DavyError as error:
            raise NotEnoughData(f"{self.model}@{version} can't be started: {error.came}", "", "See the check `loads`.") from error

    def predict(self, version: int, matrix: np.ndarray, *, batch: int = BATCH) -> np.ndarray | list[Any]:
        """The version's answers for (n, d) rows from its worker, in requests of `batch` rows: floats of shape (n,) or (n, k), or n labels.

        Raises:
            ModelFailed, TimedOut, Unavailable: it did not answer.
        """
        found = self._run(asking.predict(self.ready(version).link, matrix, batch))
        return np.array(found, dtype=np.float64) if _numeric(found) else found

    def predict_each(self, version: int, matrix: np.ndarray) -> list[Any]:
        """One answer for each row, each asked alone; an error takes the place of an answer that did not come."""
        return self._run(asking.predict_each(self.ready(version).link, matrix))

    def time_pairs(self, rows: Mapping[int, Sequence[bytes]], *, pairs: int, seconds: float) -> dict[int, list[float]]:
        """Microseconds that single rows take through the socket and back, the versions taking turns; as many for each.

        Args:
            rows: per version the rows that it is asked with.
            seconds: no more are begun after this time.
        """
        for version in rows:
            self.start(version)
        return self._run(asking.time_pairs({version: self.ready(version).link for version in rows}, rows, pairs, seconds))

    def ask_all(self, version: int, bodies: Sequence[bytes]) -> list[tuple[int, Any]]:
        """The HTTP status and the decoded answer that the gateway gives each body for a pinned version, one after the other.

        Fewer than bodies when the worker was silent several times.
        """
        self.ready(version)
        return self._run(asking.ask_all(self._gateway, self.model, bodies, version))

    def rehearse(self, plan: Sequence[Mapping[int, float]], bodies: Sequence[bytes], *, clients: int, seconds: float) -> asking.Rehearsal:
        """Set the weights of each step of the plan in turn, for `seconds` each, while clients ask without a pause."""
        routes = {version: self.ready(version) for weights in plan for version in weights}

        def ask(turn: int) -> Coroutine[Any, Any, tuple[int, Any]]:
            return asking.ask(self._gateway, self.model, bodies[turn % len(bodies)], None, f"rehearsal {turn}")

        return self._run(asking.rehearse(self._gateway, routes, plan, ask, clients, seconds))

    def ends(self, version: int) -> int:
        """How often the worker has died."""
        return self._fleet.ends.get(worker_name(self.model, version), 0)

    def memory(self, version: int) -> int | None:
        """Bytes of memory that the worker holds now (resident); None where the system doesn't tell."""
        self.ready(version)
        with suppress(OSError, ValueError, IndexError):
            pid = self._fleet.pid(worker_name(self.model, version))
            return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return None

    def close(self) -> None:
        """End the workers and remove everything."""
        for started in self._starting.values():
            started.cancel()
        self._run(self._dismantle())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _assemble(self) -> tuple[StandFleet, Gateway]:
        timeout = parse_duration(self._home.config.serving.timeout) / 1e6
        fleet = StandFleet(self._home)
        routes = Routes(self._home, OnlineFeatures(self._real.online), fleet, self._ensure_views, timeout)
        return fleet, Gateway(self._home, routes, self._log, acknowledged=False, timeout=timeout)

    def _ensure_views(self, feature_set: FeatureSet) -> None:
        """Let the online state be kept of views that are new; one version at a time, because each may take the log over."""
        with self._log_is_ours:
            kept = {view.digest for _, view in OnlineFeatures(self._real.online).views()}
            new = [(feature_set.stream(view.stream), view) for view in feature_set.views if view.digest not in kept]
            if new:
                with connect(self._real) as log:
                    log.ensure_views(new)

    async def _dismantle(self) -> None:
        self._gateway.routes.close()
        await self._fleet.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class _Aside(Home):
    """A home whose sockets, workers and prediction log lie in another folder, and everything else where it is."""

    def __init__(self, home: Home, folder: Path) -> None:
        super().__init__(home.root, path=folder, clock=home.clock)
        self.__dict__ |= {"database": home.database, "blobs": home.blobs}


def _numeric(found: Sequence[Any]) -> bool:
    return all(isinstance(item, (int, float, list)) and not isinstance(item, bool) for item in found)
