"""The contract of an offline engine: it finds the events behind each row of a spine, and hands their exact totals to the kernel.

It scans, sorts and shuffles; it never does a feature's arithmetic itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from davy.features.definition import StreamSpec, ViewSpec


@dataclass(frozen=True)
class Spine:
    """The moments at which features are asked for.

    Attributes:
        keys: one column per entity key, in stored form, shape (rows, keys).
        times: int64 microseconds, shape (rows,).
        watermarks: int64 offsets of the view's stream, shape (rows,): events beyond are not seen.
    """

    keys: pl.DataFrame
    times: np.ndarray
    watermarks: np.ndarray


class OfflineEngine(Protocol):
    """Computes views over the event log."""

    def last_offset(self, stream: StreamSpec) -> int:
        """The offset of the newest event in the log; 0 for none."""
        ...

    def known_at(self, stream: StreamSpec, times: np.ndarray) -> np.ndarray:
        """For each time (int64 µs) the last offset whose ingest time lies before it; int64, shape (rows,)."""
        ...

    def aggregate(self, stream: StreamSpec, view: ViewSpec, spine: Spine) -> list[pl.Series]:
        """The view's features for each row of the spine, in the order of the definition.

        For each row: over the events of the entity with floor_hop(t - window) <= event time < t and offset <= watermark.
        One value per row, in the spine's order, null where the definition says so.
        """
        ...
