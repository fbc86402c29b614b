"""Replay: served vectors computed again from the log as of their (t, W), and compared bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl

from davy.features.training_set import compute_vectors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from davy.engines.offline.base import OfflineEngine
    from davy.features.definition import FeatureSet


class Served(msgspec.Struct, frozen=True):
    """Logged vectors of one feature set.

    Attributes:
        ids: the predictions.
        given: entity keys and request fields, one column each.
        times: int64 microseconds, shape (rows,).
        watermarks: per stream int64 offsets, shape (rows,).
        values: one column per output.
    """

    ids: list[str]
    given: pl.DataFrame
    times: np.ndarray
    watermarks: dict[str, np.ndarray]
    values: pl.DataFrame


class Difference(msgspec.Struct, frozen=True):
    """One value that did not come out equal."""

    row: int
    feature: str
    served: Any
    recomputed: Any


def differences(engine: OfflineEngine, feature_set: FeatureSet, served: Served) -> list[Difference]:
    """Every value whose bits differ from what the log gives as of the vector's time and watermarks."""
    again = compute_vectors(engine, feature_set, served.given, served.times, served.watermarks)
    found = []
    for name in feature_set.outputs:
        rows = np.flatnonzero(unequal(served.values[name], again[name])).tolist()
        found += [Difference(row, name, served.values[name][row], again[name][row]) for row in rows]
    return found


def unequal(left: pl.Series, right: pl.Series) -> np.ndarray:
    """Where two columns differ in any bit: null equals null, 0.0 does not equal -0.0. bool, shape (rows,)."""
    if left.dtype != right.dtype:
        return np.ones(len(left), dtype=bool)
    nulls_left, nulls_right = left.is_null().to_numpy(), right.is_null().to_numpy()
    if left.dtype == pl.Float64:
        bits = left.fill_null(0.0).to_numpy().view(np.int64) != right.fill_null(0.0).to_numpy().view(np.int64)
    else:
        bits = (left != right).fill_null(False).to_numpy()
    result: np.ndarray = (nulls_left != nulls_right) | (bits & ~nulls_left & ~nulls_right)
    return result


class Change(msgspec.Struct, frozen=True):
    """How one feature would have differed: in how many vectors, and for numbers the absolute sizes, float64, shape (changes,)."""

    changed: int
    sizes: np.ndarray

    def __add__(self, other: Change) -> Change:
        return Change(self.changed + other.changed, np.concatenate([self.sizes, other.sizes]))

    def summary(self) -> dict[str, Any]:
        """`changed`, and where there are sizes their `p50`, `p99` and `max`."""
        found: dict[str, Any] = {"changed": self.changed}
        if len(self.sizes):
            found |= {"p50": float(np.quantile(self.sizes, 0.5)), "p99": float(np.quantile(self.sizes, 0.99)), "max": float(self.sizes.max())}
        return found


def lateness(engine: OfflineEngine, feature_set: FeatureSet, served: Served) -> dict[str, Change]:
    """How each feature would have differed, had everything that is in the log today been known: the price of late events.

    Features that would not have differed are left out.
    """
    today: Mapping[str, np.ndarray] = {stream.name: np.full(len(served.ids), engine.last_offset(stream), dtype=np.int64) for stream in feature_set.streams}
    known = compute_vectors(engine, feature_set, served.given, served.times, today)
    found = {}
    for name, kind in zip(feature_set.outputs, feature_set.kinds, strict=True):
        changed = unequal(served.values[name], known[name])
        if changed.any():
            numbers = kind in ("int", "float")
            found[name] = Change(int(changed.sum()), _sizes(served.values[name], known[name], changed) if numbers else np.empty(0))
    return found


def _sizes(served: pl.Series, known: pl.Series, changed: np.ndarray) -> np.ndarray:
    both = pl.DataFrame({"served": served, "known": known}).filter(pl.Series(changed)).drop_nulls()
    return np.asarray(np.abs(both["served"].cast(pl.Float64).to_numpy() - both["known"].cast(pl.Float64).to_numpy()))
