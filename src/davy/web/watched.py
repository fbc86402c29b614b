"""What monitoring knows of a home's models, for the pages: loaded once, and asked for again only when some seconds have passed."""

from __future__ import annotations

import time
from threading import Lock
from typing import TYPE_CHECKING, Any

from davy.errors import DavyError
from davy.monitoring.collect import Collector
from davy.monitoring.definitions import Definitions
from davy.monitoring.profiles import Key, Profile, by_version, merged, slices
from davy.monitoring.summary import Summary, summary

if TYPE_CHECKING:
    from collections.abc import Callable

    from davy.home import Home
    from davy.project import ModelDefinition

KEPT_SECONDS = 3.0


class Watched:
    """One home's monitoring, read by many requests at once. It changes nothing, and what it tells is at most `KEPT_SECONDS` old."""

    def __init__(self, home: Home) -> None:
        self.home, self.collector = home, Collector(home)
        self._definitions = Definitions(home)
        self._kept: dict[tuple[str, int], tuple[float, Any]] = {}
        self._lock = Lock()

    def summary(self, model: str) -> Summary:
        """What is known of a model."""
        found: Summary = self._keep((model, 0), lambda: summary(self.home, model, definition=self._definition(model), collector=self.collector))
        return found

    def buckets(self, model: str, span: int, width: int) -> dict[int, dict[int, Profile]]:
        """Per bucket of time (so many microseconds wide) and version what was counted, in the whole buckets of the span up to the last prediction."""
        until = self.summary(model).until
        found: dict[int, dict[int, Profile]] = self._keep((model, span), lambda: {} if until is None else self._buckets(model, until - span, width))
        return found

    def _buckets(self, model: str, start: int, width: int) -> dict[int, dict[int, Profile]]:
        parts: dict[int, list[tuple[Key, int, Profile]]] = {}
        for item in slices(self.home, model, start=-(-start // width) * width):
            parts.setdefault(item[1] // width * width, []).append(item)
        return {begin: by_version(merged(items)) for begin, items in parts.items()}

    def _keep(self, name: tuple[str, int], make: Callable[[], Any]) -> Any:
        with self._lock:
            kept = self._kept.get(name)
            if kept is None or time.monotonic() - kept[0] > KEPT_SECONDS:
                kept = time.monotonic(), make()
                self._kept[name] = kept
        return kept[1]

    def _definition(self, model: str) -> ModelDefinition | None:
        """As the project declares it; a project that can't be loaded has no maturity and no units, but its pages go on."""
        try:
            return self._definitions.get(model)
        except DavyError:
            return None
