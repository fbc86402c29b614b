"""The hot path: a request becomes a vector, the vector an answer, and the answer a line in the prediction log.

It works from what stands in the registry alone (feature sets and signatures as JSON): it imports nobody's code and
unpickles nothing. A version with udfs has its derived features computed by its own worker.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import msgspec

from davy.core.time import format_time
from davy.errors import DavyError, TimedOut
from davy.features.kernel import code_digest
from davy.serving.predictions import PredictionRecord
from davy.serving.udfs import derive

if TYPE_CHECKING:
    from davy.core.clock import Clock
    from davy.features.online import Vector
    from davy.home import Home
    from davy.serving.predictions import PredictionLog
    from davy.serving.requests import Asked
    from davy.serving.routes import Routes, VersionRoute

_YIELD_EVERY = 16
_DRAWN = 256
_ENCODER = msgspec.json.Encoder()


class Answer(msgspec.Struct):
    """What one row of a request is answered with."""

    prediction_id: str
    prediction: Any
    model: str
    version: int
    arm: str
    time: str
    watermarks: dict[str, int]


class _Row:
    """One row on its way."""

    __slots__ = ("arm", "asked", "features", "key", "output", "packed", "route", "vector")

    def __init__(self, asked: Asked, key: str, route: VersionRoute, arm: str) -> None:
        self.asked, self.key, self.route, self.arm = asked, key, route, arm
        self.vector: Vector
        self.packed = b""
        self.features = 0
        self.output: Any = None

    def read(self) -> None:
        """Compute the vector, and the model's row of it; with udfs, what they take."""
        before = time.perf_counter_ns()
        self.vector = vector = self.route.reader.read_encoded(self.asked.entities, self.asked.request)
        self.features = (time.perf_counter_ns() - before) // 1000
        if self.route.split is None:
            self.packed = self.route.pack(*self.route.encode(vector.values))


