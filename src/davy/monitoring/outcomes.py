"""Outcomes joined to their predictions: late, repeated, corrected, or there before the prediction is.

All that came is kept in the log; nothing is joined when it arrives. Which outcome a prediction has is asked each time anew: the
one with the latest time, of several the one that arrived last. So an outcome for a prediction that nobody has heard of yet waits,
and a correction counts from the moment that it is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from davy.core.time import EPOCH, MICROSECOND
from davy.errors import NotFound
from davy.events.frames import INGEST, OFFSET
from davy.events.outcomes import ENTITY, PREDICTION
from davy.registry.models import list_versions
from davy.serving.prediction_frames import to_frame
from davy.serving.predictions import feature_set_of, pending_predictions, table_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from davy.home import Home
    from davy.store.tables import Table

DAY = 86_400_000_000
_PREDICTION = ("prediction", "time", "logged_time", "version", "arm", "pinned", "routing_key", "output", "output_json", "kernel", "latency_us")
_ADDED: dict[str, Any] = {"share": 1.0, "status": "ok", "release": "", "answered": ""}
_EMPTY = {"id": pl.String, "known": pl.Int64, "offset": pl.Int64, "arrived": pl.Int64}


class OutcomeCounts(msgspec.Struct, frozen=True):
    """What came in for a model.

    Attributes:
        outcomes: events; repeated ones (the same id) never enter the log.
        predictions: those that have an outcome.
        corrected: of these, how many got another value later.
        before: how many have an outcome that is older than the prediction.
        unknown: outcomes for predictions that are not in the log (yet).
    """

    outcomes: int = 0
    predictions: int = 0
    corrected: int = 0
    before: int = 0
    unknown: int = 0


def labelled(home: Home, model: str, *, matures_after: int = 0, start: int | None = None, end: int | None = None,
             version: int | None = None) -> pl.DataFrame:
    """Predictions with what turned out to be true, in order of time.

    Args:
        matures_after: microseconds; how far back from its time an outcome that names an entity may find its prediction (0: any).
        start, end: microseconds; predictions with start <= time < end.

    Returns:
        prediction, time (microseconds), version, arm, pinned, share, status, release, answered, routing_key, output, output_json, latency_us;
        value (null: not known yet), known (when it turned out), arrived (when we heard of it), times (how many outcomes came for
        it) and values (how many different ones).
    """
    reach = None if end is None or not matures_after else end + matures_after
    predictions = read_served(home, model, start=start, end=reach, version=None)
    if not predictions.height:
        return predictions
    # No outcome arrives before its prediction is made; a day allows for clocks that disagree.
    events = read_outcomes(home, model, since=None if start is None else start - DAY)
    best = _best(named_outcomes(predictions, matures_after, events))
    asked = predictions.filter(pl.col("time") < end) if end is not None else predictions
    if version is not None:
        asked = asked.filter(pl.col("version") == version)
    return asked.drop("entities", strict=False).join(best, left_on="origin", right_on="id", how="left", maintain_order="left").drop("origin")


def count_outcomes(home: Home, model: str, *, matures_after: int = 0) -> OutcomeCounts:
    """What came in for a model, over all time."""
    events = read_outcomes(home, model)
    total = 0 if events is None else events.height
    predictions = read_served(home, model)
    if events is None or not predictions.height:
        return OutcomeCounts(outcomes=total, unknown=total)
    named = named_outcomes(predictions, matures_after, events)
    known = named.join(predictions.select("prediction"), left_on="id", right_on="prediction", how="semi")
    own = predictions.filter(pl.col("answered") == "").join(_best(known), left_on="prediction", right_on="id", how="inner")
    return OutcomeCounts(total, own.height, own.filter(pl.col("values") > 1).height, own.filter(pl.col("known") < pl.col("time")).height,
                         total - known.height)


def read_served(home: Home, model: str, *, start: int | None = None, end: int | None = None, version: int | None = None,
                pending: bool = False) -> pl.DataFrame:
    """The predictions of a model that have reached its tables, without their vectors; `origin` is the prediction that the caller knows.

    Args:
        pending: also those that have not reached a table yet.
    """
    waiting = _waiting(home, model, start, end, version) if pending else None  # first, so that what is moved meanwhile is seen twice, not never
    with home.database.read() as connection:
        feature_sets = dict.fromkeys(found.feature_set for found in list_versions(connection, model) if found.feature_set is not None)
    parts = [_served(home.table(table_name(model, digest)), start, end, version) for digest in feature_sets]
    found = [part for part in (*parts, waiting) if part is not None and part.height]
    if not found:
        return pl.DataFrame(schema={**dict.fromkeys(("prediction", "arm", "output_json"), pl.String), "time": pl.Int64, "value": pl.Float64})
    whole = pl.concat(found, how="diagonal_relaxed")
    return (whole.unique("prediction") if pending else whole).sort("time", "prediction")


def _waiting(home: Home, model: str, start: int | None, end: int | None, version: int | None) -> pl.DataFrame | None:
    """Predictions that are in the gateways' write-ahead logs alone."""
    records = [record for record in pending_predictions(home) if record.model == model and (start is None or record.time >= start)
               and (end is None or record.time < end) and version in (None, record.version)]
    parts = []
    for digest in dict.fromkeys(record.feature_set for record in records):
        try:
            features = feature_set_of(home, digest, verified=False)
        except NotFound:
            continue
        parts.append(_plain(to_frame([record for record in records if record.feature_set == digest], features).lazy()).collect())
    return pl.concat(parts, how="diagonal_relaxed") if parts else None


