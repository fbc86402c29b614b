"""Exact totals of many slices of one sorted column: counts, sums, sums of squares, extremes, last values."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from davy.engines.offline.runs import Column, Layer
from davy.features.tiles import NONE_YET as NULL

if TYPE_CHECKING:
    from collections.abc import Callable

ROOM = 1 << 60
LARGEST = (1 << 63) - 1
_LIMB = 30


def bisect(values: np.ndarray, start: np.ndarray, end: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For each query the first position in [start, end) with values[position] >= wanted, or `end`.

    Args:
        values: int64, ascending within each [start, end).
        start, end, wanted: int64, shape (queries,).
    """
    low, high = start.copy(), end.copy()
    while True:
        open_ = low < high
        if not open_.any():
            return low
        middle = (low + high) >> 1
        before = (values[np.where(open_, middle, 0)] < wanted) & open_
        low = np.where(before, middle + 1, low)
        high = np.where(open_ & ~before, middle, high)


def _ranges(lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All positions of all slices in a row, and where each slice begins in that row."""
    lengths = upper - lower
    ends = np.cumsum(lengths)
    begins = ends - lengths
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(lower - begins, lengths), begins


class Slices:
    """One column of one layer, summed over slices.

    Args:
        name: the field; None counts events.
        known: the column's bounds.
        visible: for a loose layer, the offsets of its rows and the watermark of each query.
    """

    def __init__(self, layer: Layer, name: str | None, known: Column | None, visible: tuple[np.ndarray, np.ndarray] | None) -> None:
        self.layer, self.name = layer, name
        self.known = known or Column(False, 0)
        self.visible = visible

    @cached_property
    def _values(self) -> np.ndarray:
        assert self.name is not None
        return self.layer.column(self.name)

    @cached_property
    def _zeroed(self) -> np.ndarray:
        values = self._values[:-1]
        zeroed: np.ndarray = np.where(values == NULL, 0, values) if self.known.nulls else values
        return zeroed

    def count(self, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """Events (or non-null values) per slice, int64."""
        if self.visible is not None:
            return self._loosely(lower, upper, len, np.int64)
        if not self.known.nulls:
            return np.asarray(upper - lower)
        return self._summed(lower, upper, lambda: np.not_equal(self._values[:-1], NULL).astype(np.int64))

    def total(self, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """Sums per slice: int64, or Python ints where 64 bits might be too few."""
        if self.visible is not None:
            return self._loosely(lower, upper, sum, object)
        longest = int((upper - lower).max(initial=0))
        if self.known.largest * max(longest, 1) < ROOM:
            return self._summed(lower, upper, lambda: self._zeroed)
        low = self._summed(lower, upper, lambda: self._zeroed & ((1 << 32) - 1))
        high = self._summed(lower, upper, lambda: self._zeroed >> 32)
        return np.asarray((high.astype(object) << 32) + low.astype(object))

    def squares(self, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """Sums of squares per slice: int64, or Python ints where 64 bits might be too few."""
        if self.visible is not None:
            return self._loosely(lower, upper, lambda values: sum(value * value for value in values), object)
        longest = max(int((upper - lower).max(initial=0)), 1)
        if self.known.largest**2 * longest < ROOM:
            return self._summed(lower, upper, lambda: self._zeroed * self._zeroed)
        if self.known.largest >= 1 << (2 * _LIMB):
            return self._each(lower, upper, lambda values: sum(value * value for value in values))
        mask = (1 << _LIMB) - 1
        parts: tuple[tuple[int, Callable[[np.ndarray, np.ndarray], np.ndarray]], ...] = (
            (0, lambda a, b: b * b),
            (_LIMB, lambda a, b: 2 * a * b),
            (2 * _LIMB, lambda a, b: a * a),
        )
        result = np.zeros(len(lower), dtype=object)
        for shift, product in parts:
            for more, half in ((0, lambda x: x & mask), (_LIMB, lambda x: x >> _LIMB)):
                limb = self._summed(lower, upper, lambda p=product, h=half: h(p(self._zeroed >> _LIMB, self._zeroed & mask)))  # type: ignore[misc]
                result += limb.astype(object) << (shift + more)
        return result

    def extreme(self, lower: np.ndarray, upper: np.ndarray, largest: bool) -> np.ndarray:
        """The largest or smallest value per slice, NULL where there is none."""
        if self.visible is not None:
            return self._loosely(lower, upper, lambda values: (max if largest else min)(values, default=NULL), np.int64)
        result = np.full(len(lower), NULL, dtype=np.int64)
        full = np.flatnonzero(upper > lower)
        if not len(full):
            return result
        lower, upper = lower[full], upper[full]
        values, reduce = self._values, np.maximum if largest else np.minimum
        if int((upper - lower).sum()) <= self.layer.rows:
            positions, begins = _ranges(lower, upper)
            chosen = values[positions]
            if not largest and self.known.nulls:
                chosen[chosen == NULL] = LARGEST
            found = reduce.reduceat(chosen, begins)
        else:
            order = np.argsort(lower, kind="stable")
            padded = np.where(values == NULL, LARGEST, values) if not largest and self.known.nulls else values
            pairs = np.stack([lower[order], upper[order]], axis=1).ravel()
            found = np.empty(len(full), dtype=np.int64)
            found[order] = reduce.reduceat(padded, pairs)[::2]
        result[full] = np.where(found == LARGEST, NULL, found)
        return result

    def last(self, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The position of the last non-null value per slice (-1 where there is none), and the value."""
        if self.visible is not None:
            at = self._last_loose(lower, upper)
        else:
            at = upper - 1
            if self.known.nulls:
                newest = np.maximum.accumulate(np.where(self._values[:-1] != NULL, np.arange(self.layer.rows), -1))
                at = np.where(at >= 0, newest[at], -1) if self.layer.rows else at
            at = np.where(at >= lower, at, -1)
        return at, self._values[at]

    def _summed(self, lower: np.ndarray, upper: np.ndarray, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Sums per slice by prefix sums; they may wrap around, their differences can't (see the bounds checked before)."""
        prefix = np.zeros(self.layer.rows + 1, dtype=np.int64)
        np.cumsum(make(), out=prefix[1:])
        result: np.ndarray = prefix[upper] - prefix[lower]
        return result

    def _each(self, lower: np.ndarray, upper: np.ndarray, compute: Callable[[list[int]], int]) -> np.ndarray:
        values = self._zeroed
        return np.array([compute(values[low:high].tolist()) for low, high in zip(lower.tolist(), upper.tolist(), strict=True)], dtype=object)

    def _loosely(self, lower: np.ndarray, upper: np.ndarray, compute: Callable[[list[int]], int], dtype: type) -> np.ndarray:
        """`compute` over the visible non-null values of each slice of a loose layer."""
        assert self.visible is not None
        offsets, watermarks = self.visible
        values = self._values if self.name is not None else offsets
        result = []
        for low, high, watermark in zip(lower.tolist(), upper.tolist(), watermarks.tolist(), strict=True):
            part = values[low:high]
            result.append(compute(part[(offsets[low:high] <= watermark) & (part != NULL)].tolist()))
        return np.array(result, dtype=dtype)

    def _last_loose(self, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        assert self.visible is not None
        offsets, watermarks = self.visible
        result = []
        for low, high, watermark in zip(lower.tolist(), upper.tolist(), watermarks.tolist(), strict=True):
            seen = np.flatnonzero((offsets[low:high] <= watermark) & (self._values[low:high] != NULL))
            result.append(low + int(seen[-1]) if len(seen) else -1)
        return np.array(result, dtype=np.int64)
