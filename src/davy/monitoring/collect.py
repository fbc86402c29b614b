"""Counts what is new in the prediction log into profiles, and lets the drift detectors see it.

What has been counted is a number of commits of the log's tables, stored in the same transaction as the counts: whoever is killed
in between, or comes second, has counted nothing. Where the log's history is gone, the profiles are made anew from the whole log.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import polars as pl
import sqlalchemy as sa

from davy.core.clock import new_id
from davy.errors import NotFound
from davy.monitoring.columns import Reference, hours_of_week
from davy.monitoring.detector import Alarm, Bank, BankState
from davy.monitoring.packed import pack, unpack
from davy.monitoring.profiles import ALL_TIME, DAY, HOUR, SLICE, Key, Profile, add_profile, profile_of, without_columns
from davy.monitoring.references import importance_of, reference_of
from davy.registry.models import get_version, list_models, list_versions
from davy.schema.tables import monitor_alarms, monitor_banks, monitor_cursors, monitor_profiles
from davy.serving.prediction_frames import completed
from davy.serving.predictions import flush_predictions, table_name
from davy.store.database import insert
from davy.store.tables import Addition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from davy.home import Home
    from davy.store.tables import Table

BATCH, CHUNK = 50, 200_000
YEAR = 31_557_600_000_000
NO_REFERENCE = Reference("", 0, ())
Counted = dict[tuple[Key, int, int], Profile]
_FIRST = -1


class Watch(msgspec.Struct, eq=False):
    """What is stored of a version's detectors: their state, and how fast rows have come of late (a sum that decays within a day)."""

    bank: BankState
    since: int = 0
    recent: float = 0.0


class Collected(msgspec.Struct, frozen=True):
    """What one round has counted: predictions, and the alarms that they raised."""

    rows: int
    alarms: tuple[tuple[str, int, Alarm], ...] = ()


