"""Points for curves, written down point by point."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from davy.tracking.points import Points, add_points

if TYPE_CHECKING:
    from collections.abc import Iterable

    import sqlalchemy as sa


def put_points(connection: sa.Connection, run_id: str, points: Iterable[tuple[str, float, int, int]]) -> None:
    """Add points of (key, value, step, milliseconds) to a run's curves."""
    columns: dict[str, Points] = {}
    for key, value, step, time in points:
        column = columns.setdefault(key, Points(array("q"), array("q"), array("d")))
        column.steps.append(step)
        column.times.append(time)
        column.values.append(value)
    add_points(connection, run_id, columns)
