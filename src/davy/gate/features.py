"""Features: what serving reads must be what training saw, bit for bit.

Where requests have been logged with the candidate's features, their vectors are replayed. The last rows that it learned from are
computed once more the way serving does: events enter the online tiles one by one, up to what each row had seen, and the gateway's
own reader reads the vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from davy.core.fields import Field
from davy.engines.offline.local import LocalEngine
from davy.engines.online.memory import MemoryStore
from davy.errors import InvalidInput, NotEnoughData
from davy.events.frames import INGEST, OFFSET, TIME, table_name, untyped
from davy.features.columns import encode_column, encode_times
from davy.features.keys import encode_key
from davy.features.online import OnlineFeatures, table_of
from davy.features.replay import unequal
from davy.features.tiles import Layout
from davy.features.training_set import TIME as SPINE_TIME
from davy.gate.check import Check, Finding, failed, no_data, passed
from davy.gate.rows import record_of, vectors_in
from davy.monitoring.skew import replay

if TYPE_CHECKING:
    from davy.features.definition import StreamSpec, ViewSpec
    from davy.gate.candidate import Candidate
    from davy.home import Home

RECOMPUTED = 200
SHOWN = 20


def features(candidate: Candidate) -> Finding:
    evidence: dict[str, Any] = {}
    told, wrong = [], []
    for name, look in (("logged", _logged), ("learned", _learned)):
        try:
            checked, different = look(candidate)
        except NotEnoughData as error:
            evidence[name] = error.came
            continue
        evidence[name] = {"checked": checked, "different": different[:SHOWN], "features": sorted({item["feature"] for item in different})}
        told.append(f"{checked:,} {'logged vectors' if name == 'logged' else 'rows that it learned from'}")
        wrong += different
    if wrong:
        first = wrong[0]
        names = ", ".join(sorted({item["feature"] for item in wrong}))
        return failed(f"{names}: {len(wrong)} values differ from their replay; the first, of {first['what']}, is {first['served']!r}, and computed again "
                      f"{first['recomputed']!r} ({first['cause']}).",
                      fix=f"See what changed: davy replay {candidate.model}. Then train again on the log as it stands.", **evidence)
    if not told:
        return no_data("; ".join(str(value) for value in evidence.values()), **evidence)
    return passed(f"{' and '.join(told)} computed again, all equal bit for bit.", **evidence)


def _logged(candidate: Candidate) -> tuple[int, list[dict[str, Any]]]:
    """The last logged vectors of the candidate's feature set against the log."""
    frame = candidate.logged.frames.get(str(candidate.version.feature_set))
    if frame is None:
        raise NotEnoughData(f"No request has been logged with the features of {candidate.version.reference} yet.")
    found = replay(candidate.home, candidate.model, start=int(frame["time"].dt.epoch("us").min()))  # type: ignore[arg-type]
    ids = set(frame["prediction"])
    return frame.height, [{"what": f"prediction {item.prediction}", "feature": item.feature, "served": item.served, "recomputed": item.recomputed,
                           "cause": item.cause} for item in found.different if item.prediction in ids]


def _learned(candidate: Candidate) -> tuple[int, list[dict[str, Any]]]:
    """The last rows of the training set against the online path."""
    rows, described = candidate.training_rows, record_of(candidate.home, candidate.version).data
    if described.as_known != "ingest":
        raise NotEnoughData("It was trained with hindsight (--as-known event), which serving never has.")
    times = encode_times(rows.frame[SPINE_TIME], Field(SPINE_TIME, "time")).to_numpy()
    last = np.sort(np.argsort(times, kind="stable")[-RECOMPUTED:])
    last = last[np.argsort(times[last], kind="stable")]
    frame = rows.frame[last.tolist()]
    online, asked = _Online(candidate, frame, times[last], described.watermarks).vectors()
    offline = vectors_in(frame, rows.feature_set)[asked]
    offline = offline.with_columns(pl.col(name).dt.epoch("us") for name, kind in offline.schema.items() if kind == pl.Datetime)
    found = []
    for place, name in enumerate(rows.feature_set.outputs):
        again = pl.Series(name, [vector[place] for vector in online], offline.schema[name])
        found += [{"what": f"row {int(last[asked[row]])} of the training set", "feature": name, "served": offline[name][row], "recomputed": again[row],
                   "cause": "serving computes another value than training saw"} for row in np.flatnonzero(unequal(offline[name], again)).tolist()]
    return len(asked), found


