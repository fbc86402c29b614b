"""A column as it was in the training set and as it was served, for the eye: equal steps of the value, or text by text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from davy.web.charts import Chart, Series

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from davy.monitoring.columns import ColumnProfile, ColumnReference

STEPS, TAIL = 40, 0.005
TEXTS = 12


class Bars(msgspec.Struct, frozen=True):
    """One text (or a group of them) with its share of all rows in the training set and in the window."""

    name: str
    before: float
    now: float
    special: bool = False


def curves(column: ColumnReference, profile: ColumnProfile) -> Chart:
    """Shares of the values in equal steps, between the outermost half per cents of both distributions. What is beyond the training set's range is left out."""
    edges = column.edges
    points = np.concatenate([[min([column.low, *edges[:1]])], edges, [column.high]])
    inside = profile.counts.copy()
    inside[0] -= profile.below
    inside[-1] -= profile.above
    before, now = _running(column.counts), _running(inside)
    ends = [float(np.interp(share, running, points)) for running in (before, now) if running[-1] > 0 for share in (TAIL, 1 - TAIL)]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    whole = _whole(column)
    if whole:
        low, high = round(low), round(high)
    step = max(1.0, np.ceil((high - low + 1) / STEPS)) if whole else (high - low) / STEPS
    grid = np.arange(low - 0.5, high + step, step) if whole else np.linspace(low, high, STEPS + 1)
    part = float(inside.sum()) / max(int(profile.counts.sum()), 1)
    old, new = _steps(points, before, grid, whole), [part * share for share in _steps(points, now, grid, whole)]
    x = grid if not whole else grid + 0.5
    lines = [Series("training set", [*old, old[-1]], 3, step=True, fill=True), Series("served", [*new, new[-1]], 1, step=True)]
    return Chart(x.tolist(), column.name, "Share of values, %", lines, zero=True, total=profile.rows - profile.nulls)


def bars(column: ColumnReference, profile: ColumnProfile) -> list[Bars]:
    """The most frequent texts, what is left of the known ones, the unseen ones, and nulls."""
    old, new = max(column.rows, 1), max(profile.rows, 1)
    width = len(column.top)
    order = sorted(range(width), key=lambda place: -max(column.counts[place] / old, profile.counts[place] / new))[:TEXTS]
    rest = sorted(set(range(width)) - set(order))
    found = [Bars(column.top[place], float(column.counts[place]) / old, float(profile.counts[place]) / new) for place in order]
    found.append(Bars("others", float(column.counts[rest].sum() + column.counts[-2]) / old, float(profile.counts[rest].sum() + profile.counts[-2]) / new, True))
    found.append(Bars("not in the training set", 0.0, float(profile.counts[-1]) / new, True))
    found.append(Bars("null", column.nulls / old, profile.nulls / new, True))
    return [item for item in found if item.before or item.now]


def _whole(column: ColumnReference) -> bool:
    """Whether its values are whole numbers. The edges just below a heavy value are no values themselves."""
    values = column.edges[np.append(np.nextafter(column.edges[:-1], np.inf) != column.edges[1:], True)] if len(column.edges) else column.edges
    return bool(np.all(np.append(values, [column.low, column.high]) % 1 == 0))


def _running(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    running = np.concatenate([[0], np.cumsum(counts)]).astype(np.float64)
    return running / running[-1] if running[-1] else running


def _steps(points: NDArray[np.float64], running: NDArray[np.float64], grid: NDArray[np.float64], whole: bool) -> list[float]:
    """Per cent between the points of the grid. Whole numbers sit on their edges; others spread evenly between two."""
    if whole:
        places = np.searchsorted(points, grid, side="right") - 1
        below = np.where(places < 0, 0.0, running[places])
    else:
        below = np.where(grid <= points[0], 0.0, np.interp(grid, points, running))
    shares: list[float] = (100 * np.diff(below)).tolist()
    return shares
