"""The stored cohorts: what each hour's answers turned out to be worth, kept up with the outcomes as they come.

An hour is computed whole, from the logs as they are, and replaces what was stored of it: so a correction, a late prediction or a
process that was killed in between need no thought.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl
import sqlalchemy as sa

from davy.events.outcomes import ENTITY, PREDICTION
from davy.monitoring.collect import write_cursor
from davy.monitoring.outcomes import labelled, outcome_columns, read_served
from davy.monitoring.packed import pack, unpack
from davy.monitoring.performance import HOUR, Cohort, cohorts
from davy.registry.models import list_versions
from davy.schema.tables import monitor_cohorts, monitor_cursors, monitor_profiles
from davy.store.database import insert

if TYPE_CHECKING:
    from davy.home import Home
    from davy.project import ModelDefinition
    from davy.registry.signature import Signature

MOST_WAITING = 10_000
WAITING = 2 * 24 * HOUR
NEAR = 6
_LONGEST = 7 * 24 * HOUR


class _Standing(msgspec.Struct):
    """How far outcomes were taken into account, and the ids of predictions that they name and nobody has seen."""

    position: int = -1
    waiting: list[str] = []


def update_cohorts(home: Home, definition: ModelDefinition) -> int:
    """Compute the hours anew whose predictions or outcomes have become more since the last time; returns how many."""
    model = definition.name
    standing = _standing(home, model)
    table = home.table(f"outcomes/{model}")
    reached = table.version()
    additions = table.added(standing.position) if reached >= 0 else []
    events: pl.DataFrame | None
    if additions is None:
        events = outcome_columns(table.collect(table.scan()))
    else:
        files = [path for addition in additions for path in addition.files]
        events = outcome_columns(pl.concat([table.collect(pl.scan_parquet(path, glob=False)) for path in files], how="diagonal")) if files else None
    now = home.clock.now()
    ids = [*standing.waiting, *(events[PREDICTION].drop_nulls().to_list() if events is not None else [])]
    hours = {hour for name in ids if (hour := _hour_of(name)) is not None}
    if events is not None:
        hours |= _hours_of_entities(events, definition)
    whole = _complete_hours(home, model, now)
    behind = {hour for hour in whole if whole[hour]}
    dirty = sorted((hours & set(whole)) | behind)
    for first, last in _ranges(dirty):
        _compute(home, definition, first, last + HOUR)
    waiting = _still_waiting(home, model, ids, now)
    with home.database.begin() as connection:
        write_cursor(connection, f"cohorts/{model}", max(reached, -1), msgspec.json.encode(waiting).decode())
    return len(dirty)


def read_cohorts(home: Home, model: str, *, start: int | None = None, end: int | None = None, version: int | None = None) -> dict[int, Cohort]:
    """Per version the sum of its stored hours with start <= hour < end."""
    total: dict[int, Cohort] = {}
    for number, _, _, cohort in stored_cohorts(home, model, start=start, end=end, version=version):
        total[number] = total.get(number, Cohort()) + cohort
    return total


def stored_cohorts(home: Home, model: str, *, start: int | None = None, end: int | None = None,
                   version: int | None = None) -> list[tuple[int, str, int, Cohort]]:
    """The stored hours in order of time: version, arm, start, cohort. A shadow's are among them."""
    query = sa.select(monitor_cohorts).where(monitor_cohorts.c.model == model)
    if start is not None:
        query = query.where(monitor_cohorts.c.start >= start)
    if end is not None:
        query = query.where(monitor_cohorts.c.start < end)
    if version is not None:
        query = query.where(monitor_cohorts.c.version == version)
    with home.database.read() as connection:
        rows = connection.execute(query.order_by(monitor_cohorts.c.start, monitor_cohorts.c.version, monitor_cohorts.c.arm)).all()
    return [(row.version, row.arm, row.start, unpack(row.data, Cohort)) for row in rows]


def mature_until(definition: ModelDefinition, now: int) -> int:
    """Hours before this moment are mature: the outcomes of their last predictions are due."""
    return (now - definition.spec.outcome.matures_after) // HOUR * HOUR


