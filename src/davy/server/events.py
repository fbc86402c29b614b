"""The gateway's way into the event log: calls wait in threads, so that many pushes share one sync and the event loop goes on."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from davy.errors import NotFound, nearest
from davy.events.client import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from davy.events.records import Receipt
    from davy.features.definition import FeatureSet
    from davy.home import Home

THREADS = 32


class EventsClient:
    """Pushes events and outcomes to whoever holds the log; never holds it itself."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._log = connect(home, hold=False)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="events")

    async def push(self, stream: str, rows: Sequence[Mapping[str, Any]]) -> Receipt:
        """Append events; they are on disk and readable when this returns."""
        return await self._call(self._log.push, stream, rows)

    async def outcomes(self, model: str, rows: Sequence[Mapping[str, Any]]) -> Receipt:
        """Append what turned out to be true of predictions.

        Raises:
            NotFound: there is no such model, or its outcomes have not been declared.
        """
        return await self._call(self._outcomes, model, rows)

    def ensure_views(self, feature_set: FeatureSet) -> None:
        """Have the online state of these views kept; a new view is built first. Blocks.

        The feature set is of the time of its training: it adds fields to its streams, and changes nothing else of them.
        """
        for stream in feature_set.streams:
            self._log.declare(stream, keep=True)
        self._log.ensure_views([(feature_set.stream(view.stream), view) for view in feature_set.views])

    def close(self) -> None:
        """Let go, after what is being pushed."""
        self._threads.shutdown()
        self._log.close()

    def _outcomes(self, model: str, rows: Sequence[Mapping[str, Any]]) -> Receipt:
        from davy.registry.models import list_models

        try:
            return self._log.outcomes(model, rows)
        except NotFound:
            with self._home.database.read() as connection:
                names = [found.name for found in list_models(connection)]
            if model not in names:
                raise NotFound(f"There is no model {model!r}.", nearest(model, names), f"Train it first: davy train {model}") from None
            raise NotFound(f"The model {model!r} has no outcomes declared.", "They are declared when Davy trains the model.",
                           f"Train it: davy train {model}") from None

    async def _call(self, function: Callable[..., Receipt], *arguments: Any) -> Receipt:
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*arguments))
