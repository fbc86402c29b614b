"""Child processes that end with their parent, whichever way it ends."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

BACKOFF_SECONDS = (0.02, 10.0)
STEADY_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class Child:
    """A process that is started again, after a growing pause, whenever it ends by itself.

    Args:
        arguments: after the interpreter's own name.
        descriptors: open files that it inherits.
        farewell: the signal by which it is asked to end, also sent by the kernel when this process dies.
        tell: takes a line for the log.

    Attributes:
        ends: how often it has ended by itself.
    """

    def __init__(self, name: str, arguments: Sequence[str], *, folder: Path, output: int, descriptors: Sequence[int] = (), farewell: int = signal.SIGTERM,
                 environment: dict[str, str] | None = None, tell: Callable[[str], None]) -> None:
        self.name, self._arguments, self._folder, self._output = name, tuple(arguments), folder, output
        self._descriptors, self._farewell, self._tell = tuple(descriptors), farewell, tell
        self._environment = {**os.environ, **(environment or {})}
        self.ends = 0
        self._parent = os.getpid()
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._task = asyncio.get_running_loop().create_task(self._keep())

    @property
    def running(self) -> bool:
        """Whether it is there now."""
        return self._process is not None and self._process.returncode is None

    def kill(self) -> None:
        """End it at once; it is started again."""
        self._signal(signal.SIGKILL)

    async def stop(self, patience: float) -> None:
        """Ask it to end, wait, then insist."""
        self._stopping = True
        self._signal(self._farewell)
        try:
            await asyncio.wait_for(asyncio.shield(self._task), patience)
        except TimeoutError:
            self._tell(f"{self.name} did not end within {patience:g} s and was killed")
            self._signal(signal.SIGKILL)
            await self._task

    async def _keep(self) -> None:
        pause, longest = BACKOFF_SECONDS
        while not self._stopping:
            began = time.perf_counter()
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, *self._arguments, cwd=self._folder, stdin=asyncio.subprocess.DEVNULL, stdout=self._output, stderr=self._output,
                pass_fds=self._descriptors, start_new_session=True, env=self._environment,
                preexec_fn=partial(end_with_parent, self._parent, self._farewell))
            if self._asked_to_stop():
                self._signal(self._farewell)
            code = await self._process.wait()
            if self._asked_to_stop():
                return
            self.ends += 1
            lived = time.perf_counter() - began
            if lived > STEADY_SECONDS:
                pause = BACKOFF_SECONDS[0]
            self._tell(f"{self.name} ended with {_reason(code)} after {lived:.1f} s; it is started again")
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    def _asked_to_stop(self) -> bool:
        return self._stopping

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)


def end_with_parent(parent: int, farewell: int) -> None:
    """In a child, before it begins: get the farewell when the parent dies. Elsewhere than on Linux, children notice by themselves."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, farewell, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def _reason(code: int) -> str:
    if code >= 0:
        return f"code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
