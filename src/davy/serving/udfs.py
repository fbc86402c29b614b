"""Udfs in serving: the gateway reads what they take, and the version's worker, which may run a user's code, computes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from davy.features.online import Vector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from davy.features.definition import FeatureSet


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
