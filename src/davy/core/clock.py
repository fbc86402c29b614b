"""The only source of time and randomness.

Production runs on `SystemClock`. Tests and replays of the past run on `DrivenClock`, whose time stands in
eight bytes of a file, so that every process of one home reads the same moment.
"""

from __future__ import annotations

import mmap
import os
import random
import struct
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

_MICROS = struct.Struct("<q")


class Clock(Protocol):
    """What every part asks for time and randomness."""

    def now(self) -> int:
        """Microseconds since 1970 in UTC. May stand still; never assume that two calls differ."""
        ...

    def token(self, size: int) -> bytes:
        """`size` random bytes, for identifiers (never for secrets under a driven clock)."""
        ...


class SystemClock:
    """The machine's clock and its random source."""

    def now(self) -> int:
        return time.time_ns() // 1000

    def token(self, size: int) -> bytes:
        return os.urandom(size)


class DrivenClock:
    """A clock that stands where it was last set, shared through a file by all processes that open it.

    Args:
        path: eight bytes, little-endian signed microseconds; created when absent.
        seed: makes `token` repeatable within this process; identifiers stay random without it.
    """

    def __init__(self, path: Path, *, start: int | None = None, seed: int | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if os.fstat(descriptor).st_size < _MICROS.size:
                os.ftruncate(descriptor, _MICROS.size)
            self._map = mmap.mmap(descriptor, _MICROS.size)
        finally:
            os.close(descriptor)
        self._random = random.Random(seed) if seed is not None else None
        if start is not None:
            self.set(start)

    def now(self) -> int:
        return int(_MICROS.unpack_from(self._map)[0])

    def set(self, micros: int) -> None:
        """Move to this moment, forwards or back."""
        _MICROS.pack_into(self._map, 0, micros)

    def token(self, size: int) -> bytes:
        return os.urandom(size) if self._random is None else self._random.randbytes(size)


def new_id(clock: Clock) -> str:
    """32 hex digits that sort by time: 48 bits of milliseconds, then 80 random bits."""
    millis = max(clock.now() // 1000, 0) & 0xFFFF_FFFF_FFFF
    return f"{millis:012x}{clock.token(10).hex()}"
