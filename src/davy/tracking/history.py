"""Curves: all points of a metric, or as many as a plot can show without losing a peak."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from davy.errors import InvalidInput
from davy.schema.tables import metrics

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAN = float("nan")
_COLUMNS = metrics.c
_FETCH = 5000
FEWEST = 4


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
    total, nans = connection.execute(sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(sa.cast(_COLUMNS.is_nan, sa.Integer)), 0)).where(*where)).one()
    query = sa.select(_COLUMNS.step, _COLUMNS.timestamp, _COLUMNS.value, _COLUMNS.is_nan).where(*where).order_by(
        _COLUMNS.step, _COLUMNS.timestamp, _COLUMNS.value, _COLUMNS.is_nan)
    cursor = connection.execution_options(yield_per=_FETCH).execute(query)
    rows: Iterable[Any] = cursor if points is None or total <= points else _decimate(cursor, total, points, bool(nans))
    kept = [(row[0], row[1] * 1000, _NAN if row[3] else row[2]) for row in rows]
    return History(key, [row[0] for row in kept], [row[1] for row in kept], [row[2] for row in kept], total)


def metric_keys(connection: sa.Connection, run_id: str) -> dict[str, int]:
    """The keys of a run's metrics by name, with how many points each has."""
    query = sa.select(_COLUMNS.key, sa.func.count()).where(_COLUMNS.run_id == run_id).group_by(_COLUMNS.key).order_by(_COLUMNS.key)
    return dict(connection.execute(query).tuples().all())


def _decimate(rows: Iterable[Any], total: int, points: int, nans: bool) -> list[Any]:
    """The first and last row, and of each slice the lowest, the highest and the first NaN, in the order of the rows."""
    slices = max((points - 2) // (3 if nans else 2), 1)
    if points == FEWEST and nans:
        slices = 0
    kept: list[tuple[int, Any]] = []
    low: tuple[int, Any] | None = None
    high: tuple[int, Any] | None = None
    hole: tuple[int, Any] | None = None
    current = 0
    for index, row in enumerate(rows):
        if index == 0 or index == total - 1:
            kept.append((index, row))
            continue
        if not slices:
            continue
        place = (index - 1) * slices // (total - 2)
        if place != current:
            kept.extend({item[0]: item for item in (low, high, hole) if item is not None}.values())
            low = high = hole = None
            current = place
        if row[3]:
            hole = hole or (index, row)
        else:
            if low is None or row[2] < low[1][2]:
                low = (index, row)
            if high is None or row[2] > high[1][2]:
                high = (index, row)
    kept.extend({item[0]: item for item in (low, high, hole) if item is not None}.values())
    return [row for _, row in sorted(kept, key=lambda item: item[0])]