def _compute(home: Home, definition: ModelDefinition, start: int, end: int) -> None:
    model = definition.name
    frame = labelled(home, model, matures_after=definition.spec.outcome.matures_after, start=start, end=end)
    if not frame.height:
        return
    found = cohorts(frame, label=definition.label, signatures=_signatures(home, model), kpis=definition.kpis)
    counted = frame.filter(~pl.col("pinned")).group_by("version", "arm", (pl.col("time") // HOUR * HOUR).alias("hour")).len()
    with home.database.begin() as connection:
        for version, arm, hour, rows in counted.iter_rows():
            cohort = found.get((version, arm, hour), Cohort())
            statement = insert(connection, monitor_cohorts).values(model=model, version=version, arm=arm, start=hour, rows=rows, data=pack(cohort))
            changed = {"rows": statement.excluded.rows, "data": statement.excluded.data}
            connection.execute(statement.on_conflict_do_update(index_elements=["model", "version", "arm", "start"], set_=changed))


def _complete_hours(home: Home, model: str, now: int) -> dict[int, bool]:
    """The hours with predictions: whether one is over and was not computed with all that is counted in the profiles."""
    profiles, stored = monitor_profiles.c, monitor_cohorts.c
    hour = (profiles.start - profiles.start % HOUR).label("hour")
    served = sa.select(hour, sa.func.sum(profiles.rows)).where(profiles.model == model, profiles.span == HOUR, profiles.arm != "pinned").group_by("hour")
    kept = sa.select(stored.start, sa.func.sum(stored.rows)).where(stored.model == model).group_by(stored.start)
    with home.database.read() as connection:
        computed = {row[0]: int(row[1]) for row in connection.execute(kept)}
        return {int(row[0]): row[0] + HOUR <= now and computed.get(row[0]) != int(row[1]) for row in connection.execute(served)} | {
            hour: False for hour in computed if hour < now - _LONGEST}


def _hour_of(id: str) -> int | None:
    """The hour in which a prediction of this id was made; the id begins with its milliseconds."""
    try:
        return int(id[:12], 16) * 1000 // HOUR * HOUR if len(id) == 32 else None
    except ValueError:
        return None


def _hours_of_entities(events: pl.DataFrame, definition: ModelDefinition) -> set[int]:
    known = events.filter(pl.col(PREDICTION).is_null() & pl.col(ENTITY).is_not_null())["known"]
    reach = min(definition.spec.outcome.matures_after or _LONGEST, _LONGEST)
    found: set[int] = set()
    for hour in (known // HOUR * HOUR).unique().to_list():
        found.update(range((hour - reach) // HOUR * HOUR, hour + HOUR, HOUR))
    return found


def _ranges(hours: list[int]) -> list[tuple[int, int]]:
    """First and last of those that lie near each other."""
    found: list[tuple[int, int]] = []
    for hour in hours:
        if found and hour - found[-1][1] <= NEAR * HOUR and hour - found[-1][0] < 7 * 24 * HOUR:
            found[-1] = found[-1][0], hour
        else:
            found.append((hour, hour))
    return found


def _still_waiting(home: Home, model: str, ids: list[str], now: int) -> list[str]:
    """Of these predictions those that are not in the log, unless they are too old to come still."""
    recent = {name: hour for name in ids if (hour := _hour_of(name)) is not None and hour > now - WAITING}
    if not recent:
        return []
    seen = set(read_served(home, model, start=min(recent.values()) - HOUR)["prediction"].to_list())
    return [name for name in recent if name not in seen][-MOST_WAITING:]


def _signatures(home: Home, model: str) -> dict[int, Signature | None]:
    with home.database.read() as connection:
        return {found.version: found.signature for found in list_versions(connection, model)}


def _standing(home: Home, model: str) -> _Standing:
    query = sa.select(monitor_cursors).where(monitor_cursors.c.name == f"cohorts/{model}")
    with home.database.read() as connection:
        row: Any = connection.execute(query).first()
    return _Standing() if row is None else _Standing(row.position, msgspec.json.decode(row.data or "[]", type=list[str]))
