"""Quantiles from logarithmic buckets: mergeable by addition, each within one per cent, whatever the order in which values came.

Source: Masson, Rim and Lee, "DDSketch", PVLDB 12 (2019).
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

ACCURACY = 0.01
_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_LOG = math.log(_GAMMA)
_SMALLEST = 1e-9


class Quantiles(msgspec.Struct, eq=False):
    """How often values fell into each bucket. `places` are sorted; what is at most a billionth is counted as `zeros`, negatives as their own buckets.

    >>> sketch = Quantiles.of(np.arange(1, 1001))
    >>> round(sketch.quantile(0.5), -1)
    500.0
    """

    places: np.ndarray = msgspec.field(default_factory=lambda: np.empty(0, dtype=np.int64))
    counts: np.ndarray = msgspec.field(default_factory=lambda: np.empty(0, dtype=np.int64))
    below_places: np.ndarray = msgspec.field(default_factory=lambda: np.empty(0, dtype=np.int64))
    below_counts: np.ndarray = msgspec.field(default_factory=lambda: np.empty(0, dtype=np.int64))
    zeros: int = 0
    total: float = 0.0

    @classmethod
    def of(cls, values: np.ndarray) -> Quantiles:
        """The sketch of these values; NaN is passed over."""
        numbers = np.asarray(values, dtype=np.float64)
        numbers = numbers[np.isfinite(numbers)]
        ups, downs = numbers[numbers > _SMALLEST], -numbers[numbers < -_SMALLEST]
        places, counts = np.unique(_places(ups), return_counts=True)
        below_places, below_counts = np.unique(_places(downs), return_counts=True)
        return cls(places, counts.astype(np.int64), below_places, below_counts.astype(np.int64), len(numbers) - len(ups) - len(downs), float(numbers.sum()))

    @property
    def count(self) -> int:
        """How many values there are."""
        return int(self.counts.sum() + self.below_counts.sum()) + self.zeros

    @property
    def mean(self) -> float | None:
        """Their mean, exact."""
        return self.total / self.count if self.count else None

    def __add__(self, other: Quantiles) -> Quantiles:
        return Quantiles(*_sum(self.places, self.counts, other.places, other.counts),
                         *_sum(self.below_places, self.below_counts, other.below_places, other.below_counts),
                         self.zeros + other.zeros, self.total + other.total)

    def quantile(self, q: float) -> float | None:
        """The value below which a share q lies, within one per cent; None of nothing."""
        count = self.count
        if not count:
            return None
        rank = min(int(q * (count - 1) + 0.5), count - 1)
        below = int(self.below_counts.sum())
        if rank < below:
            behind = np.cumsum(self.below_counts[::-1])
            return -_value(int(self.below_places[::-1][np.searchsorted(behind, rank, side="right")]))
        rank -= below
        if rank < self.zeros:
            return 0.0
        return _value(int(self.places[np.searchsorted(np.cumsum(self.counts), rank - self.zeros, side="right")]))

    def above(self, limit: float) -> int:
        """How many values lie above a positive limit, to the bucket."""
        return int(self.counts[self.places > math.ceil(math.log(limit) / _LOG)].sum()) if limit > _SMALLEST else int(self.counts.sum())


def _places(values: np.ndarray) -> np.ndarray:
    places: np.ndarray = np.ceil(np.log(values) / _LOG).astype(np.int64)
    return places


def _value(place: int) -> float:
    return 2 * math.exp(place * _LOG) / (_GAMMA + 1)


def _sum(places: np.ndarray, counts: np.ndarray, more_places: np.ndarray, more_counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    both, where = np.unique(np.concatenate([places, more_places]), return_inverse=True)
    return both.astype(np.int64), np.bincount(where, np.concatenate([counts, more_counts]), len(both)).astype(np.int64)
