"""Definitions as plain frozen data: what is stored, digested, sent and compared.

The classes that users write (`Stream`, `View`, `@derive`, `@model`) are turned into these once. Everything
that computes works from these, so that the gateway and a replay never run a user's file.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from davy.core.digest import digest_json
from davy.core.fields import Field, Kind
from davy.errors import NotFound, nearest

Aggregate = Literal["count", "sum", "mean", "std", "min", "max", "last"]


class StreamSpec(msgspec.Struct, frozen=True):
    """An append-only log of facts.

    Attributes:
        time: the name of the event-time column.
        id: the field that makes an event unique, if any.
        ingest: the column of a bulk source that says when each event really arrived, if any.
        delay: microseconds after the event time at which history loaded in bulk counts as arrived.
        tolerance: microseconds an event may lie in the future and still be taken at once.
    """

    name: str
    time: str
    fields: tuple[Field, ...]
    id: str | None = None
    ingest: str | None = None
    delay: int = 0
    tolerance: int = 1_000_000
    source: str | None = None

    def field(self, name: str) -> Field:
        """The field of that name, or `NotFound` with the nearest."""
        for field in self.fields:
            if field.name == name:
                return field
        raise NotFound(f"The stream {self.name!r} has no field {name!r}.", nearest(name, [field.name for field in self.fields]),
                       "Correct the name, or declare the field on the stream.")


class FeatureSpec(msgspec.Struct, frozen=True):
    """One aggregate: over `field` (none for count), over a `window` floored to `hop`, or a `last` with a time to live."""

    name: str
    aggregate: Aggregate
    field: str | None = None
    window: int | None = None
    hop: int = 1
    ttl: int | None = None


class ViewSpec(msgspec.Struct, frozen=True):
    """The features of one entity from one stream."""

    name: str
    stream: str
    entity: tuple[str, ...]
    features: tuple[FeatureSpec, ...]
    digest: str = ""

    def sealed(self, stream: StreamSpec) -> ViewSpec:
        """This view with its digest, which covers the stream's fields that it reads."""
        used = {*self.entity, *(feature.field for feature in self.features if feature.field)}
        fields = sorted((field.name, field.kind, field.scale) for field in stream.fields if field.name in used)
        body = msgspec.to_builtins(msgspec.structs.replace(self, digest=""))
        return msgspec.structs.replace(self, digest=digest_json([body, stream.time, fields]))


class DerivedSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """A row-wise expression over features and request fields; `expression` is JSON (see features/expression.py).

    Attributes:
        program: a udf's Python (see features/udf.py); its expression then lists its inputs, and ends with `udf`.
    """

    name: str
    inputs: tuple[str, ...]
    expression: Any
    kind: Kind
    program: str | None = None


class FeatureSet(msgspec.Struct, frozen=True):
    """Everything that is needed to compute one model's vector: stored with each version that was trained on it.

    Attributes:
        entities: entity keys that a request must name, with their kinds.
        request: further typed fields that a request must carry.
        outputs: the vector's names in order: features of views, derived features, request fields, entity keys.
        kinds: the kind of each output.
    """

    entities: tuple[Field, ...]
    request: tuple[Field, ...]
    streams: tuple[StreamSpec, ...]
    views: tuple[ViewSpec, ...]
    derived: tuple[DerivedSpec, ...]
    outputs: tuple[str, ...]
    kinds: tuple[Kind, ...]
    digest: str = ""

    def sealed(self) -> FeatureSet:
        """This set with its digest. Where a stream's source lies does not change what a feature means, so it is left out."""
        body = msgspec.to_builtins(msgspec.structs.replace(self, streams=(), digest=""))
        return msgspec.structs.replace(self, digest=digest_json([body, [view.digest for view in self.views]]))

    @property
    def has_udfs(self) -> bool:
        """Whether a derived feature is a user's program, which needs a process that may run it."""
        return any(spec.program is not None for spec in self.derived)

    def stream(self, name: str) -> StreamSpec:
        """The stream of that name."""
        return next(stream for stream in self.streams if stream.name == name)


class OutcomeSpec(msgspec.Struct, frozen=True):
    """What turns out to be true later: the value's field, and how long after the prediction it is final."""

    value: Field
    matures_after: int = 0


class ModelSpec(msgspec.Struct, frozen=True):
    """A model as declared: its features and its outcome."""

    name: str
    feature_set: FeatureSet
    outcome: OutcomeSpec


class EventBatch(msgspec.Struct, array_like=True):
    """Events of one stream with consecutive offsets, encoded: what the write-ahead log holds and the online state applies.

    Attributes:
        first_offset: of the first event; the others follow without a gap.
        ingest: microseconds at which each arrived, strictly increasing.
        times: microseconds of each event.
        columns: per field the stored form of each event's value (see core/fields.py).
        ids: per event its identity in the stream, when the stream has one.
    """

    stream: str
    first_offset: int
    ingest: list[int]
    times: list[int]
    columns: dict[str, list[int | str | None]]
    ids: list[str] | None = None

    def __len__(self) -> int:
        return len(self.times)

    @property
    def last_offset(self) -> int:
        """The offset of the last event."""
        return self.first_offset + len(self.times) - 1


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """How far a stream has been applied: its last offset, and the latest ingest and event times among those applied."""

    offset: int = 0
    ingest_time: int = 0
    event_time: int = 0
