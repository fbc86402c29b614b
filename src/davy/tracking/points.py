"""Points of curves, as columns."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import msgspec

from davy.tracking.records import Metric
from davy.tracking.runs import log_metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    import sqlalchemy as sa


class Points(msgspec.Struct, frozen=True):
    """Points of one curve, as columns of equal length; times in milliseconds."""

    steps: array[int]
    times: array[int]
    values: array[float]


def add_points(connection: sa.Connection, run_id: str, columns: Mapping[str, Points]) -> None:
    """Add points to a run that takes them."""
    log_metrics(connection, run_id, [Metric(key, value, step, time * 1000) for key, points in columns.items()
                                     for step, time, value in zip(points.steps, points.times, points.values, strict=True)])