class Collector:
    """Counts for one home. What it has loaded (references, banks) it keeps from round to round."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._references: dict[str, dict[int, Reference]] = {}
        self._banks: dict[tuple[str, int], Bank] = {}
        self._importance: dict[tuple[str, int], dict[str, float]] = {}
        self._open: dict[str, Table] = {}

    def collect(self, *, flush: bool = True, only: str | None = None) -> Collected:
        """Count all that is new, of every model or of one.

        Args:
            flush: first move what the gateways have logged into its tables.
        """
        if flush:
            flush_predictions(self.home)
        rows, alarms = 0, list[tuple[str, int, Alarm]]()
        for model, feature_set in self._tables():
            if only is None or model == only:
                found = self._follow(model, feature_set)
                rows += found.rows
                alarms += found.alarms
        return Collected(rows, tuple(alarms))

    def rebuild(self, model: str) -> Collected:
        """Make the profiles of a model anew from its whole log. The detectors go on where they are."""
        names = [table_name(model, feature_set) for name, feature_set in self._tables() if name == model]
        totals: Counted = {}
        reached, rows = dict[str, int](), 0
        for name in names:
            table = self.home.table(name)
            reached[name], files = _standing(table)
            for path in files:
                frame = read_files(table, [path])
                rows += frame.height
                for place, profile in self._profiles(model, frame).items():
                    totals[place] = totals.get(place, Profile()) + profile
        with self.home.database.begin() as connection:
            connection.execute(sa.delete(monitor_profiles).where(monitor_profiles.c.model == model))
            _store(connection, model, totals)
            for name, version in reached.items():
                write_cursor(connection, name, version)
        return Collected(rows)

    def reference(self, model: str, version: int) -> Reference:
        """What this version is compared with."""
        known = self._references.setdefault(model, {})
        if version not in known:
            try:
                with self.home.database.read() as connection:
                    found = get_version(connection, model, version)
            except NotFound:
                return NO_REFERENCE
            known[version] = reference_of(self.home, found)
        return known[version]

    def importance(self, model: str, version: int) -> dict[str, float]:
        """How much the version makes of each feature."""
        if (model, version) not in self._importance:
            try:
                with self.home.database.read() as connection:
                    found = get_version(connection, model, version)
            except NotFound:
                return {}
            self._importance[model, version] = importance_of(self.home, found)
        return self._importance[model, version]

    def bank(self, model: str, version: int) -> Bank:
        """The detectors of this version, promised together to give a false alarm so often a year."""
        if (model, version) not in self._banks:
            settings = self.home.config.monitoring
            columns = self.reference(model, version).columns
            self._banks[model, version] = Bank(columns, budget=1 / max(settings.false_alarms_per_year, 1e-12))
        return self._banks[model, version]

    def _tables(self) -> list[tuple[str, str]]:
        found: dict[tuple[str, str], None] = {}
        with self.home.database.read() as connection:
            for model in list_models(connection):
                for version in list_versions(connection, model.name):
                    if version.feature_set is not None:
                        found[model.name, version.feature_set] = None
        return list(found)

    def _follow(self, model: str, feature_set: str) -> Collected:
        name = table_name(model, feature_set)
        table = self._open.setdefault(name, self.home.table(name))
        position = read_cursor(self.home, name)
        additions = table.added(position)
        if additions is None:
            return self.rebuild(model)
        rows, alarms = 0, list[tuple[str, int, Alarm]]()
        for part in _chunks(additions):
            frame = read_files(table, [path for addition in part for path in addition.files])
            raised = self._take(model, name, frame, before=position, after=part[-1].version)
            if raised is None:
                break  # somebody else has counted meanwhile
            position, rows = part[-1].version, rows + frame.height
            alarms += [(model, version, alarm) for version, alarm in raised]
        return Collected(rows, tuple(alarms))

    def _take(self, model: str, name: str, frame: pl.DataFrame, *, before: int, after: int) -> list[tuple[int, Alarm]] | None:
        """Count these rows and move the cursor in one transaction; None when it is not where it was."""
        profiles = self._profiles(model, frame)
        watches, raised = self._watch(model, frame)
        now = self.home.clock.now()
        with self.home.database.begin() as connection:
            if _cursor(connection, name) != before:
                return None
            _store(connection, model, profiles)
            for version, watch in watches.items():
                row = {"model": model, "version": version, "reference": self.reference(model, version).training_set, "data": pack(watch)}
                statement = insert(connection, monitor_banks).values(row)
                changed = {"reference": statement.excluded.reference, "data": statement.excluded.data}
                connection.execute(statement.on_conflict_do_update(index_elements=["model", "version"], set_=changed))
            kept = list[tuple[int, Alarm]]()
            for version, alarm in raised:
                if _is_open(connection, model, version, alarm.feature):
                    continue
                kept.append((version, alarm))
                values = {"id": new_id(self.home.clock), "model": model, "version": version, "feature": alarm.feature, "began": alarm.began,
                          "raised": alarm.raised or now, "cleared": None, "evidence": msgspec.json.encode(alarm).decode()}
                connection.execute(sa.insert(monitor_alarms).values(values))
            write_cursor(connection, name, after)
        return kept

    def _profiles(self, model: str, frame: pl.DataFrame) -> Counted:
        """Per version, arm, span and start what was counted."""
        found: Counted = {}
        for span in (HOUR, SLICE):
            sliced = frame.with_columns((pl.col("time").dt.epoch("us") // span * span).alias("_slice"))
            for (version, arm, start), part in sliced.partition_by("version", "arm", "_slice", as_dict=True).items():
                found[(int(version), str(arm)), span, int(start)] = profile_of(part, self.reference(model, int(version)) if span == HOUR else NO_REFERENCE)
        return found

    def _watch(self, model: str, frame: pl.DataFrame) -> tuple[dict[int, Watch], list[tuple[int, Alarm]]]:
        watches, raised = dict[int, Watch](), list[tuple[int, Alarm]]()
        for (version,), part in frame.filter(pl.col("kernel") != "", ~pl.col("pinned")).partition_by("version", as_dict=True).items():
            bank = self.bank(model, int(version))
            if bank.columns and "features" in part.columns:
                watch = self._stored_watch(model, int(version), bank)
                raised += [(int(version), alarm) for alarm in watch_rows(bank, watch, part.sort("time", "prediction"))]
                watches[int(version)] = watch
        return watches, raised

    def _stored_watch(self, model: str, version: int, bank: Bank) -> Watch:
        query = sa.select(monitor_banks).where(monitor_banks.c.model == model, monitor_banks.c.version == version)
        with self.home.database.read() as connection:
            row = connection.execute(query).first()
        if row is not None and row.reference == self.reference(model, version).training_set:
            watch = unpack(row.data, Watch)
            if watch.bank.mass.shape == (len(bank.columns), bank.bets):
                return watch
        return Watch(bank.start())


def watch_rows(bank: Bank, watch: Watch, frame: pl.DataFrame) -> list[Alarm]:
    """Let a version's detectors see predictions, in order of time and in batches of fifty. An alarmed column begins anew."""
    times = frame["time"].dt.epoch("us").to_numpy()
    values = frame["features"].struct.unnest()
    codes = np.stack([column.coarse_codes(values[column.name]) for column in bank.columns])
    hours = hours_of_week(times)
    timed = any(column.by_hour is not None for column in bank.columns)
    raised = []
    for first in range(0, len(times), BATCH):
        here = slice(first, first + BATCH)
        last = int(times[here][-1])
        weight = min(max(last - watch.bank.last, 1_000_000), HOUR) / YEAR if watch.bank.last else HOUR / YEAR
        parts = [(int(hour), _counts(bank, codes[:, here][:, hours[here] == hour])) for hour in np.unique(hours[here])] if timed else []
        rate = _rate(watch, len(times[here]), last)
        bank.update(watch.bank, _counts(bank, codes[:, here]), weight=weight, time=max(last, watch.bank.last), rate=rate, hours=parts)
        for alarm in bank.alarms(watch.bank):
            raised.append(alarm)
            bank.forget(watch.bank, alarm.feature)
    return raised


