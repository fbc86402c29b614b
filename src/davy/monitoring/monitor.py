"""The rounds of watching a home: count what was served, judge what is known of it, replay, and send alerts.

What can't be done in one round is said, and tried again in the next.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TypeVar

import msgspec
import sqlalchemy as sa

from davy.core.time import parse_duration
from davy.errors import DavyError
from davy.monitoring.alerts import evaluate, rules_of
from davy.monitoring.cohorts import update_cohorts
from davy.monitoring.collect import Collector
from davy.monitoring.courier import Courier
from davy.monitoring.definitions import Definitions
from davy.monitoring.drift import drift
from davy.monitoring.profiles import DAY, HOUR, by_version, latest, read_profiles, thin
from davy.monitoring.skew import replay
from davy.registry.models import list_models
from davy.schema.tables import monitor_alarms, monitor_replays
from davy.store.database import insert

if TYPE_CHECKING:
    from collections.abc import Callable

    from davy.home import Home
    from davy.monitoring.columns import ColumnReference
    from davy.project import ModelDefinition

MOST_REPLAYED = 20_000
KEPT_DIFFERENCES = 100
SETTLING = 10_000_000
IDLE_SHARE = 9
ALIKE, LONG = 5.0, 30 * DAY
T = TypeVar("T")
_LOG = logging.getLogger("davy.monitoring")


class Monitor:
    """One home's watch."""

    def __init__(self, home: Home) -> None:
        self.home, self.collector, self.courier = home, Collector(home), Courier(home)
        self._definitions = Definitions(home)
        self._told: dict[str, str] = {}
        self._evaluated = self._replayed = -1e9
        self._pause = 0.0

    def round(self, *, everything: bool = False) -> int:
        """Count what is new, and judge and replay when it is time; returns how many predictions were counted.

        Args:
            everything: it is time for all.
        """
        found = self.attempt("counting", self.collector.collect)
        settings, now = self.home.config.monitoring, time.monotonic()
        if everything or now - self._evaluated >= parse_duration(settings.evaluate_every) / 1e6:
            self._evaluated = now
            for model in self.models():
                self.attempt(f"judging {model}", lambda model=model: self.judge(model))  # type: ignore[misc]
        if everything or now - self._replayed >= self._pause:
            self._replay_all(everything)
        self.attempt("sending alerts", self.courier.send)
        return 0 if found is None else found.rows

    def judge(self, model: str) -> None:
        """Bring cohorts, alarms and alerts of a model up to date."""
        definition = self.definition(model)
        if definition is not None:
            update_cohorts(self.home, definition)
        self.clear(model)
        rules, problems = rules_of(self.home)
        for problem in problems:
            self._tell(f"alerts {problem.came}", str(problem))
        evaluate(self.home, model, definition=definition, collector=self.collector, rules=rules)
        until = latest(self.home, model)
        if until is not None:
            thin(self.home, model, before=until - parse_duration(self.home.config.monitoring.keep_slices))

    def clear(self, model: str) -> list[str]:
        """End the alarms of columns whose distribution is that of the training set again, over a window that began after the alarm.

        The window is `monitoring.window`, or as long as a column's rows need to say something of it: a whole cycle of one that follows the
        clock, thirty days of one whose days are each alike. A version that has answered nothing over `monitoring.window` has no drift any more.
        """
        until, cleared = latest(self.home, model), list[str]()
        query = sa.select(monitor_alarms).where(monitor_alarms.c.model == model, monitor_alarms.c.cleared.is_(None))
        with self.home.database.read() as connection:
            rows = connection.execute(query).all()
        if until is None:
            return cleared
        verdicts: dict[tuple[int, int], dict[str, str]] = {}
        window = parse_duration(self.home.config.monitoring.window)
        serving = by_version(read_profiles(self.home, model, start=until - window)) if rows else {}
        for row in rows:
            column = self.collector.reference(model, row.version).by_name.get(row.feature)
            start = until - self._to_clear(column) if column is not None else until
            silent = row.version not in serving
            if not silent and (column is None or row.raised > start):
                continue
            if not silent and (row.version, start) not in verdicts:
                verdicts[row.version, start] = self._verdicts(model, row.version, start)
            if silent or verdicts[row.version, start].get(row.feature) == "same":
                with self.home.database.begin() as connection:
                    connection.execute(sa.update(monitor_alarms).where(monitor_alarms.c.id == row.id).values(cleared=until))
                cleared.append(row.feature)
        return cleared

    def _verdicts(self, model: str, version: int, start: int) -> dict[str, str]:
        """Per feature whether its distribution since `start` is that of the training set."""
        profile = by_version(read_profiles(self.home, model, start=start, version=version)).get(version)
        if profile is None:
            return {}
        moved = drift(self.collector.reference(model, version), profile.columns, tolerance=self.home.config.monitoring.drift_tolerance,
                      span=max(profile.last - profile.first, 1))
        return {found.feature: found.verdict for found in moved}

    def _to_clear(self, column: ColumnReference) -> int:
        window = parse_duration(self.home.config.monitoring.window)
        if column.inflation()[-1] > ALIKE:
            window = max(window, LONG)
        return max(window, len(column.by_hour) * HOUR if column.by_hour is not None else 0)

    def replay(self, model: str, *, force: bool = False) -> bool:
        """Replay what was served since the last time, at most so many vectors; False when it is not time yet."""
        now = self.home.clock.now() - SETTLING
        query = sa.select(sa.func.max(monitor_replays.c.until)).where(monitor_replays.c.model == model)
        with self.home.database.read() as connection:
            last = connection.scalar(query)
        until, every = latest(self.home, model), parse_duration(self.home.config.monitoring.replay_every)
        if until is None or (last is not None and (until < last or (not force and now - last < every))):
            return False
        end = min(now, until + 1)
        start = self._bounded(model, last if last is not None else end - every, end)
        found = replay(self.home, model, start=start, end=end)
        details = {"different": found.different[:KEPT_DIFFERENCES], "lateness": found.lateness}
        row = {"model": model, "until": end, "start": start, "checked": found.checked, "equal": found.equal,
               "details": msgspec.json.encode(details, enc_hook=str).decode()}
        with self.home.database.begin() as connection:
            connection.execute(insert(connection, monitor_replays).values(row).on_conflict_do_nothing())
        return True

    def definition(self, model: str) -> ModelDefinition | None:
        """The model as the project declares it now; None where it doesn't, or can't be loaded."""
        return self.attempt("loading the project", lambda: self._definitions.get(model))

    def models(self) -> list[str]:
        """Every model that there is."""
        with self.home.database.read() as connection:
            return [model.name for model in list_models(connection)]

    def _replay_all(self, everything: bool) -> None:
        began = time.monotonic()
        done = [self.attempt(f"replaying {model}", lambda model=model: self.replay(model, force=everything)) for model in self.models()]  # type: ignore[misc]
        self._replayed = time.monotonic()
        if any(done):
            self._pause = IDLE_SHARE * (self._replayed - began)

    def _bounded(self, model: str, start: int, end: int) -> int:
        """Later than `start` where there are too many predictions to replay them all."""
        rows = sum(profile.rows for profile in read_profiles(self.home, model, start=start, end=end).values())
        return start if rows <= MOST_REPLAYED else end - int((end - start) * MOST_REPLAYED / rows)

    def attempt(self, what: str, work: Callable[[], T]) -> T | None:
        """The result; what goes wrong is said, once as long as it stays the same, and stops nothing else."""
        try:
            found = work()
        except Exception as error:  # noqa: BLE001 - a round must end, whatever a user's file or a damaged table does
            self._tell(what, f"{what} failed: {error}" if isinstance(error, DavyError) else f"{what} failed: {type(error).__name__}: {error}")
            return None
        self._told.pop(what, None)
        return found

    def _tell(self, what: str, text: str) -> None:
        if self._told.get(what) != text:
            self._told[what] = text
            _LOG.warning("%s", text)
