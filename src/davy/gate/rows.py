"""Rows with known outcomes and logged requests, as the matrices that each version is asked with."""

from __future__ import annotations

import io
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from davy.core.fields import Field
from davy.engines.offline.local import LocalEngine
from davy.errors import DavyError, NotEnoughData, NotFound
from davy.features.columns import encode_times
from davy.features.training_set import TIME, compute_vectors, frame_digest, training_set
from davy.registry.mlmodel import EXAMPLE, example_rows
from davy.registry.models import list_versions
from davy.serving.predictions import pending_predictions, table_name
from davy.tracking.artifacts import read_artifact
from davy.training import record
from davy.training.spine import build, make_spine

if TYPE_CHECKING:
    from davy.features.definition import FeatureSet
    from davy.gate.candidate import Candidate
    from davy.home import Home
    from davy.registry.models import ModelVersion

_LABEL = "label"
_TYPED: dict[str, Any] = {"bool": bool, "int": int, "float": float, "decimal": float, "str": str, "time": int}
_JSON: dict[str, Any] = {"float": pl.Float64, "decimal": pl.Float64, "str": pl.String}
HOUR = 3_600_000_000


class Rows:
    """Rows whose outcome is known, each version's vectors for them, and its answers.

    Attributes:
        origin: the version whose training kept them.
        frame: the spine's columns, the features of `origin`, and the label.
        digest: over all rows and columns.
        feature_set: of `origin`.
    """

    def __init__(self, candidate: Candidate, origin: ModelVersion, frame: pl.DataFrame, described: record.DataRecord) -> None:
        self._candidate, self._record = candidate, described
        self.origin, self.frame, self.digest = origin, frame, described.digest
        self.feature_set = candidate.feature_set(origin)
        self._vectors: dict[str, pl.DataFrame] = {}
        self._answers: dict[int, np.ndarray | list[Any]] = {}

    def __len__(self) -> int:
        return self.frame.height

    @cached_property
    def y(self) -> np.ndarray:
        """The labels, shape (rows,): int64 for bools and ints, float64 for floats, objects for texts."""
        label = self.frame[_LABEL]
        return (label.cast(pl.Int64) if label.dtype == pl.Boolean else label).to_numpy()

    @cached_property
    def blocks(self) -> np.ndarray:
        """The hour of each row since 1970, int64: rows of one hour may hang together."""
        return encode_times(self.frame[TIME], Field(TIME, "time")).to_numpy() // HOUR

    def features(self, version: ModelVersion) -> pl.DataFrame:
        """The vectors that this version is asked with, typed: as they were kept, or for another feature set rebuilt from the same spine and log."""
        digest = str(version.feature_set)
        if digest not in self._vectors:
            wanted = self._candidate.feature_set(version)
            self._vectors[digest] = vectors_in(self.frame, wanted) if wanted.digest == self.feature_set.digest else self._rebuilt(wanted)
        return self._vectors[digest]

    def matrix(self, version: ModelVersion) -> np.ndarray:
        """The same as the model's floats, shape (rows, columns)."""
        return encoded(version, self.features(version))

    def predict(self, version: ModelVersion) -> np.ndarray | list[Any]:
        """The version's answers for all rows, from its own worker; asked once."""
        if version.version not in self._answers:
            self._answers[version.version] = self._candidate.stand.predict(version.version, self.matrix(version))
        return self._answers[version.version]

    def _rebuilt(self, wanted: FeatureSet) -> pl.DataFrame:
        spine = self.frame.select(self._record.spine_columns)
        try:
            made = training_set(LocalEngine(self._candidate.home), wanted, spine, as_known=self._record.as_known, watermarks=self._record.watermarks)
        except DavyError as error:
            raise NotEnoughData(f"The held-out rows can't be rebuilt with the features {wanted.digest[7:19]}: {error.came}") from error
        return made.features


