"""Profiles of what was served: per version, arm and hour; the profile of any longer time is a sum.

Beside them, what came in each ten minutes, without the features' counts, for who asks of the last few minutes; and over all time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import polars as pl
import sqlalchemy as sa

from davy.monitoring.columns import ColumnProfile, Reference, count
from davy.monitoring.packed import pack, unpack
from davy.monitoring.quantiles import Quantiles
from davy.schema.tables import monitor_profiles as stored
from davy.serving.predictions import with_vector
from davy.store.database import insert

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from davy.home import Home

HOUR, DAY = 3_600_000_000, 86_400_000_000
MINUTE = 60_000_000
SLICE = 10 * MINUTE
ALL_TIME = 0
LABELS = 100
Key = tuple[int, str]  # version, arm


class Profile(msgspec.Struct, eq=False):
    """What was served in some time.

    Attributes:
        rows: predictions, failed ones too; `statuses` says how many were ok, error, timeout or fallback.
        first, last: the times of the first and the last prediction, microseconds.
        columns: per feature.
        latency, features, model: microseconds, of the answers.
        output, labels: the predictions, when they are numbers; or how often each label came, at most a hundred of them.
    """

    rows: int = 0
    first: int = 0
    last: int = 0
    statuses: dict[str, int] = msgspec.field(default_factory=dict)
    columns: dict[str, ColumnProfile] = msgspec.field(default_factory=dict)
    latency: Quantiles = msgspec.field(default_factory=Quantiles)
    features: Quantiles = msgspec.field(default_factory=Quantiles)
    model: Quantiles = msgspec.field(default_factory=Quantiles)
    output: Quantiles = msgspec.field(default_factory=Quantiles)
    labels: dict[str, int] = msgspec.field(default_factory=dict)

    def __add__(self, other: Profile) -> Profile:
        if not self.rows or not other.rows:
            return other if not self.rows else self
        columns = dict(self.columns)
        for name, column in other.columns.items():
            columns[name] = columns[name] + column if name in columns else column
        return Profile(self.rows + other.rows, min(self.first, other.first), max(self.last, other.last), _sum(self.statuses, other.statuses), columns,
                       self.latency + other.latency, self.features + other.features, self.model + other.model, self.output + other.output,
                       _most(_sum(self.labels, other.labels)))

    def share(self, *statuses: str) -> float | None:
        """The share of predictions that ended so."""
        return sum(self.statuses.get(status, 0) for status in statuses) / self.rows if self.rows else None


def profile_of(frame: pl.DataFrame, reference: Reference) -> Profile:
    """The profile of logged predictions (columns as `read_predictions` gives them) of one version and arm."""
    if not frame.height:
        return Profile()
    times = frame["time"].dt.epoch("us").to_numpy()
    statuses = dict(frame["status"].value_counts().iter_rows())
    vectors = with_vector(frame)["features"].struct.unnest() if "features" in frame.columns else pl.DataFrame()
    spent = {name: Quantiles.of(frame[f"{name}_us"].to_numpy()) for name in ("latency", "features", "model")}
    numbers = Quantiles.of(frame["output"].drop_nulls().to_numpy())
    labels = dict(frame["output_json"].drop_nulls().value_counts().iter_rows())
    return Profile(frame.height, int(times.min()), int(times.max()), statuses, count(reference, vectors) if vectors.height else {},
                   spent["latency"], spent["features"], spent["model"], numbers, _most(labels))


def without_columns(profile: Profile) -> Profile:
    """The traffic alone."""
    return msgspec.structs.replace(profile, columns={})


def add_profile(connection: sa.Connection, model: str, key: Key, span: int, start: int, profile: Profile) -> None:
    """Add to what is stored for this slice."""
    version, arm = key
    where = (stored.c.model == model, stored.c.version == version, stored.c.arm == arm, stored.c.span == span, stored.c.start == start)
    before = connection.scalar(sa.select(stored.c.data).where(*where))
    whole = profile if before is None else unpack(before, Profile) + profile
    row = {"model": model, "version": version, "arm": arm, "span": span, "start": start, "rows": whole.rows, "data": pack(whole)}
    statement = insert(connection, stored).values(row)
    changed = {"rows": statement.excluded.rows, "data": statement.excluded.data}
    connection.execute(statement.on_conflict_do_update(index_elements=["model", "version", "arm", "span", "start"], set_=changed))


def read_profiles(home: Home, model: str, *, start: int | None = None, end: int | None = None, version: int | None = None,
                  fine: bool = False) -> dict[Key, Profile]:
    """Per version and arm the profile of a span of time, to the hour: from the one that `start` lies in, before `end`.

    Args:
        start: None means from the beginning.
        fine: to ten minutes, of the last days, without the features' counts.
    """
    return merged(slices(home, model, start=start, end=end, version=version, span=SLICE if fine else None))


def slices(home: Home, model: str, *, start: int | None = None, end: int | None = None, version: int | None = None,
           span: int | None = None) -> list[tuple[Key, int, Profile]]:
    """The stored slices (key, start, profile) in order of time: hours, and older ones as long as a day (see `thin`), or of one span."""
    query = sa.select(stored).where(stored.c.model == model, stored.c.span == span if span is not None else stored.c.span >= HOUR)
    if start is not None:
        query = query.where(stored.c.start + stored.c.span > start)
    if end is not None:
        query = query.where(stored.c.start < end)
    if version is not None:
        query = query.where(stored.c.version == version)
    with home.database.read() as connection:
        rows = connection.execute(query.order_by(stored.c.start, stored.c.version, stored.c.arm)).all()
    return [((row.version, row.arm), row.start, unpack(row.data, Profile)) for row in rows]


def merged(found: Iterable[tuple[Key, int, Profile]]) -> dict[Key, Profile]:
    """The sums per version and arm."""
    total: dict[Key, Profile] = {}
    for key, _, profile in found:
        total[key] = total[key] + profile if key in total else profile
    return total


def by_version(profiles: Mapping[Key, Profile]) -> dict[int, Profile]:
    """Summed over the arms."""
    total: dict[int, Profile] = {}
    for (version, _), profile in sorted(profiles.items()):
        total[version] = total.get(version, Profile()) + profile
    return total


def latest(home: Home, model: str) -> int | None:
    """When the last counted prediction of a model was, by the log's own times."""
    query = sa.select(sa.func.max(stored.c.start)).where(stored.c.model == model, stored.c.span >= HOUR)
    with home.database.read() as connection:
        start = connection.scalar(query)
    return None if start is None else max(profile.last for _, _, profile in slices(home, model, start=int(start)))


