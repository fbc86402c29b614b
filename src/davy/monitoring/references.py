"""The stored references: one for each training set, made from its rows the first time that somebody asks."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import msgspec
import polars as pl
import sqlalchemy as sa

from davy.errors import NotFound
from davy.monitoring.columns import Reference, make_reference
from davy.monitoring.packed import pack, unpack
from davy.registry.definitions import get_feature_set
from davy.schema.tables import monitor_references
from davy.store.database import insert
from davy.tracking.artifacts import read_artifact
from davy.training.record import ROWS

if TYPE_CHECKING:
    from davy.features.definition import FeatureSet
    from davy.home import Home
    from davy.registry.models import ModelVersion

_NONE = Reference("", 0, ())


def reference_of(home: Home, version: ModelVersion) -> Reference:
    """The reference that a version is compared with; one without columns when its training set's rows were not kept."""
    if version.training_set is None or version.feature_set is None:
        return _NONE
    stored = get_reference(home, version.training_set)
    if stored is not None:
        return stored
    if version.run_id is None:
        return _NONE
    with home.database.read() as connection:
        features = get_feature_set(connection, version.feature_set, verified=False)
        try:
            rows = read_artifact(connection, home.blobs, version.run_id, ROWS)
        except NotFound:
            return _NONE
    return put_reference(home, from_rows(pl.read_parquet(io.BytesIO(rows)), features, version.training_set))


def from_rows(frame: pl.DataFrame, features: FeatureSet, training_set: str) -> Reference:
    """The reference of a training set's frame: its features (see `TrainingSet.features`), with the times of its rows."""
    columns = [pl.col(f"feature.{name}").alias(name) if f"feature.{name}" in frame.columns else pl.col(name) for name in features.outputs]
    moments = frame["time"]
    times = (moments if moments.dtype.is_integer() else moments.dt.epoch("us")).to_numpy()
    return make_reference(frame.select(columns), times=times, timed=time_determined(features), training_set=training_set)


def time_determined(features: FeatureSet) -> set[str]:
    """The outputs that follow from the request's times alone, such as the hour: drift of theirs is looked for within the hours of a week."""
    found = {field.name for field in features.request if field.kind == "time"}
    for spec in features.derived:
        if spec.inputs and all(name in found for name in spec.inputs):
            found.add(spec.name)
    return found & set(features.outputs)


def importance_of(home: Home, version: ModelVersion) -> dict[str, float]:
    """How much the model makes of each feature, by its own word: shares that sum to 1; empty where the run says nothing."""
    if version.run_id is None:
        return {}
    with home.database.read() as connection:
        try:
            told = msgspec.json.decode(read_artifact(connection, home.blobs, version.run_id, "importance.json"), type=dict[str, float])
        except (NotFound, msgspec.MsgspecError):
            return {}
    total = sum(abs(value) for value in told.values())
    return {name: abs(value) / total for name, value in told.items()} if total else {}


def get_reference(home: Home, training_set: str) -> Reference | None:
    """What is stored for this training set, if anything."""
    query = sa.select(monitor_references.c.data).where(monitor_references.c.training_set == training_set)
    with home.database.read() as connection:
        data = connection.scalar(query)
    return None if data is None else unpack(data, Reference)


def put_reference(home: Home, reference: Reference) -> Reference:
    """Store a reference; the one that is there already stays, because profiles were counted into its bins."""
    row = {"training_set": reference.training_set, "data": pack(reference), "creation_time": home.clock.now() // 1000}
    with home.database.begin() as connection:
        connection.execute(insert(connection, monitor_references).values(row).on_conflict_do_nothing())
    return get_reference(home, reference.training_set) or reference
