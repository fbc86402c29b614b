"""Features as of now: events are applied to tiles as they arrive, and a vector is read in one snapshot.

Tables of the store: `marks` (per stream, how far it is applied), `views` (the definitions kept up to date),
`state/<view digest>` (one value per entity), `ids/<stream>` (the offset of each event identity).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import msgspec

from davy.core.time import format_time
from davy.errors import InvalidInput, Unavailable, nearest
from davy.features.definition import EventBatch, FeatureSet, Mark, StreamSpec, ViewSpec
from davy.features.keys import encode_id, encode_key
from davy.features.tiles import Layout, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from davy.core.clock import Clock
    from davy.engines.online.base import OnlineStore, Snapshot, Transaction

_MARK = struct.Struct("<qqq")
_OFFSET = struct.Struct("<q")
_PAIR = msgspec.json.Decoder(tuple[StreamSpec, ViewSpec])


class Vector(msgspec.Struct, array_like=True):
    """Features as they were known at `time`, from the log up to `watermarks` (per stream the last offset applied).

    `values` follow the outputs of the feature set; null is None.
    """

    time: int
    watermarks: dict[str, int]
    values: list[Any]


def read_mark(snapshot: Snapshot, stream: str) -> Mark:
    """How far a stream is applied in this snapshot."""
    raw = snapshot.get("marks", stream.encode())
    return Mark() if raw is None else Mark(*_MARK.unpack(raw))


def table_of(view: ViewSpec) -> str:
    """The store's table with the view's state: one per version of the definition."""
    return f"state/{view.digest.removeprefix('sha256:')[:32]}"


class OnlineFeatures:
    """The online state of a home. One process at a time applies events; any may read.

    Args:
        store: where the state lives.
    """

    def __init__(self, store: OnlineStore) -> None:
        self.store = store
        self._layouts: dict[str, list[Layout]] | None = None

    def mark(self, stream: str) -> Mark:
        """How far this stream is applied."""
        with self.store.snapshot() as snapshot:
            return read_mark(snapshot, stream)

    def views(self) -> list[tuple[StreamSpec, ViewSpec]]:
        """The views that are kept up to date, with the streams as they were declared for them."""
        with self.store.snapshot() as snapshot:
            index = snapshot.get("views", b"index") or b"[]"
            found = [snapshot.get("views", digest.encode()) for digest in msgspec.json.decode(index)]
        return [_PAIR.decode(raw) for raw in found if raw is not None]

    def apply(self, batch: EventBatch) -> None:
        """Apply events to all views of their stream in one transaction. Offsets that are applied already are skipped.

        Raises:
            Unavailable: an event before this batch has not been applied.
        """
        if not len(batch):
            return
        with self.store.transaction() as transaction:
            mark = read_mark(transaction, batch.stream)
            skip = max(0, mark.offset + 1 - batch.first_offset)
            if skip >= len(batch):
                return
            if batch.first_offset > mark.offset + 1:
                raise Unavailable(
                    f"Events {mark.offset + 1} to {batch.first_offset - 1} of {batch.stream!r} are not applied yet.",
                    "Events are applied in the order of their offsets.",
                    "Open the log again: it applies what is missing.",
                )
            for layout in self._active(batch.stream):
                _apply_view(transaction, layout, batch, skip)
            for position in range(skip, len(batch)) if batch.ids is not None else ():
                identity = batch.ids[position]  # type: ignore[index]
                if identity is not None:  # an event from before the stream had an id
                    transaction.put(f"ids/{batch.stream}", encode_id(identity), _OFFSET.pack(batch.first_offset + position))
            new = Mark(
                batch.last_offset,
                max(mark.ingest_time, batch.ingest[-1]),
                max(mark.event_time, *batch.times[skip:]) if len(batch) - skip > 1 else max(mark.event_time, batch.times[-1]),
            )
            transaction.put("marks", batch.stream.encode(), _MARK.pack(new.offset, new.ingest_time, new.event_time))

    def begin(self, stream: StreamSpec, view: ViewSpec) -> Building | None:
        """Begin to build the state of a view; None when it is kept already. The log may go on meanwhile, until `adopt`."""
        with self.store.snapshot() as snapshot:
            return None if snapshot.get("views", view.digest.encode()) is not None else Building(stream, view)

    def adopt(self, building: Building) -> None:
        """Keep a view up to date from now on; its past stands in `building`.

        Raises:
            Unavailable: the building has not come to where the stream is applied.
        """
        view, stream = building.layout.view, building.layout.stream
        with self.store.transaction() as transaction:
            if transaction.get("views", view.digest.encode()) is not None:
                return
            mark = read_mark(transaction, stream.name)
            if building.offset != mark.offset:
                raise Unavailable(
                    f"The view {view.name!r} is built up to event {building.offset} of {stream.name!r}, and {mark.offset} are applied.",
                    "",
                    "Advance it first.",
                )
            table = table_of(view)
            transaction.drop(table)
            for key in sorted(building.states):
                transaction.put(table, key, building.layout.encode(building.states[key]))
            index = [*msgspec.json.decode(transaction.get("views", b"index") or b"[]"), view.digest]
            transaction.put("views", b"index", msgspec.json.encode(index))
            transaction.put("views", view.digest.encode(), msgspec.json.encode((stream, view)))
        self._layouts = None

    def ensure(self, stream: StreamSpec, view: ViewSpec, events: Iterable[EventBatch]) -> None:
        """`begin`, read all `events` of the stream up to the mark, and `adopt`: for a log that stands still."""
        building = self.begin(stream, view)
        if building is not None:
            building.advance(events, self.mark(stream.name).offset)
            self.adopt(building)

    def forget(self, stream: str) -> None:
        """Keep no view of this stream up to date any more."""
        gone = [view for spec, view in self.views() if spec.name == stream]
        if not gone:
            return
        with self.store.transaction() as transaction:
            index = msgspec.json.decode(transaction.get("views", b"index") or b"[]")
            digests = {view.digest for view in gone}
            transaction.put("views", b"index", msgspec.json.encode([digest for digest in index if digest not in digests]))
            for view in gone:
                transaction.delete("views", view.digest.encode())
                transaction.drop(table_of(view))
        self._layouts = None

    def reset(self) -> None:
        """Forget all state, so that it can be built anew from the log. The list of views stays."""
        with self.store.transaction() as transaction:
            for table in self.store.tables():
                if table != "views":
                    transaction.drop(table)

    def reader(self, feature_set: FeatureSet, clock: Clock) -> OnlineReader:
        """Reads vectors of this feature set."""
        return OnlineReader(self, feature_set, clock)

    def _active(self, stream: str) -> list[Layout]:
        if self._layouts is None:
            self._layouts = {}
            for spec, view in self.views():
                self._layouts.setdefault(spec.name, []).append(Layout(view, spec))
        return self._layouts.get(stream, [])


def _apply_view(transaction: Transaction, layout: Layout, batch: EventBatch, skip: int) -> None:
    table = table_of(layout.view)
    for key, positions in _by_entity(layout, batch, skip, len(batch)).items():
        state = layout.decode(transaction.get(table, key))
        _enter(layout, state, batch, positions)
        transaction.put(table, key, layout.encode(state))


def _column(batch: EventBatch, name: str) -> list[Any]:
    """A field's values; all null in a batch from before the field was declared."""
    return batch.columns.get(name) or [None] * len(batch)


