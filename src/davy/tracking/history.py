"""Curves: all points of a metric, or as many as a plot can show without losing a peak."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import msgspec
import sqlalchemy as sa

from davy.errors import InvalidInput
from davy.schema.tables import metrics

_NAN = float("nan")
_COLUMNS = metrics.c
_IS_NAN = sa.cast(_COLUMNS.is_nan, sa.Integer)
_VALUE = itemgetter(2)
FEWEST = 5


class History(msgspec.Struct, frozen=True):
    """A curve in the order of its steps, as columns of equal length.

    Attributes:
        times: microseconds.
        total: how many points are stored for it (and range); `len(steps)` of them are here.
    """

    key: str
    steps: list[int]
    times: list[int]
    values: list[float]
    total: int

    @property
    def decimated(self) -> bool:
        """Whether points were left out."""
        return len(self.steps) < self.total


def metric_history(connection: sa.Connection, run_id: str, key: str, *, points: int | None = None, first_step: int | None = None,
                   last_step: int | None = None) -> History:
    """The curve of one metric.

    Args:
        points: at most so many. The curve is cut into equal slices of its points and each keeps its lowest and its
            highest (and a NaN, where there is one); the first and the last point are always kept. One pass.
        first_step: leave out what lies before.
        last_step: leave out what lies after.
    """
    if points is not None and points < FEWEST:
        raise InvalidInput(f"points={points} was asked for.", f"A decimated curve has at least {FEWEST} points.", f"Pass points={FEWEST} or more.")
    where = [_COLUMNS.run_id == run_id, _COLUMNS.key == key]
    if first_step is not None:
        where.append(_COLUMNS.step >= first_step)
    if last_step is not None:
        where.append(_COLUMNS.step <= last_step)
    total, nans = connection.execute(sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(_IS_NAN), 0)).where(*where)).one()
    query = sa.select(_COLUMNS.step, _COLUMNS.timestamp, _COLUMNS.value, _IS_NAN).where(*where).order_by(
        _COLUMNS.step, _COLUMNS.timestamp, _COLUMNS.value, _COLUMNS.is_nan)
    with connection.execute(query, execution_options={"stream_results": True}) as cursor:
        rows = cursor.fetchall() if points is None or total <= points else _decimate(cursor, total, points, bool(nans))
    return History(key, [row[0] for row in rows], [row[1] * 1000 for row in rows], [_NAN if row[3] else row[2] for row in rows], total)


def metric_keys(connection: sa.Connection, run_id: str) -> dict[str, int]:
    """The keys of a run's metrics by name, with how many points each has."""
    query = sa.select(_COLUMNS.key, sa.func.count()).where(_COLUMNS.run_id == run_id).group_by(_COLUMNS.key).order_by(_COLUMNS.key)
    return {row[0]: row[1] for row in connection.execute(query)}


def _decimate(cursor: sa.CursorResult[Any], total: int, points: int, nans: bool) -> list[Any]:
    """The first and last row, and of each slice between them the lowest, the highest and the first NaN, in the order of the rows."""
    slices = (points - 2) // (3 if nans else 2)
    kept = list(cursor.fetchmany(1))
    taken = 0
    for index in range(1, slices + 1):
        end = (total - 2) * index // slices
        rows: list[Any] = list(cursor.fetchmany(end - taken))
        taken = end
        numbers = [row for row in rows if not row[3]] if nans else rows
        chosen = {min(numbers, key=_VALUE), max(numbers, key=_VALUE)} if numbers else set()
        if len(numbers) < len(rows):
            chosen.add(next(row for row in rows if row[3]))
        kept.extend(sorted(chosen))
    kept.extend(cursor.fetchmany(1))
    return kept
