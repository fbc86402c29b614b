"""Whose turn it is to wait for a lock that many ask for, in every process."""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

try:
    import fcntl
except ImportError:  # then the threads of this process alone take turns
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from pathlib import Path

_SOON, _LATER = 0.0005, 0.01


class Turns:
    """One at a time waits for the lock itself, all others for their turn to do so: who has had it can't take it again before him who waits.

    Without this, one who asks for it again as soon as he has let go of it keeps the others out for as long as he likes, because
    they look only now and then.

    Args:
        path: a file that stands for the turn; made when absent. Where it can't be, only the threads of this process take turns.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mine = threading.Lock()
        self._descriptor = -1
        self._closing: weakref.finalize[[int], Turns] | None = None

    def take(self, seconds: float) -> bool:
        """Wait for the turn, for so long at most; whether it has come. Then `give` it on soon."""
        end = time.monotonic() + seconds
        if not self._mine.acquire(timeout=seconds):
            return False
        if self._descriptor < 0:
            self._open()
        pause = _SOON
        while not self._locked():
            if time.monotonic() > end:
                self._mine.release()
                return False
            time.sleep(pause)
            pause = min(pause * 2, _LATER)
        return True

    def give(self) -> None:
        """Let the next one wait for the lock."""
        if self._descriptor >= 0:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._mine.release()

    def close(self) -> None:
        """Let go of the file. Closing twice is a no-op; it may be used again."""
        with self._mine:
            if self._closing is not None:
                self._closing()
            self._descriptor, self._closing = -1, None

    def _open(self) -> None:
        if fcntl is not None:
            try:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError:
                return
            self._closing = weakref.finalize(self, os.close, self._descriptor)
            self._closing.atexit = False  # others may write until the very end

    def _locked(self) -> bool:
        if self._descriptor < 0:
            return True
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
