"""Udfs in serving: the gateway reads what they take, and the version's worker, which may run a user's code, computes them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from davy.features.online import Vector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from davy.features.definition import FeatureSet
    from davy.serving.routes import VersionRoute


class Split:
    """A feature set in two halves.

    Attributes:
        base: without derived features; its outputs are what they may take.
    """

    def __init__(self, feature_set: FeatureSet) -> None:
        named = [*(feature.name for view in feature_set.views for feature in view.features),
                 *(field.name for field in (*feature_set.entities, *feature_set.request))]
        self.base = msgspec.structs.replace(feature_set, derived=(), outputs=tuple(named), kinds=()).sealed()
        available = [*named, *(spec.name for spec in feature_set.derived)]
        self._picks = [available.index(name) for name in feature_set.outputs]

    def joined(self, read: Vector, derived: Sequence[Any]) -> Vector:
        """The whole vector."""
        values = [*read.values, *derived]
        return Vector(read.time, read.watermarks, [values[pick] for pick in self._picks])


class Row(Protocol):
    """One row on its way through the gateway: what was read, the microseconds that took, and the model's row of it."""

    vector: Vector | None
    features: int
    packed: bytes


async def derive(rows: Sequence[Row], route: VersionRoute) -> None:
    """Complete the vectors of a version with udfs: its worker computes all rows at once. Those that it doesn't complete have no vector.

    Raises:
        UdfFailed: a udf raised, or returned what it may not. InvalidInput: an int beyond 64 bits. TimedOut, Unavailable: the worker is late or away.
    """
    assert route.split is not None
    before, read = time.perf_counter_ns(), []
    for row in rows:
        assert row.vector is not None
        read.append(row.vector)
        row.vector = None
    found = await route.link.derive([vector.values for vector in read])
    took = (time.perf_counter_ns() - before) // 1000
    for row, vector, values in zip(rows, read, found, strict=True):
        row.vector = whole = route.split.joined(vector, values)
        row.packed = route.pack(*route.encode(whole.values))
        row.features += took