def _served(table: Table, start: int | None, end: int | None, version: int | None) -> pl.DataFrame | None:
    if not table.exists():
        return None
    lazy = table.scan()
    if start is not None:
        lazy = lazy.filter(pl.col("time") >= EPOCH + start * MICROSECOND)
    if end is not None:
        lazy = lazy.filter(pl.col("time") < EPOCH + end * MICROSECOND)
    if version is not None:
        lazy = lazy.filter(pl.col("version") == version)
    return table.collect(_plain(lazy))


def _plain(lazy: pl.LazyFrame) -> pl.LazyFrame:
    names = lazy.collect_schema().names()
    added = [(pl.col(name).fill_null(value) if name in names else pl.lit(value)).alias(name) for name, value in _ADDED.items()]
    entities = ["entities"] if "entities" in names else []
    origin = pl.when(pl.col("answered") != "").then("answered").otherwise("prediction").alias("origin")
    times = (pl.col("time").dt.epoch("us"), pl.col("logged_time").dt.epoch("us").alias("logged"))
    return lazy.select(*_PREDICTION, *entities, *added).with_columns(*times, origin).drop("logged_time")


def read_outcomes(home: Home, model: str, *, since: int | None = None) -> pl.DataFrame | None:
    """The outcomes of a model that have reached their table: prediction, entity (JSON), value, known, arrived (microseconds), offset.

    Args:
        since: only what arrived from this moment on (microseconds).
    """
    table = home.table(f"outcomes/{model}")
    if not table.exists():
        return None
    lazy = table.scan()
    if since is not None:
        lazy = lazy.filter(pl.col(INGEST) >= EPOCH + since * MICROSECOND)
    return outcome_columns(table.collect(lazy))


def outcome_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows of an outcome table under the names used here."""
    own = (OFFSET, INGEST, "time", "id", PREDICTION, ENTITY)
    value = next(name for name in frame.columns if name not in own)
    plain = pl.col(value).cast(pl.Float64) if frame.schema[value].is_decimal() else pl.col(value)
    entity = pl.col(ENTITY) if ENTITY in frame.columns else pl.lit(None, pl.String).alias(ENTITY)
    return frame.select(PREDICTION, entity, plain.alias("value"), pl.col("time").dt.epoch("us").alias("known"),
                        pl.col(INGEST).dt.epoch("us").alias("arrived"), pl.col(OFFSET).alias("offset"))


def named_outcomes(predictions: pl.DataFrame, matures_after: int, found: pl.DataFrame | None) -> pl.DataFrame:
    """Every outcome with the id of its prediction: its own, or that of its entity's last prediction."""
    if found is None:
        return pl.DataFrame(schema={**_EMPTY, "value": pl.Float64})
    direct = found.filter(pl.col(PREDICTION).is_not_null()).rename({PREDICTION: "id"}).drop(ENTITY)
    by_entity = found.filter(pl.col(PREDICTION).is_null() & pl.col(ENTITY).is_not_null())
    if not by_entity.height or "entities" not in predictions.columns:
        return direct
    return pl.concat([direct, _by_entity(by_entity, predictions, matures_after).select(direct.columns)])


def _by_entity(found: pl.DataFrame, predictions: pl.DataFrame, matures_after: int) -> pl.DataFrame:
    asked = predictions.filter(pl.col("answered") == "")
    keys = asked["entities"].struct.unnest()
    schema = dict(keys.schema)
    told = pl.DataFrame([_decoded(text, schema) for text in found[ENTITY].to_list()], schema=schema)
    left = pl.concat([found.drop(PREDICTION, ENTITY), told], how="horizontal").drop_nulls(list(schema)).sort("known")
    right = pl.concat([asked.select(pl.col("prediction").alias("id"), "time"), keys], how="horizontal").sort("time")
    joined = left.join_asof(right, left_on="known", right_on="time", by=list(schema), strategy="backward", check_sortedness=False)
    near = joined.filter(pl.col("id").is_not_null())
    return near.filter(pl.col("known") - pl.col("time") <= matures_after) if matures_after else near


def _decoded(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The entity keys of an outcome; one that lacks a key, or has it of another type, matches nothing."""
    given = msgspec.json.decode(text)
    kinds: Sequence[tuple[str, type]] = [(name, int if kind.is_integer() else str) for name, kind in schema.items()]
    return {name: given[name] if isinstance(given.get(name), kind) else None for name, kind in kinds}


def _best(named: pl.DataFrame) -> pl.DataFrame:
    """Per prediction the outcome that holds: the last by time, and of those the last that arrived."""
    last = [pl.col(name).last() for name in ("value", "known", "arrived")]
    return named.sort("known", "offset").group_by("id").agg(*last, pl.len().alias("times"), pl.col("value").n_unique().alias("values"))