class _Online:
    """Online state of the entities of some rows, as it stood for each of them.

    Args:
        frame: the rows, in order of time. watermarks: per stream the last offset that the training set looked at.
    """

    def __init__(self, candidate: Candidate, frame: pl.DataFrame, times: np.ndarray, watermarks: dict[str, int]) -> None:
        self._features, self._times = candidate.feature_set(candidate.version), times
        self._given = {field.name: encode_column(frame[field.name], field).to_list() for field in (*self._features.entities, *self._features.request)}
        self._store = MemoryStore()
        online, engine = OnlineFeatures(self._store), LocalEngine(candidate.home)
        self._views = []
        for view in self._features.views:
            stream = self._features.stream(view.stream)
            online.ensure(stream, view, ())
            seen = np.minimum(engine.known_at(stream, times), watermarks[stream.name])
            keys = [encode_key([self._given[name][row] for name in view.entity]) for row in range(len(times))]
            self._views.append(_ViewState(candidate.home, stream, view, keys, seen, times))
        self._reader = online.reader(self._features, candidate.home.clock)

    def vectors(self) -> tuple[list[list[Any]], list[int]]:
        """The vectors, and which rows they are of: one whose events lie in its own future can't be asked online."""
        found, asked = [], []
        for row, time in enumerate(self._times.tolist()):
            with self._store.transaction() as transaction:
                for state in self._views:
                    for table, key, value in state.upto(row):
                        transaction.put(table, key, value)
            try:
                keyed = {field.name: self._given[field.name][row] for field in self._features.entities}
                fields = {field.name: self._given[field.name][row] for field in self._features.request}
                found.append(self._reader.read_encoded(keyed, fields, at=time).values)
                asked.append(row)
            except InvalidInput:
                continue
        return found, asked


class _ViewState:
    """One view's tiles of the entities that are asked about, grown in the order of the log."""

    def __init__(self, home: Home, stream: StreamSpec, view: ViewSpec, keys: list[bytes | None], seen: np.ndarray, times: np.ndarray) -> None:
        self._layout, self._table, self._keys, self._seen = Layout(view, stream), table_of(view), keys, seen.tolist()
        self._states = {key: self._layout.decode(None) for key in keys if key is not None}
        self._events: dict[bytes, list[tuple[int, int, int, list[Any]]]] = {key: [] for key in self._states}
        self._entered = dict.fromkeys(self._states, 0)
        table = home.table(table_name(stream.name))
        if not table.exists() or not self._states:
            return
        wanted = pl.col(OFFSET) <= int(seen.max())
        reach = _reach(view)
        if reach is not None:
            wanted = wanted & (pl.col(stream.time) >= pl.lit(int(times.min()) - reach).cast(TIME))
        stored = untyped(stream, table.collect(table.scan().filter(wanted)).sort(OFFSET))
        values = [stored[name].to_list() for name in self._layout.fields]
        entities = zip(*(stored[name].to_list() for name in view.entity), strict=True)
        moments = zip(stored[OFFSET].to_list(), stored[INGEST].to_list(), stored[stream.time].to_list(), strict=True)
        for at, (named, (offset, ingest, time)) in enumerate(zip(entities, moments, strict=True)):
            key = encode_key(named)
            if key in self._events:
                self._events[key].append((offset, ingest, time, [column[at] for column in values]))

    def upto(self, row: int) -> list[tuple[str, bytes, bytes]]:
        """What the store must hold for this row: the state of its entity, with all events that the row had seen."""
        key = self._keys[row]
        if key is None:
            return []
        events, state = self._events[key], self._states[key]
        while self._entered[key] < len(events) and events[self._entered[key]][0] <= self._seen[row]:
            offset, ingest, time, values = events[self._entered[key]]
            self._layout.enter(state, offset, ingest, time, values)
            self._entered[key] += 1
        return [(self._table, key, self._layout.encode(state))]


def _reach(view: ViewSpec) -> int | None:
    """How far back from a row's time its values may reach, microseconds; None: to the beginning."""
    found = 0
    for feature in view.features:
        span = feature.window if feature.window is not None else feature.ttl
        if span is None:
            return None
        found = max(found, span + feature.hop)
    return found


CHECKS = (Check("features", "Serving computes the very features that it was trained on", features),)
