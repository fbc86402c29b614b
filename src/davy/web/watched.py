"""What monitoring knows of a home's models, for the pages: loaded once, and asked for again only when some seconds have passed."""

from __future__ import annotations

import time
from threading import Lock
from typing import TYPE_CHECKING, Any

from davy.errors import DavyError
from davy.monitoring.cohorts import stored_cohorts
from davy.monitoring.collect import Collector
from davy.monitoring.definitions import Definitions
from davy.monitoring.profiles import Key, Profile, by_version, merged, slices
from davy.monitoring.summary import Summary, summary

if TYPE_CHECKING:
    from collections.abc import Callable

    from davy.home import Home
    from davy.monitoring.performance import Cohort
    from davy.project import ModelDefinition

KEPT_SECONDS = 3.0


class Watched:
    """One home's monitoring, read by many requests at once. It changes nothing, and what it tells is at most `KEPT_SECONDS` old."""

    def __init__(self, home: Home) -> None:
        self.home, self.collector = home, Collector(home)
        self._definitions = Definitions(home)
        self._kept: dict[tuple[str, str, int], tuple[float, Any]] = {}
        self._lock = Lock()

    def summary(self, model: str) -> Summary:
        """What is known of a model."""
        found: Summary = self._keep(("summary", model, 0), lambda: summary(self.home, model, definition=self._definition(model), collector=self.collector))
        return found

    def buckets(self, model: str, span: int, width: int) -> dict[int, dict[int, Profile]]:
        """Per bucket of time (so many microseconds wide) and version what was counted, in the whole buckets of the span up to the last prediction."""
        until = self.summary(model).until
        found: dict[int, dict[int, Profile]] = self._keep(("buckets", model, span), lambda: {} if until is None else self._buckets(model, until - span, width))
        return found

    def cohorts(self, model: str, start: int, until: int, width: int) -> dict[int, dict[int, Cohort]]:
        """Per bucket of time and version what the answers of the hours from `start` and before `until` turned out to be worth."""
        found: dict[int, dict[int, Cohort]] = self._keep(("cohorts", model, start), lambda: self._cohorts(model, start, until, width))
        return found

    def _cohorts(self, model: str, start: int, until: int, width: int) -> dict[int, dict[int, Cohort]]:
        parts: dict[int, dict[int, Cohort]] = {}
        for version, _, hour, cohort in stored_cohorts(self.home, model, start=start, end=until):
            place = parts.setdefault(hour // width * width, {})
            place[version] = place[version] + cohort if version in place else cohort
        return parts

    def _buckets(self, model: str, start: int, width: int) -> dict[int, dict[int, Profile]]:
        parts: dict[int, list[tuple[Key, int, Profile]]] = {}
        for item in slices(self.home, model, start=-(-start // width) * width):
            parts.setdefault(item[1] // width * width, []).append(item)
        return {begin: by_version(merged(items)) for begin, items in parts.items()}

    def _keep(self, name: tuple[str, str, int], make: Callable[[], Any]) -> Any:
        """What was made a moment ago, or else is made now; what is older is let go of."""
        with self._lock:
            oldest = time.monotonic() - KEPT_SECONDS
            self._kept = {key: kept for key, kept in self._kept.items() if kept[0] > oldest}
            if name not in self._kept:
                made = make()
                self._kept[name] = time.monotonic(), made
            return self._kept[name][1]

    def _definition(self, model: str) -> ModelDefinition | None:
        """As the project declares it; a project that can't be loaded has no maturity and no units, but its pages go on."""
        try:
            return self._definitions.get(model)
        except DavyError:
            return None
