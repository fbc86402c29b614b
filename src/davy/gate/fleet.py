"""The stand's own workers: started, watched and ended by the process that judges."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from davy.serving.fleet import workers_folder
from davy.serving.sockets import listen

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from davy.home import Home

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_WATCH_SECONDS = 0.05
_MOST_STARTS = 5
_CANNOT_LOAD = 1


class StandFleet:
    """Keeps workers running, each on a socket that it inherits, as the supervisor does; a `Fleet` of serving's.

    Attributes:
        ends: per worker how often it has died.
    """

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
