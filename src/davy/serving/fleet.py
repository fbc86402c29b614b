"""What a gateway asks of the process that keeps the workers running: which versions it wants, and which one hangs."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Protocol

import msgspec

from davy.core.digest import digest_bytes
from davy.serving.sockets import address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from davy.home import Home


class Order(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line from a gateway: all the workers that it wants from now on, or one to be started anew."""

    want: tuple[str, ...] | None = None
    restart: str | None = None


class Fleet(Protocol):
    """Who starts and stops workers. A worker `name` loads `run/workers/NAME.json` and listens at `run/workers/NAME.sock`."""

    def want(self, names: Iterable[str]) -> None:
        """Keep exactly these workers running for this gateway. They come up in their own time."""
        ...

    def restart(self, name: str) -> None:
        """Kill this worker, which hangs, and start it again."""
        ...


def worker_name(model: str, version: int) -> str:
    """A file name for this version's worker, whatever the model is called."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", model)[:32]
    return f"{plain}@{version}" if plain == model else f"{plain}-{digest_bytes(model.encode())[7:15]}@{version}"


def workers_folder(home: Home) -> Path:
    """Where specifications and sockets of workers lie."""
    return home.place("run", "workers")


def control_path(home: Home) -> Path:
    """The socket at which the supervisor takes orders."""
    return home.place("run", "up.sock")


class SupervisedFleet(asyncio.Protocol):
    """Orders go to the supervisor over its socket.

    Args:
        gone: called when the supervisor has ended.
    """

    def __init__(self, gone: Callable[[], None]) -> None:
        self._gone = gone
        self._transport: asyncio.WriteTransport | None = None

    async def connect(self, path: Path) -> None:
        """Find the supervisor."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self, address(path))

    def want(self, names: Iterable[str]) -> None:
        self._send(Order(want=tuple(sorted(names))))

    def restart(self, name: str) -> None:
        self._send(Order(restart=name))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._gone()

    def _send(self, order: Order) -> None:
        if self._transport is not None:
            self._transport.write(msgspec.json.encode(order) + b"\n")