class _Ids:
    """Ids as `new_id` makes them, with randomness drawn for many at a time: a system call for each would cost as much as the model."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pool: list[str] = []

    def next(self, now: int) -> str:
        if not self._pool:
            drawn = self._clock.token(10 * _DRAWN)
            self._pool = [drawn[start : start + 10].hex() for start in range(0, len(drawn), 10)]
        return f"{max(now // 1000, 0) & 0xFFFF_FFFF_FFFF:012x}{self._pool.pop()}"


class _Writes:
    """Log entries of all requests that are answered in one turn of the event loop, written together."""

    def __init__(self, log: PredictionLog) -> None:
        self._log = log
        self._records: list[PredictionRecord] = []
        self._written: asyncio.Future[None] | None = None

    async def write(self, records: list[PredictionRecord], *, alone: bool) -> None:
        """Return when the operating system has them; at once when no other request is on its way."""
        if alone and self._written is None:
            self._log.append(records)
            return
        if self._written is None:
            loop = asyncio.get_running_loop()
            self._written = loop.create_future()
            loop.call_soon(self._flush)
        self._records += records
        await self._written

    def _flush(self) -> None:
        written, self._written, records, self._records = self._written, None, self._records, []
        assert written is not None
        try:
            self._log.append(records)
        except DavyError as error:
            written.set_exception(error)
        else:
            written.set_result(None)


class Gateway:
    """Answers predictions.

    Args:
        acknowledged: wait until the log entry is on disk before answering.
        timeout: seconds that the features of one request may take; the model's and the udfs' own limit is their link's. One read
            takes microseconds of memory-mapped pages and can't be interrupted, so that the limit is looked at after each row: a request
            of many rows ends at most one row late. Nothing else on the way waits: there are no locks and no other process. What
            other requests take in between isn't counted.
    """

    def __init__(self, home: Home, routes: Routes, log: PredictionLog, *, acknowledged: bool, timeout: float) -> None:
        self._clock, self.routes, self._log, self._acknowledged, self._timeout = home.clock, routes, log, acknowledged, timeout
        self._kernel = code_digest()
        self._ids, self._writes, self._in_flight = _Ids(home.clock), _Writes(log), 0

    async def predict(self, model: str, body: bytes, *, version: int | None = None, routing_key: str | None = None) -> bytes:
        """The JSON answer to a JSON body: an object to an object, an array to an array.

        Args:
            version: answer with this version instead of the traffic's; logged as pinned.
            routing_key: what the version is chosen by; the entity keys when absent.

        Raises:
            InvalidInput, NotFound, Unavailable, TimedOut, ModelFailed, StorageFull.
        """
        self._in_flight += 1
        try:
            return await self._predict(model, body, version, routing_key)
        finally:
            self._in_flight -= 1

    async def _predict(self, model: str, body: bytes, version: int | None, routing_key: str | None) -> bytes:
        started = time.perf_counter_ns()
        if version is None:
            rows, many = self._assigned(model, body, routing_key)
        else:
            pinned = await self.routes.version(model, version)
            asked, many = pinned.schema.decode(body)
            rows = [_Row(row, routing_key or "", pinned, "pinned") for row in asked]
        for row in rows:
            row.route.in_flight += 1
        try:
            await self._read(rows)
            await derive(rows)
            before = time.perf_counter_ns()
            await self._ask(rows)
        finally:
            for row in rows:
                row.route.in_flight -= 1
        return await self._answered(rows, many, started, (time.perf_counter_ns() - before) // 1000)

    def _assigned(self, model: str, body: bytes, routing_key: str | None) -> tuple[list[_Row], bool]:
        route = self.routes.model(model)
        asked, many = route.schema.decode(body)
        rows = []
        for row in asked:
            key = routing_key if routing_key is not None else "\x1f".join([str(row.entities[name]) for name in route.key_names])
            version = route.assignment.version(key)
            rows.append(_Row(row, key, route.versions[version], route.arms[version]))
        return rows, many

    async def _read(self, rows: list[_Row]) -> None:
        """Read all vectors, letting other requests pass in between.

        Raises:
            TimedOut: it took longer than it may; looked at after each row.
        """
        took = 0.0
        for index, row in enumerate(rows):
            if index % _YIELD_EVERY == _YIELD_EVERY - 1:
                await asyncio.sleep(0)
            row.read()
            took += row.features / 1e6
            if took > self._timeout:
                raise TimedOut(f"The features of {index + 1} of {len(rows)} rows of {row.route.reference} took {took:.3g} s.",
                               "The limit is [serving] timeout in davy.toml.", "Try again, or send fewer rows at once.")

    async def _ask(self, rows: list[_Row]) -> None:
        """Let the versions answer, each all its rows at once."""
        if len(rows) == 1:
            row = rows[0]
            row.output = (await row.route.link.predict(1, row.packed))[0]
            return
        groups: dict[VersionRoute, list[_Row]] = {}
        for row in rows:
            groups.setdefault(row.route, []).append(row)
        outputs = await asyncio.gather(*(route.link.predict(len(group), b"".join(row.packed for row in group)) for route, group in groups.items()))
        for group, found in zip(groups.values(), outputs, strict=True):
            for row, output in zip(group, found, strict=True):
                row.output = output

    async def _answered(self, rows: list[_Row], many: bool, started: int, model_time: int) -> bytes:
        """Log, then encode."""
        now, records, answers = self._clock.now(), [], []
        latency = (time.perf_counter_ns() - started) // 1000
        for row in rows:
            route, vector = row.route, row.vector
            entities, request = route.typed(row.asked.entities, row.asked.request)
            record = PredictionRecord(
                self._ids.next(now), vector.time, now, route.model, route.version, row.arm, row.arm == "pinned", row.key, route.feature_set.digest, entities,
                request, vector.watermarks, vector.values, row.output, latency, row.features, model_time, self._kernel)
            records.append(record)
            answers.append(Answer(record.id, row.output, route.model, route.version, row.arm, format_time(vector.time), vector.watermarks))
        await self._writes.write(records, alone=self._in_flight == 1)
        if self._acknowledged:
            await self._log.on_disk()
        return _ENCODER.encode(answers if many else answers[0])
