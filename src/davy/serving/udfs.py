"""Udfs in serving: the gateway reads what they take, and the version's worker, which may run a user's code, computes them."""

from __future__ import annotations

import asyncio
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
    """One row on its way through the gateway: its version, what was read, the microseconds that took, and the model's row of it."""

    route: VersionRoute
    vector: Vector
    features: int
    packed: bytes


async def derive(rows: Sequence[Row]) -> None:
    """Complete the vectors of versions with udfs: each version's worker computes all its rows at once.

    Raises:
        UdfFailed: a udf raised, or returned what it may not. InvalidInput: an int beyond 64 bits. TimedOut, Unavailable: the worker is late or away.
    """
    groups: dict[VersionRoute, list[Row]] = {}
    for row in rows:
        if row.route.split is not None:
            groups.setdefault(row.route, []).append(row)
    if not groups:
        return
    before = time.perf_counter_ns()
    found = await asyncio.gather(*(route.link.derive([row.vector.values for row in group]) for route, group in groups.items()))
    took = (time.perf_counter_ns() - before) // 1000
    for (route, group), derived in zip(groups.items(), found, strict=True):
        assert route.split is not None
        for row, values in zip(group, derived, strict=True):
            row.vector = route.split.joined(row.vector, values)
            row.packed = route.pack(*route.encode(row.vector.values))
            row.features += took