def _rate(watch: Watch, rows: int, now: int) -> float:
    """Rows per microsecond over about the last day."""
    if not watch.since:
        watch.since = now - HOUR
    passed = max(now - watch.bank.last, 0) if watch.bank.last else 0
    watch.recent = watch.recent * math.exp(-passed / DAY) + rows
    return watch.recent / (DAY * -math.expm1(-max(now - watch.since, HOUR) / DAY))


def _counts(bank: Bank, codes: NDArray[np.int64]) -> NDArray[np.int64]:
    shifted = codes + np.arange(len(codes))[:, None] * bank.width
    return np.bincount(shifted.ravel(), minlength=len(codes) * bank.width).reshape(len(codes), bank.width)


def read_cursor(home: Home, name: str, first: int = _FIRST) -> int:
    """How far a table has been counted: the number of its last commit that was."""
    with home.database.read() as connection:
        return _cursor(connection, name, first)


def write_cursor(connection: sa.Connection, name: str, position: int, data: str = "") -> None:
    """Remember how far a table has been counted, in the transaction that stores the counts."""
    statement = insert(connection, monitor_cursors).values(name=name, position=position, data=data)
    changed = {"position": statement.excluded.position, "data": statement.excluded.data}
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=changed))


def read_files(table: Table, paths: list[str]) -> pl.DataFrame:
    """Files of a prediction table as one frame, with the columns that older ones lack."""
    return completed(pl.concat([table.collect(pl.scan_parquet(path, glob=False)) for path in paths], how="diagonal"))


def _standing(table: Table) -> tuple[int, list[str]]:
    """The files of a table, and the version that they make up."""
    while True:
        version = table.version()
        files = table.files()
        if table.version() == version:
            return version, files


def _cursor(connection: sa.Connection, name: str, first: int = _FIRST) -> int:
    found = connection.scalar(sa.select(monitor_cursors.c.position).where(monitor_cursors.c.name == name))
    return first if found is None else int(found)


def _store(connection: sa.Connection, model: str, profiles: Counted) -> None:
    totals: dict[Key, Profile] = {}
    for (key, span, start), profile in profiles.items():
        add_profile(connection, model, key, span, start, profile)
        if span == HOUR:
            totals[key] = totals.get(key, Profile()) + without_columns(profile)
    for key, profile in totals.items():
        add_profile(connection, model, key, ALL_TIME, 0, profile)


def _is_open(connection: sa.Connection, model: str, version: int, feature: str) -> bool:
    found = monitor_alarms.c
    query = sa.select(found.id).where(found.model == model, found.version == version, found.feature == feature, found.cleared.is_(None)).limit(1)
    return connection.scalar(query) is not None


def _chunks(additions: list[Addition]) -> Iterator[list[Addition]]:
    part, rows = list[Addition](), 0
    for addition in additions:
        part.append(addition)
        rows += addition.rows
        if rows >= CHUNK:
            yield part
            part, rows = [], 0
    if part:
        yield part
