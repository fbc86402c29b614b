"""A small feature set and its signature."""

from __future__ import annotations

from davy.core.fields import Field
from davy.features.definition import FeatureSet, FeatureSpec, StreamSpec, ViewSpec
from davy.registry.signature import Signature

STREAM = StreamSpec("flights", "dep_time", (Field("origin", "str"), Field("dep_delay", "float", 6)))


def feature_set(window: int = 3_600_000_000) -> FeatureSet:
    """One windowed mean, one text that is passed through."""
    view = ViewSpec("Airport", "flights", ("origin",), (FeatureSpec("mean_delay", "mean", "dep_delay", window, 60_000_000),)).sealed(STREAM)
    return FeatureSet((Field("origin", "str"),), (Field("distance", "int"),), (STREAM,), (view,), (),
                      ("mean_delay", "distance", "origin"), ("float", "int", "str")).sealed()


def signature() -> Signature:
    """Of that feature set."""
    found = feature_set()
    return Signature.of(found.outputs, found.kinds, {"origin": ["EWR", "JFK"]}, output="probability", classes=[False, True])
