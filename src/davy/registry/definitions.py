"""Feature sets, views and training sets by digest: what a version was trained on, kept so that nobody needs the user's code again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from davy.core.digest import canonical_json
from davy.errors import CorruptData, InvalidInput, NotFound
from davy.features.definition import FeatureSet, ViewSpec
from davy.schema.tables import feature_sets, training_sets, views
from davy.store.database import insert

if TYPE_CHECKING:
    from davy.core.clock import Clock


class TrainingSetRecord(msgspec.Struct, frozen=True):
    """A training set that was built: its digest over all rows and columns, and what is needed to build it again.

    Attributes:
        details: JSON-able: watermarks, spine digest, as_known, columns, …
        created: microseconds.
    """

    digest: str
    feature_set: str
    rows: int
    details: dict[str, Any]
    created: int = 0


def put_feature_set(connection: sa.Connection, feature_set: FeatureSet, *, clock: Clock) -> str:
    """Keep a feature set and its views; returns its digest. One that is there already stays as it is."""
    if not feature_set.digest or feature_set.sealed().digest != feature_set.digest:
        raise InvalidInput(f"The feature set with the digest {feature_set.digest!r} is not sealed.", "Its digest must be that of its content.",
                           "Pass feature_set.sealed().")
    now = clock.now() // 1000
    for view in feature_set.views:
        row = {"digest": view.digest, "name": view.name, "json": canonical_json(view).decode(), "creation_time": now}
        connection.execute(insert(connection, views).values(row).on_conflict_do_nothing())
    row = {"digest": feature_set.digest, "json": canonical_json(feature_set).decode(), "creation_time": now}
    connection.execute(insert(connection, feature_sets).values(row).on_conflict_do_nothing())
    return feature_set.digest


def get_feature_set(connection: sa.Connection, digest: str, *, verified: bool = True) -> FeatureSet:
    """The feature set of that digest, verified unless told otherwise.

    Raises:
        NotFound: none was kept.
        CorruptData: what is stored is not what was kept, or can't be read at all.
    """
    text = connection.scalar(sa.select(feature_sets.c.json).where(feature_sets.c.digest == digest))
    if text is None:
        raise NotFound(f"There is no feature set {digest}.", "Feature sets are kept when a version is registered.", "Check the digest.")
    try:
        found = msgspec.json.decode(text, type=FeatureSet)
    except msgspec.MsgspecError as error:
        raise _damaged(digest) from error
    if verified and (found.digest != digest or found.sealed().digest != digest):
        raise _damaged(digest)
    return found


def get_views(connection: sa.Connection, name: str | None = None) -> list[ViewSpec]:
    """All versions of all views, or of the one of that name, the newest first."""
    query = sa.select(views.c.json).order_by(views.c.creation_time.desc(), views.c.digest)
    if name is not None:
        query = query.where(views.c.name == name)
    return [msgspec.json.decode(text, type=ViewSpec) for text in connection.scalars(query)]


def put_training_set(connection: sa.Connection, record: TrainingSetRecord, *, clock: Clock) -> str:
    """Keep the record of a training set, whose feature set is kept already; returns its digest."""
    row = {"digest": record.digest, "feature_set": record.feature_set, "rows": record.rows, "json": canonical_json(record.details).decode(),
           "creation_time": clock.now() // 1000}
    connection.execute(insert(connection, training_sets).values(row).on_conflict_do_nothing())
    return record.digest


def get_training_set(connection: sa.Connection, digest: str) -> TrainingSetRecord:
    """The record of the training set of that digest.

    Raises:
        NotFound: none was kept.
    """
    row = connection.execute(sa.select(training_sets).where(training_sets.c.digest == digest)).first()
    if row is None:
        raise NotFound(f"There is no training set {digest}.", "Training sets are kept when a run has built one.", "Check the digest.")
    return TrainingSetRecord(row.digest, row.feature_set, row.rows, msgspec.json.decode(row.json), row.creation_time * 1000)


def _damaged(digest: str) -> CorruptData:
    return CorruptData(f"The stored feature set {digest} is damaged.", "Its content must have the digest that names it.", "Restore the database from a backup.")
