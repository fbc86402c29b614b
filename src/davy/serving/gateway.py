"""The hot path: a request becomes a vector, the vector an answer, and the answer a line in the prediction log.

It works from what stands in the registry alone (feature sets and signatures as JSON): it imports nobody's code and
unpickles nothing. A version with udfs has its derived features computed by its own worker.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from davy.core.time import format_time
from davy.errors import DavyError, InvalidInput, TimedOut
from davy.features.kernel import code_digest
from davy.serving.predictions import ERROR, FALLBACK, OK, TIMEOUT, PredictionRecord
from davy.serving.shadow import Shadows
from davy.serving.udfs import derive

if TYPE_CHECKING:
    from davy.core.clock import Clock
    from davy.features.online import Vector
    from davy.home import Home
    from davy.serving.predictions import PredictionLog
    from davy.serving.requests import Asked
    from davy.serving.routes import ModelRoute, Routes, VersionRoute

TELL_SECONDS = 10.0
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


class Row:
    """One row on its way.

    Attributes:
        fallback: who answers when `route` fails; None when nobody else does.
        lost: the first attempt, when this row fell back.
        answered: the id of this row's record, once there is one.
    """

    __slots__ = ("answered", "arm", "asked", "fallback", "features", "key", "lost", "model_time", "output", "packed", "release", "route", "share", "status",
                 "vector")

    def __init__(self, asked: Asked, key: str, route: VersionRoute, arm: str, share: float, release: str, fallback: VersionRoute | None) -> None:
        self.asked, self.key, self.route, self.arm, self.share, self.release, self.fallback = asked, key, route, arm, share, release, fallback
        self.vector: Vector | None = None
        self.packed, self.answered = b"", ""
        self.features = self.model_time = 0
        self.output: Any = None
        self.status = OK
        self.lost: Row | None = None

    def read(self) -> None:
        """Compute the vector, and the model's row of it; with udfs, what they take."""
        before = time.perf_counter_ns()
        self.vector = vector = self.route.reader.read_encoded(self.asked.entities, self.asked.request)
        self.features = (time.perf_counter_ns() - before) // 1000
        if self.route.split is None:
            self.packed = self.route.pack(*self.route.encode(vector.values))

    def read_if_needed(self) -> None:
        """`read`, or only the model's row when the vector is there."""
        if self.vector is None:
            self.read()
        else:
            self.packed = self.route.pack(*self.route.encode(self.vector.values))

    def shadow(self, route: VersionRoute) -> Row:
        """The same question to a version that answers nobody, with the same vector where the definitions are the same."""
        copy = Row(self.asked, self.key, route, "shadow", 0.0, self.release, None)
        copy.answered = self.answered
        if route.feature_set.digest == self.route.feature_set.digest:
            copy.vector, copy.features = self.vector, self.features
        return copy

    def fall_back(self, status: str) -> None:
        """Put the first attempt aside, and go to the version that answers instead."""
        assert self.fallback is not None
        lost = self.lost = Row(self.asked, self.key, self.route, self.arm, self.share, self.release, None)
        lost.vector, lost.features, lost.model_time, lost.status = self.vector, self.features, self.model_time, status
        self.route.in_flight -= 1
        self.route, self.fallback, self.arm, self.status, self.vector = self.fallback, None, "stable", FALLBACK, None
        self.route.in_flight += 1
        self.read()


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
            other requests take in between isn't counted. A row that has a fallback is judged by its own time.
    """

    def __init__(self, home: Home, routes: Routes, log: PredictionLog, *, acknowledged: bool, timeout: float) -> None:
        self.clock, self.routes, self._log, self._acknowledged = home.clock, routes, log, acknowledged
        self._kernel = code_digest()
        self._limit = timeout * 1e6
        self._ids, self._writes, self._in_flight = _Ids(home.clock), _Writes(log), 0
        self.shadows = Shadows(self, log)
        self._told: dict[str, float] = {}

    async def predict(self, model: str, body: bytes, *, version: int | None = None, routing_key: str | None = None) -> bytes:
        """The JSON answer to a JSON body: an object to an object, an array to an array.

        Args:
            version: answer with this version instead of the traffic's; logged as pinned.
            routing_key: what the version is chosen by; the entity keys when absent, and each row by itself when there are none.

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
            route = self.routes.model(model)
            rows, many = self._assigned(route, body, routing_key)
            shadow = route.shadow
        else:
            pinned, shadow = await self.routes.version(model, version), None
            asked, many = pinned.schema.decode(body)
            rows = [Row(row, routing_key or "", pinned, "pinned", 1.0, "", None) for row in asked]
        for row in rows:
            row.route.in_flight += 1
        try:
            await self._read(rows)
            await self._ask(rows, started)
        except DavyError:
            if shadow is not None:
                self.shadows.follow(shadow, [row for row in rows if row.answered])
            raise
        finally:
            for row in rows:
                row.route.in_flight -= 1
        answer = await self._answered(rows, many, started)
        if shadow is not None:
            self.shadows.follow(shadow, rows)
        return answer

    def _assigned(self, route: ModelRoute, body: bytes, routing_key: str | None) -> tuple[list[Row], bool]:
        """The body's rows, each with the version that its key falls on; without entity keys each row is a key of its own."""
        asked, many = route.schema.decode(body)
        rows = []
        for row in asked:
            if routing_key is not None:
                key = routing_key
            elif route.key_names:
                key = "\x1f".join([str(row.entities[name]) for name in route.key_names])
            else:
                key = self._ids.next(self.clock.now())
            version = route.assignment.version(key)
            rows.append(Row(row, key, route.versions[version], route.arms[version], route.shares[version], route.release, route.fallbacks[version]))
        return rows, many

    async def _read(self, rows: list[Row]) -> None:
        """Read all vectors, letting other requests pass in between.

        Raises:
            TimedOut: it took longer than it may; looked at after each row.
        """
        took = 0
        for index, row in enumerate(rows):
            if index % _YIELD_EVERY == _YIELD_EVERY - 1:
                await asyncio.sleep(0)
            try:
                row.read()
            except Exception as error:
                if row.fallback is None:
                    raise
                self._tell(row.route, error)
                row.fall_back(ERROR)
            took += row.features
            if row.fallback is not None:
                if row.features > self._limit:
                    row.fall_back(TIMEOUT)
            elif took > self._limit:
                raise TimedOut(f"The features of {index + 1} of {len(rows)} rows of {row.route.reference} took {took / 1e6:.3g} s.",
                               "The limit is [serving] timeout in davy.toml.", "Try again, or send fewer rows at once.")

    async def _ask(self, rows: list[Row], started: int) -> None:
        """Let the versions answer, each all its rows at once; what one fails to answer goes to its fallback."""
        if len(rows) == 1:
            await self._ask_one(rows, rows[0].route, started)
            return
        groups: dict[VersionRoute, list[Row]] = {}
        for row in rows:
            groups.setdefault(row.route, []).append(row)
        found = await asyncio.gather(*(self._ask_one(group, route, started) for route, group in groups.items()), return_exceptions=True)
        for error in found:
            if error is not None:
                raise error

    async def _ask_one(self, rows: list[Row], route: VersionRoute, started: int) -> None:
        before = time.perf_counter_ns()
        try:
            if rows[0].fallback is not None:  # somebody else can answer at once
                if not route.link.is_warm:
                    raise route.link.away()
                if route.link.hangs:
                    raise route.link.late()
            if route.split is not None:
                await derive(rows, route)
                before = time.perf_counter_ns()
            outputs = await route.link.predict(len(rows), rows[0].packed if len(rows) == 1 else b"".join(row.packed for row in rows))
        except DavyError as error:
            await self._rescue(rows, error, before, started)
            return
        waited = (time.perf_counter_ns() - before) // 1000
        for row, output in zip(rows, outputs, strict=True):
            row.output, row.model_time = output, waited

    async def _rescue(self, rows: list[Row], error: DavyError, before: int, started: int) -> None:
        """The version failed to answer these rows: charge it, and let the fallback answer.

        What the fallback refuses as well is the request's fault, and nobody is charged.
        """
        status = TIMEOUT if isinstance(error, TimedOut) else ERROR
        if not isinstance(error, InvalidInput):
            self._tell(rows[0].route, error)
        for row in rows:
            row.model_time, row.status = (time.perf_counter_ns() - before) // 1000, status
        fallback = rows[0].fallback
        if fallback is None:
            if not isinstance(error, InvalidInput):
                await self._charge(rows, started)
            raise error
        for row in rows:
            row.fall_back(status)
        try:
            if fallback.split is not None:
                await derive(rows, fallback)
            outputs = await fallback.link.predict(len(rows), b"".join(row.packed for row in rows))
        except DavyError as second:
            if not isinstance(second, InvalidInput):
                await self._charge([row.lost for row in rows if row.lost is not None], started)
            raise
        for row, output in zip(rows, outputs, strict=True):
            row.output, row.model_time = output, (time.perf_counter_ns() - before) // 1000

    def _tell(self, route: VersionRoute, error: Exception) -> None:
        """Say in the server's log why a version fails, once in a while: the prediction log has only that it does."""
        now = time.perf_counter()
        if now - self._told.get(route.reference, -TELL_SECONDS) >= TELL_SECONDS:
            self._told[route.reference] = now
            print(f"{route.reference} failed to answer a request: {type(error).__name__}: {error}", file=sys.stderr, flush=True)

    async def _charge(self, rows: list[Row], started: int) -> None:
        """Log failures that nobody could make up for. An error of the log is of less interest than the one that is being told."""
        now, latency = self.clock.now(), (time.perf_counter_ns() - started) // 1000
        records = [self.record(row, now, latency) for row in rows]
        for row, record in zip(rows, records, strict=True):
            row.answered = record.id
        with suppress(DavyError):
            await self._writes.write(records, alone=self._in_flight == 1)

    async def _answered(self, rows: list[Row], many: bool, started: int) -> bytes:
        """Log, then encode."""
        now, records, answers = self.clock.now(), [], []
        latency = (time.perf_counter_ns() - started) // 1000
        for row in rows:
            route, vector = row.route, row.vector
            assert vector is not None
            record = self.record(row, now, latency)
            row.answered = record.id
            records.append(record)
            if row.lost is not None:
                row.lost.answered = record.id
                records.append(self.record(row.lost, now, row.lost.features + row.lost.model_time))
            answers.append(Answer(record.id, row.output, route.model, route.version, row.arm, format_time(vector.time), vector.watermarks))
        await self._writes.write(records, alone=self._in_flight == 1)
        if self._acknowledged:
            await self._log.on_disk()
        return _ENCODER.encode(answers if many else answers[0])

    def record(self, row: Row, now: int, latency: int) -> PredictionRecord:
        """The log's line for this row; without a vector when it couldn't be computed."""
        route, vector = row.route, row.vector
        entities, request = route.typed(row.asked.entities, row.asked.request)
        if vector is None:
            return PredictionRecord(
                self._ids.next(now), now, now, route.model, route.version, row.arm, row.arm == "pinned", row.key, route.feature_set.digest, entities, request,
                {}, [None] * len(route.feature_set.outputs), None, latency, row.features, row.model_time, "", row.share, row.status, row.release, row.answered)
        return PredictionRecord(
            self._ids.next(now), vector.time, now, route.model, route.version, row.arm, row.arm == "pinned", row.key, route.feature_set.digest, entities,
            request, vector.watermarks, vector.values, row.output, latency, row.features, row.model_time, self._kernel, row.share, row.status, row.release,
            row.answered)