def held_out(candidate: Candidate) -> Rows:
    """Rows that the candidate has not learned from: those held out when it was trained, else when stable was.

    Raises:
        NotEnoughData: neither has any.
    """
    if candidate.version.origin is not None:
        raise NotEnoughData("It was logged with MLflow, so that nobody knows which rows it has not learned from.", "",
                            f"To have it judged by its answers, train it with Davy: davy train {candidate.model} --test-start TIME")
    own = _kept(candidate, candidate.version, test=True)
    if own is not None:
        return own
    stable = candidate.stable
    if stable is not None and (rows := _kept(candidate, stable, test=True)) is not None:
        learned, tested = record_of(candidate.home, candidate.version), record_of(candidate.home, stable)
        if learned.data.end is not None and tested.test_start is not None and learned.data.end <= tested.test_start:
            return rows
    raise NotEnoughData("No rows were held out when it was trained.", "", f"Train it with --test-start or --test-end: davy train {candidate.model}")


def training_rows(candidate: Candidate) -> Rows:
    """The rows that the candidate has learned from.

    Raises:
        NotEnoughData: they are not kept and can't be rebuilt.
    """
    found = _kept(candidate, candidate.version, test=False)
    if found is None:
        raise NotEnoughData("The rows that it was trained on are not kept, and can't be rebuilt with the same digest.")
    return found


def record_of(home: Home, version: ModelVersion) -> record.TrainingRecord:
    """What the version's training has recorded.

    Raises:
        NotEnoughData: it was registered without a training of Davy's.
    """
    content = _artifact(home, version, record.ARTIFACT)
    if content is None:
        raise NotEnoughData(f"{version.reference} was registered without the record of a training.", "", f"Train it with Davy: davy train {version.name}")
    return record.TrainingRecord.from_json(content)


def _kept(candidate: Candidate, version: ModelVersion, *, test: bool) -> Rows | None:
    """The frozen rows, verified column by column; where they were too large to be kept, built again and taken if their digest is the same."""
    try:
        found = record_of(candidate.home, version)
    except NotEnoughData:
        return None
    described = found.test if test else found.data
    if described is None:
        return None
    content = _artifact(candidate.home, version, record.TEST_ROWS if test else record.ROWS)
    if content is not None:
        frame = pl.read_parquet(io.BytesIO(content))
        if {name: frame_digest(frame.select(name)) for name in frame.columns} == described.columns:
            return Rows(candidate, version, frame, described)
    try:
        definition = candidate.project.model(version.name)
        spine = make_spine(definition, candidate.home.root, start=described.start, end=described.end)
        again = build(candidate.home, definition, spine, as_known=described.as_known, watermarks=described.watermarks)
    except DavyError:
        return None
    return Rows(candidate, version, again.frame, described) if again.digest == described.digest else None


def _artifact(home: Home, version: ModelVersion, path: str) -> bytes | None:
    if version.run_id is None:
        return None
    try:
        with home.database.read() as connection:
            return read_artifact(connection, home.blobs, version.run_id, path)
    except NotFound:
        return None


class Logged:
    """The last requests that were really asked.

    Attributes:
        frames: per feature set's digest the logged predictions, in order of time, with the columns of `read_predictions`.
    """

    def __init__(self, candidate: Candidate, frames: dict[str, pl.DataFrame]) -> None:
        self._candidate = candidate
        self.frames = frames

    def __len__(self) -> int:
        return sum(frame.height for frame in self.frames.values())

    def matrix(self, version: ModelVersion) -> np.ndarray:
        """The rows as this version is asked with them: vectors of its own feature set as they were logged, others computed as of the request."""
        wanted = self._candidate.feature_set(version)
        parts = []
        for digest, frame in self.frames.items():
            vectors = frame["features"].struct.unnest().select(wanted.outputs) if digest == wanted.digest else self._computed(wanted, frame)
            parts.append(encoded(version, vectors))
        return np.concatenate(parts)

    def _computed(self, wanted: FeatureSet, frame: pl.DataFrame) -> pl.DataFrame:
        given = pl.concat([frame[name].struct.unnest() for name in ("entities", "request") if name in frame.columns], how="horizontal")
        missing = [field.name for field in (*wanted.entities, *wanted.request) if field.name not in given.columns]
        if missing:
            raise NotEnoughData(f"Logged requests lack {', '.join(missing)}, which this version needs.")
        engine, times = LocalEngine(self._candidate.home), frame["time"].dt.epoch("us").to_numpy()
        marks = frame["watermarks"].struct.unnest() if "watermarks" in frame.columns else pl.DataFrame()
        watermarks = {stream.name: marks[stream.name].fill_null(0).to_numpy() if stream.name in marks.columns else engine.known_at(stream, times)
                      for stream in wanted.streams}
        return compute_vectors(engine, wanted, given, times, watermarks)