def _by_entity(layout: Layout, batch: EventBatch, start: int, end: int) -> dict[bytes, list[int]]:
    """The positions of each entity's events, by encoded key. Events without an entity are about none."""
    columns = [_column(batch, name) for name in layout.view.entity]
    groups: dict[Any, list[int]] = {}
    named = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
    for position in range(start, end):
        groups.setdefault(named[position], []).append(position)
    keyed = ((encode_key((name,) if len(columns) == 1 else name), positions) for name, positions in groups.items())
    return {key: positions for key, positions in keyed if key is not None}


def _enter(layout: Layout, state: State, batch: EventBatch, positions: list[int]) -> None:
    columns = [_column(batch, name) for name in layout.fields]
    first, ingest, times = batch.first_offset, batch.ingest, batch.times
    for at in positions:
        layout.enter(state, first + at, ingest[at], times[at], [column[at] for column in columns])


class Building:
    """The state of a view while it is built from the past, in memory.

    Attributes:
        offset: the last event entered.
        states: per encoded entity key.
    """

    def __init__(self, stream: StreamSpec, view: ViewSpec) -> None:
        self.layout = Layout(view, stream)
        self.offset = 0
        self.states: dict[bytes, State] = {}

    def advance(self, events: Iterable[EventBatch], until: int) -> None:
        """Enter the next events, up to the offset `until`. Those that are entered already are skipped; a gap ends it."""
        for batch in events:
            start = self.offset + 1 - batch.first_offset
            end = min(len(batch), until + 1 - batch.first_offset)
            if start < 0 or end <= start:
                if start < 0 or batch.first_offset > until:
                    return
                continue
            for key, positions in _by_entity(self.layout, batch, start, end).items():
                state = self.states.get(key)
                if state is None:
                    state = self.states[key] = self.layout.decode(None)
                _enter(self.layout, state, batch, positions)
            self.offset = batch.first_offset + end - 1


