"""The gateway's side of one worker: requests are pipelined over one socket, and sent again if the worker dies before it answers."""

from __future__ import annotations

import asyncio
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from davy.errors import DavyError, InvalidInput, ModelFailed, TimedOut, UdfFailed, Unavailable
from davy.serving import frames
from davy.serving.sockets import address
from davy.serving.worker_spec import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

MOST_SENDS = 3
STUCK_SECONDS = 10.0
_SWEEP_SECONDS = 0.02
_RETRY_SECONDS = 0.02
_TOLD: dict[str, type[DavyError]] = {"InvalidInput": InvalidInput, "UdfFailed": UdfFailed}
_doubles: dict[int, struct.Struct] = {}


class _Pending:
    __slots__ = ("deadline", "frame", "future", "sends", "turn")

    def __init__(self, frame: bytes, deadline: float, future: asyncio.Future[list[Any]]) -> None:
        self.frame, self.deadline, self.future, self.sends = frame, deadline, future, 0
        self.turn = 0  # after how many answers the worker comes to it


class Link(asyncio.Protocol):
    """The connection to the worker of one version; it reconnects by itself.

    Args:
        name: `late@2`, for messages.
        path: the worker's socket.
        width: how many columns a row has.
        timeout: seconds in which an answer must come.
        stuck: called when the worker has been silent for long with requests before it.
    """

    def __init__(self, name: str, path: Path, width: int, timeout: float, stuck: Callable[[], None]) -> None:
        self.name, self._path, self._width, self._timeout, self._stuck = name, path, width, timeout, stuck
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport | None = None
        self._received = bytearray()
        self._pending: dict[int, _Pending] = {}
        self._number = frames.WARM_UP
        self._out: list[bytes] = []
        self._warm, self._closed, self._sweeping = asyncio.Event(), False, False
        self._heard = 0.0
        self._unanswered = self._answered = 0
        self._connecting = self._loop.create_task(self._connect())

    async def warm(self) -> None:
        """Return when the worker has answered its warm-up on this connection."""
        await self._warm.wait()

    @property
    def is_warm(self) -> bool:
        """Whether the worker is there now."""
        return self._warm.is_set()

    @property
    def hangs(self) -> bool:
        """Whether the worker has been silent, with requests before it, for longer than an answer may take."""
        return self._unanswered > 0 and time.perf_counter() - self._heard > self._timeout

    def predict(self, rows: int, values: bytes) -> asyncio.Future[list[Any]]:
        """The answers to these rows (row-major float64): a number, a list of probabilities, or a label for each.

        Raises (through the future):
            TimedOut: no answer in time. Unavailable: the worker is away. ModelFailed: its predict raised.
        """
        return self._ask(rows, values)

    def derive(self, rows: Sequence[Sequence[Any]]) -> asyncio.Future[list[Any]]:
        """The derived values of these rows of inputs, by the version's own process, since they hold a user's code.

        Raises (through the future):
            UdfFailed: a udf raised, or returned what it may not. InvalidInput: an int beyond 64 bits. TimedOut, Unavailable: as `predict`.
        """
        return self._ask(len(rows) | frames.DERIVE, msgspec.msgpack.encode(rows))

    def _ask(self, rows: int, values: bytes) -> asyncio.Future[list[Any]]:
        self._number = number = self._number % 0xFFFF_FFFF + 1
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        pending = self._pending[number] = _Pending(frames.request(number, rows, values), self._loop.time() + self._timeout, future)
        if self._warm.is_set():
            self._send(pending)
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(_SWEEP_SECONDS, self._sweep)
        return future

    def close(self) -> None:
        """Let go of the worker. Requests before it fail as Unavailable."""
        self._closed = True
        self._connecting.cancel()
        if self._transport is not None:
            self._transport.abort()
        for pending in self._pending.values():
            self._fail(pending, self.away())
        self._pending.clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._received.clear()
        self._out.clear()
        self._heard, self._unanswered = time.perf_counter(), 1
        self._transport.write(frames.request(frames.WARM_UP, 1, bytes(8 * self._width)))  # type: ignore[union-attr]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._warm.clear()
        if self._closed:
            return
        for number in [number for number, pending in self._pending.items() if pending.sends >= MOST_SENDS]:
            self._fail(self._pending.pop(number), self.away())
        self._connecting = self._loop.create_task(self._connect())

    def data_received(self, data: bytes) -> None:
        self._heard = time.perf_counter()
        received = self._received
        received += data
        at, size = 0, len(received)
        while size - at >= frames.ANSWER.size:
            length, number, rows, columns = frames.ANSWER.unpack_from(received, at)
            end = at + frames.LENGTH.size + length
            if size < end:
                break
            self._take(number, rows, columns, bytes(received[at + frames.ANSWER.size : end]))
            at = end
        del received[:at]

    def _take(self, number: int, rows: int, columns: int, body: bytes) -> None:
        self._unanswered -= 1
        self._answered += 1
        if number == frames.WARM_UP:
            self._warm.set()
            for waiting in self._pending.values():
                self._send(waiting)
            return
        pending = self._pending.pop(number, None)
        if pending is None or pending.future.done():
            return
        if columns == frames.ERROR:
            problem = msgspec.json.decode(body, type=Problem)
            kind = _TOLD.get(problem.code, ModelFailed)
            pending.future.set_exception(kind(problem.came, problem.allowed, problem.fix))
        else:
            pending.future.set_result(decode(rows, columns, body))

    def _send(self, pending: _Pending) -> None:
        """Write now if the line is idle; else together with what else this turn of the loop brings."""
        pending.sends += 1
        pending.turn = self._answered + self._unanswered
        self._unanswered += 1
        if self._unanswered == 1:
            self._heard = time.perf_counter()
            self._transport.write(pending.frame)  # type: ignore[union-attr]
            return
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(pending.frame)

    def _flush(self) -> None:
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _sweep(self) -> None:
        now = self._loop.time()
        for number, pending in list(self._pending.items()):
            if pending.future.done():
                del self._pending[number]
            elif pending.deadline <= now:
                del self._pending[number]
                self._fail(pending, self.late(pending) if self._warm.is_set() else self.away())
            else:
                break
        if self._unanswered > 0 and self._transport is not None and time.perf_counter() - self._heard > max(STUCK_SECONDS, 2 * self._timeout):
            self._heard = time.perf_counter()
            self._stuck()
        self._sweeping = bool(self._pending)
        if self._sweeping:
            self._loop.call_later(_SWEEP_SECONDS, self._sweep)

    async def _connect(self) -> None:
        while not self._closed:
            with suppress(OSError):
                await self._loop.create_unix_connection(lambda: self, address(self._path))
                return
            await asyncio.sleep(_RETRY_SECONDS)

    def _fail(self, pending: _Pending, error: Exception) -> None:
        if not pending.future.done():
            pending.future.set_exception(error)

    def late(self, pending: _Pending | None = None) -> TimedOut:
        """The error of an answer that doesn't come; of a request that waited behind another one, it says so."""
        if pending is not None and self._answered < pending.turn:
            return TimedOut(f"{self.name} was busy with an earlier request for {self._timeout:g} s, and had not come to this one.",
                            "It computes one request after the other, also those that nobody waits for any more.", "Try again in a moment.")
        return TimedOut(f"{self.name} did not answer within {self._timeout:g} s.", "The limit is [serving] timeout in davy.toml.",
                        "Try again, or send fewer rows at once.")

    def away(self) -> Unavailable:
        """The error of a worker that isn't there."""
        return Unavailable(f"The process of {self.name} is away; it is being started again.", "", "Try again in a moment.")


def decode(rows: int, columns: int, body: bytes) -> list[Any]:
    """The answers in a frame's body, one for each row."""
    if columns == frames.LABELS:
        return msgspec.json.decode(body)  # type: ignore[no-any-return]
    if columns == frames.DERIVED:
        return msgspec.msgpack.decode(body)  # type: ignore[no-any-return]
    count = rows * columns
    doubles = _doubles.get(count)
    if doubles is None:
        doubles = _doubles[count] = struct.Struct(f"<{count}d")
    found = doubles.unpack(body)
    return list(found) if columns == 1 else [list(found[start : start + columns]) for start in range(0, count, columns)]
