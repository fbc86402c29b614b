"""The shadow: a version that is asked after each answer. It answers nobody, and when the gateway is busy it is not asked."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from davy.errors import DavyError, TimedOut
from davy.serving.predictions import ERROR, FALLBACK, TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from davy.serving.gateway import Gateway, Row
    from davy.serving.predictions import PredictionLog
    from davy.serving.routes import VersionRoute

MOST_ASKED = 64
LARGEST = 256


class Shadows:
    """Requests that a shadow follows.

    Attributes:
        asked, dropped: rows, since this process began.
    """

    def __init__(self, gateway: Gateway, log: PredictionLog) -> None:
        self._gateway, self._log = gateway, log
        self._tasks: set[asyncio.Task[None]] = set()
        self.asked = self.dropped = 0

    def follow(self, route: VersionRoute, rows: Sequence[Row]) -> None:
        """Ask this version the same once the answer is on its way; dropped when too many are waiting, or its process is away.

        A row that fell back is left out: its record does not tell what stable itself does.
        """
        own = [row for row in rows if row.status != FALLBACK]
        if len(self._tasks) >= MOST_ASKED or len(rows) > LARGEST or not route.link.is_warm:
            self.dropped += len(own)
            return
        self.asked += len(own)
        task = asyncio.get_running_loop().create_task(self._ask(route, own))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, route: VersionRoute, rows: Sequence[Row]) -> None:
        await asyncio.sleep(0)  # what is being answered goes first
        for row in rows:
            await self._ask_one(route, row)

    async def _ask_one(self, route: VersionRoute, row: Row) -> None:
        copy = row.shadow(route)
        route.in_flight += 1
        try:
            before = time.perf_counter_ns()
            try:
                copy.read_if_needed()
                before = time.perf_counter_ns()
                copy.output = (await route.link.predict(1, copy.packed))[0]
            except Exception as error:  # noqa: BLE001 - whatever the shadow does wrong is its record, and nobody's answer
                copy.status = TIMEOUT if isinstance(error, TimedOut) else ERROR
            copy.model_time = (time.perf_counter_ns() - before) // 1000
            with suppress(DavyError):
                self._log.append([self._gateway.record(copy, self._gateway.clock.now(), copy.features + copy.model_time)])
        finally:
            route.in_flight -= 1