def logged_times(home: Home, model: str) -> np.ndarray:
    """When each logged request of the model was asked, int64 microseconds, in no order; reads that one column alone."""
    with home.database.read() as connection:
        digests = {version.feature_set for version in list_versions(connection, model) if version.feature_set is not None}
    found = [np.array([record.time for record in pending_predictions(home) if record.model == model], dtype=np.int64)]
    for digest in sorted(digests):
        table = home.table(table_name(model, digest))
        if table.exists():
            found.append(table.collect(table.scan().select("time"))["time"].dt.epoch("us").to_numpy())
    return np.concatenate(found)


def vectors_in(frame: pl.DataFrame, feature_set: FeatureSet) -> pl.DataFrame:
    """The feature columns of a training set's frame, under their own names."""
    return frame.select(pl.col(f"feature.{name}").alias(name) if f"feature.{name}" in frame.columns else pl.col(name) for name in feature_set.outputs)


def encoded(version: ModelVersion, vectors: pl.DataFrame) -> np.ndarray:
    """Typed vectors as the version's model is asked with them, through the same code as a live request; shape (rows, columns), float64, or objects
    where it takes texts.
    """
    assert version.signature is not None
    times = [name for name, kind in vectors.schema.items() if kind == pl.Datetime]
    plain = vectors.with_columns(pl.col(times).dt.epoch("us")) if times else vectors
    found = np.array(version.signature.encode_many(plain.rows()), dtype=object if version.signature.texts else np.float64)
    return found.reshape(len(vectors), len(version.signature.columns))


def stand_in(home: Home, version: ModelVersion, feature_set: FeatureSet) -> pl.DataFrame:
    """Vectors to ask a version with of which no rows are known: nulls.

    One that MLflow has logged need not take nulls: the example that was logged beside it, or zeros and empty texts.
    """
    if version.origin is None:
        return pl.DataFrame({name: [None] for name in feature_set.outputs})
    kinds = dict(zip(feature_set.outputs, feature_set.kinds, strict=True))
    logged = home.blobs.get(version.files[EXAMPLE]) if EXAMPLE in version.files else b""
    rows = example_rows(logged, kinds) or [["" if kind == "str" else 0 for kind in kinds.values()]]
    columns = dict(zip(kinds, zip(*rows, strict=True), strict=True))
    return pl.DataFrame([pl.Series(name, [None if value is None else _TYPED[kinds[name]](value) for value in values]) for name, values in columns.items()])


def bodies(frame: pl.DataFrame, feature_set: FeatureSet, count: int) -> list[dict[str, Any]]:
    """Requests with the entity keys and request fields of up to `count` rows, spread evenly, as JSON has them."""
    fields = (*feature_set.entities, *feature_set.request)
    columns = []
    picked = frame[np.linspace(0, frame.height - 1, min(count, frame.height)).astype(int).tolist()]
    for field in fields:
        series = picked[field.name]
        plain = series.cast(_JSON[field.kind]) if field.kind in _JSON else series
        columns.append(encode_times(series, field) if field.kind == "time" else plain)
    return pl.DataFrame([series.alias(field.name) for field, series in zip(fields, columns, strict=True)]).to_dicts()