class OnlineReader:
    """Reads one feature set's vectors from the online state: features of views, derived features, request fields, entity keys."""

    def __init__(self, features: OnlineFeatures, feature_set: FeatureSet, clock: Clock) -> None:
        from davy.features.expression import compile_kernel

        self.feature_set = feature_set
        self._store = features.store
        self._clock = clock
        self._entities = {field.name: field for field in feature_set.entities}
        self._request = {field.name: field for field in feature_set.request}
        self._views = [
            (Layout(view, feature_set.stream(view.stream)), table_of(view), [self._entities[name] for name in view.entity]) for view in feature_set.views
        ]
        self._streams = [(name, name.encode()) for name in dict.fromkeys(view.stream for view in feature_set.views)]
        self._names = [*(feature.name for view in feature_set.views for feature in view.features), *self._entities, *self._request]
        self._derive = compile_kernel(feature_set.derived, self._names) if feature_set.derived else None
        available = [*self._names, *(spec.name for spec in feature_set.derived)]
        self._picks = [available.index(name) for name in feature_set.outputs]
        self._missing = [view.name for view in feature_set.views if view.digest not in {kept.digest for _, kept in features.views()}]

    def read(self, entities: Mapping[str, Any], request: Mapping[str, Any] | None = None, *, at: int | None = None) -> Vector:
        """One vector: everything is read in one snapshot, together with the watermarks.

        Args:
            entities: a value for each entity key; one that no event has named gives empty windows.
            request: a value for each request field.
            at: microseconds; the latest of the clock and what is applied when absent.

        Raises:
            InvalidInput: a missing, unknown or mistyped key or field, or a time before what has been applied.
            Unavailable: the state of a view is not built yet.
        """
        keyed = checked("entity key", self._entities, entities)
        fields = checked("request field", self._request, request or {})
        return self.read_encoded(keyed, fields, at=at)

    def read_encoded(self, keyed: Mapping[str, Any], fields: Mapping[str, Any], *, at: int | None = None) -> Vector:
        """`read` for values in stored form (see core/fields.py), every key and field present: the gateway's path."""
        if self._missing:
            raise Unavailable(
                f"The online state of {', '.join(self._missing)} is not built yet.",
                "A view is built when a model that uses it is trained or served.",
                "Run: davy up",
            )
        with self._store.snapshot() as snapshot:
            get = snapshot.get
            t, watermarks = self._clock.now() if at is None else at, {}
            for name, stream_key in self._streams:
                raw = get("marks", stream_key)
                offset, ingest, event = (0, 0, 0) if raw is None else _MARK.unpack(raw)
                watermarks[name] = offset
                known = ingest + 1 if ingest > event else event + 1
                if offset and t < known:
                    if at is not None:
                        raise InvalidInput(
                            f"Online features were asked as of {format_time(at)}, but events up to {format_time(known - 1)} are applied.",
                            "Online state answers for now; the past is answered from the log.",
                            "Use davy.training_set for the past.",
                        )
                    t = known
            states = [get(table, key) if (key := encode_key([keyed[field.name] for field in entity])) else None for _, table, entity in self._views]
        values: list[Any] = []
        for (layout, _, _), held in zip(self._views, states, strict=True):
            values += layout.read(held, t)
        values += [field.decode(keyed[name]) for name, field in self._entities.items()]
        values += [field.decode(fields[name]) for name, field in self._request.items()]
        if self._derive is not None:
            values += self._derive(values)
        return Vector(t, watermarks, [values[pick] for pick in self._picks])


def checked(what: str, declared: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The stored form of every declared field.

    Raises:
        InvalidInput: one is missing, mistyped or not declared.
    """
    unknown = given.keys() - declared.keys()
    if unknown:
        name = sorted(unknown)[0]
        raise InvalidInput(f"{name!r} is not a declared {what}.", nearest(name, declared), "Rename or remove it.")
    encoded = {}
    for name, field in declared.items():
        if name not in given:
            raise InvalidInput(
                f"The {what} {name!r} is missing.", f"Declared: {', '.join(declared)}.", f"Send {name!r} ({field.kind}), or null where there is none."
            )
        encoded[name] = field.encode(given[name])
    return encoded