def thin(home: Home, model: str, *, before: int) -> int:
    """Sum the hours before this moment up into days, and drop what is finer; returns how many hours were replaced."""
    day_start = before // DAY * DAY
    query = sa.select(stored).where(stored.c.model == model, stored.c.span == HOUR, stored.c.start < day_start)
    with home.database.read() as connection:
        if connection.execute(query.with_only_columns(stored.c.start).limit(1)).first() is None:
            return 0
    with home.database.begin() as connection:
        rows = connection.execute(query).all()
        days: dict[tuple[Key, int], Profile] = {}
        for row in rows:
            place = (row.version, row.arm), row.start // DAY * DAY
            days[place] = days.get(place, Profile()) + unpack(row.data, Profile)
        for (key, start), profile in days.items():
            add_profile(connection, model, key, DAY, start, profile)
        old = (stored.c.model == model, stored.c.span.in_([SLICE, HOUR]), stored.c.start < day_start)
        connection.execute(sa.delete(stored).where(*old))
    return len(rows)


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in (*one, *(name for name in other if name not in one))}


def _most(labels: dict[str, int]) -> dict[str, int]:
    if len(labels) <= LABELS:
        return labels
    return dict(sorted(labels.items(), key=lambda item: (-item[1], item[0]))[:LABELS])
