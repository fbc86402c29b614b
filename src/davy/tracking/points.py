"""How metric points are kept: packed in chunks, with a summary of each curve beside them.

A point takes 24 bytes: its step, its time in milliseconds and its value, little-endian. A batch of one curve is one
chunk, or several of `LARGE` points; one of fewer than `SMALL` points is appended to the curve's newest chunk while that
is small too. So a curve of n points has at most 2 n / SMALL + 1 chunks however it came, adding a point never rewrites
more than a few pages, and nobody who asks for a part reads much more than it.

No point is stored twice. The same step, time and value is the same point, and all NaN are one value; a point behind
the curve's highest step or newest time can't be there yet, and only others are looked for, in the chunks whose steps
and times reach over them. So counts are exact and a repeated request changes nothing.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections import defaultdict
from functools import lru_cache
from struct import iter_unpack
from typing import TYPE_CHECKING, Any

import msgspec

from davy.store.database import direct, direct_many

if TYPE_CHECKING:
    from collections.abc import Mapping

    import sqlalchemy as sa

# So many points, their key and what else stands in their row fill pages of SQLite best: one, and a quarter of another. In PostgreSQL
# a longer row is moved out of its table, and each point appended to it would leave the whole behind for the vacuum.
SMALL = {"sqlite": 200, "postgresql": 64}
LARGE = 4000
SIZE = 24
_NAN = math.nan
_NEGATIVE_ZERO = array("d", [-0.0]).tobytes()
_LOOKUP = 512
_SWAP = sys.byteorder == "big"
_Changes = defaultdict[str, list[tuple[Any, ...]]]


class Points(msgspec.Struct, frozen=True):
    """Points of one curve, as columns of equal length. Values may be NaN or infinite.

    Attributes:
        steps: an `array('q')`.
        times: an `array('q')`, milliseconds since 1970.
        values: an `array('d')`.
    """

    steps: array[int]
    times: array[int]
    values: array[float]

    def __len__(self) -> int:
        return len(self.steps)


def add_points(connection: sa.Connection, run_id: str, columns: Mapping[str, Points]) -> None:
    """Add points of a run to its curves by key, as part of the caller's write transaction, and keep `latest_metrics` current.

    A point that is there already is left out, whenever it came. The run and the keys are checked by the caller.
    """
    dialect = _dialect(connection.dialect.name)
    known = _curves(connection, dialect, run_id, [key for key, points in columns.items() if points.steps])
    changes: _Changes = defaultdict(list)  # rows by the statement that writes them
    for key, points in columns.items():
        if points.steps:
            _add(connection, dialect, changes, run_id, key, _clean(points), known.get(key))
    for text, rows in changes.items():
        direct_many(connection, text, rows)


def pack(points: Points) -> bytes:
    """The points as a chunk keeps them."""
    packed = array("q", bytes(SIZE * len(points.steps)))
    packed[0::3], packed[1::3], packed[2::3] = points.steps, points.times, _bits(points.values)
    if _SWAP:
        packed.byteswap()
    return packed.tobytes()


class Summary(msgspec.Struct, frozen=True):
    """What is known of some points of one curve together.

    Attributes:
        latest: (step, time, value, whether it is NaN) of the highest of them in this order, in which NaN counts as 0.
        lowest: None while there are only NaN; `highest` likewise.
        distinct: whether it is plain that no two of them are the same.
    """

    first_step: int
    last_step: int
    first_time: int
    last_time: int
    latest: tuple[int, int, float, bool]
    lowest: float | None
    highest: float | None
    distinct: bool


def summarize(points: Points) -> Summary:
    """The summary of one point or more."""
    steps, times, values = points.steps.tolist(), points.times.tolist(), points.values.tolist()
    last_step = max(steps)
    numbers = [value for value in values if value == value] if math.isnan(sum(values)) else values
    distinct = len(set(steps)) == len(steps)
    if distinct:
        at = steps.index(last_step)
        latest = times[at], *_flagged(values[at])
    else:
        latest = max((time, *_flagged(value)) for step, time, value in zip(steps, times, values, strict=True) if step == last_step)
        distinct = len(set(times)) == len(times)
    return Summary(min(steps), last_step, min(times), max(times), (last_step, *latest), min(numbers, default=None), max(numbers, default=None), distinct)


class _Curve(msgspec.Struct, frozen=True, gc=False):
    """A row of `latest_metrics` as it is read here."""

    key: str
    step: int
    timestamp: int
    value: float
    is_nan: bool
    lowest: float | None
    highest: float | None
    newest: int
    count: int
    chunk: int
    filled: int


class _Dialect(msgspec.Struct, frozen=True):
    """What depends on the kind of database. There is a `go_on` for each set of bounds that move: neither, lowest, highest, both."""

    curves: str
    overlapping: str
    insert: str
    append: str
    begin: str
    go_on: tuple[str, ...]
    small: int


def _add(connection: sa.Connection, dialect: _Dialect, changes: _Changes, run_id: str, key: str, points: Points, curve: _Curve | None) -> None:
    found = summarize(points)
    overlaps = curve is not None and found.first_step <= curve.step and found.first_time <= curve.newest
    if overlaps or not found.distinct:
        fresh = _fresh(connection, dialect, run_id, key, points, found if overlaps else None)
        if not fresh.steps:
            return
        if len(fresh.steps) < len(points.steps):
            points, found = fresh, summarize(fresh)
    count, last = len(points.steps), _flagged(points.values[-1])
    if curve is not None and curve.filled < dialect.small and count < dialect.small:
        number, filled = curve.chunk, curve.filled + count
        changes[dialect.append].append((count, *_reach(found), pack(points), run_id, key, number))
    else:
        number = -1 if curve is None else curve.chunk
        for part in _parts(points):
            number, filled = number + 1, len(part.steps)
            reach = _reach(found if filled == count else summarize(part))
            changes[dialect.insert].append((run_id, key, number, filled, *reach, pack(part)))
    if curve is None:
        changes[dialect.begin].append((run_id, key, *found.latest, found.lowest, found.highest, *last, found.last_time, count, number, filled))
        return
    latest = max(found.latest, (curve.step, curve.timestamp, curve.value, bool(curve.is_nan)))
    bounds: list[float] = []
    moved = 0
    if found.lowest is not None and (curve.lowest is None or found.lowest < curve.lowest):
        bounds.append(found.lowest)
        moved = 1
    if found.highest is not None and (curve.highest is None or found.highest > curve.highest):
        bounds.append(found.highest)
        moved += 2
    changes[dialect.go_on[moved]].append((*latest, *last, max(curve.newest, found.last_time), curve.count + count, number, filled, *bounds, run_id, key))


def _parts(points: Points) -> list[Points]:
    """The points in chunks of at most `LARGE`."""
    count = len(points.steps)
    if count <= LARGE:
        return [points]
    return [Points(points.steps[at:at + LARGE], points.times[at:at + LARGE], points.values[at:at + LARGE]) for at in range(0, count, LARGE)]


def _reach(found: Summary) -> tuple[int, int, int, int]:
    return found.first_step, found.last_step, found.first_time, found.last_time


def _curves(connection: sa.Connection, dialect: _Dialect, run_id: str, keys: list[str]) -> dict[str, _Curve]:
    found: dict[str, _Curve] = {}
    for start in range(0, len(keys), _LOOKUP):
        asked = keys[start:start + _LOOKUP]
        # Lists of few different lengths make few different statements, which the driver keeps prepared.
        padded = asked + asked[-1:] * ((1 << (len(asked) - 1).bit_length()) - len(asked))
        text = dialect.curves.format(", ".join("?" * len(padded)))
        for row in direct(connection, text, (run_id, *padded)):
            found[row[0]] = _Curve(*row)
    return found


def _fresh(connection: sa.Connection, dialect: _Dialect, run_id: str, key: str, points: Points, found: Summary | None) -> Points:
    """The points that are neither twice among these nor stored already; a summary, if given, says where to look."""
    triples = dict.fromkeys(zip(points.steps, points.times, _bits(points.values), strict=True))
    if found is not None:
        ranges = found.last_step, found.first_step, found.last_time, found.first_time
        for (data,) in direct(connection, dialect.overlapping, (run_id, key, *ranges)):
            for triple in frozenset(triples).intersection(iter_unpack("<qqq", data)):
                del triples[triple]
    if not triples:
        return Points(array("q"), array("q"), array("d"))
    steps, times, bits = zip(*triples, strict=True)
    return Points(array("q", steps), array("q", times), array("d", array("q", bits).tobytes()))


def _clean(points: Points) -> Points:
    """The same points, with 0.0 for -0.0 and one NaN for all."""
    values = points.values
    if math.isnan(sum(values)) or _NEGATIVE_ZERO in values.tobytes():
        return Points(points.steps, points.times, array("d", [value + 0.0 if value == value else _NAN for value in values]))
    return points


def _bits(values: array[float]) -> array[int]:
    return array("q", values.tobytes())


def _flagged(value: float) -> tuple[float, bool]:
    """A value as columns hold it."""
    return (value, False) if value == value else (0.0, True)


@lru_cache
def _dialect(name: str) -> _Dialect:
    """The statements of a database. They are plain text, because building them anew costs more than running them."""
    sqlite = name == "sqlite"
    least, greatest = ("min", "max") if sqlite else ("least", "greatest")
    chunk = ("run_id", "key", "number", "count", "first_step", "last_step", "first_time", "last_time", "data")
    moving = ("step", "timestamp", "value", "is_nan", "last", "last_is_nan", "newest", "count", "chunk", "filled")
    curve = ("run_id", "key", "step", "timestamp", "value", "is_nan", "lowest", "highest", "last", "last_is_nan", "newest", "count", "chunk", "filled")
    longer = "CAST(data || ? AS BLOB)" if sqlite else "data || ?"
    return _Dialect(
        curves=f"SELECT {', '.join(_Curve.__struct_fields__)} FROM latest_metrics WHERE run_id = ? AND key IN ({{}})",
        overlapping="SELECT data FROM metric_chunks WHERE run_id = ? AND key = ? AND first_step <= ? AND last_step >= ? AND first_time <= ? AND last_time >= ?",
        insert=f"INSERT INTO metric_chunks ({', '.join(chunk)}) VALUES ({', '.join('?' * len(chunk))})",
        append=f"UPDATE metric_chunks SET count = count + ?, first_step = {least}(first_step, ?), last_step = {greatest}(last_step, ?),"
               f" first_time = {least}(first_time, ?), last_time = {greatest}(last_time, ?), data = {longer} WHERE run_id = ? AND key = ? AND number = ?",
        begin=f"INSERT INTO latest_metrics ({', '.join(curve)}) VALUES ({', '.join('?' * len(curve))})",
        go_on=tuple(f"UPDATE latest_metrics SET {', '.join(f'{name} = ?' for name in (*moving, *bounds))} WHERE run_id = ? AND key = ?"
                    for bounds in ((), ("lowest",), ("highest",), ("lowest", "highest"))),
        small=SMALL[name])
