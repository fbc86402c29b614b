"""Curves: all points of a metric, page by page, or as many as a plot can show without losing a peak."""

from __future__ import annotations

import base64
import binascii
import itertools
import math
from array import array
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import sqlalchemy as sa

from davy.core.digest import digest_json
from davy.errors import InvalidInput
from davy.schema.tables import latest_metrics, metric_chunks
from davy.tracking.points import Points

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

FEWEST = 5
LONG = 1_000_000
_CHUNK = metric_chunks.c
_FINER = 16
_LOOKUP = 500
_LARGEST = 2**63 - 1


class History(msgspec.Struct, frozen=True):
    """A curve in the order of its steps, as columns of equal length.

    Attributes:
        times: microseconds.
        total: how many points are stored for it (and range); `len(steps)` of them are here.
    """

    key: str
    steps: list[int]
    times: list[int]
    values: list[float]
    total: int

    @property
    def decimated(self) -> bool:
        """Whether points were left out."""
        return len(self.steps) < self.total


class HistoryPage(msgspec.Struct, frozen=True):
    """Some points of a curve, and the token of the next page (None: this was the last)."""

    points: Points
    next: str | None


def metric_history(connection: sa.Connection, run_id: str, key: str, *, points: int | None = None, first_step: int | None = None,
                   last_step: int | None = None) -> History:
    """The curve of one metric, by (step, time, value).

    Args:
        points: at most so many. The curve is cut into equal slices of its points and each keeps its lowest and its
            highest (and a NaN, where there is one); the first and the last point are always kept. Of more than `LONG`
            points that many are read at a time, and slices are equal within a sixteenth.
        first_step: leave out what lies before.
        last_step: leave out what lies after.
    """
    if points is not None and points < FEWEST:
        raise InvalidInput(f"points={points} was asked for.", f"A decimated curve has at least {FEWEST} points.", f"Pass points={FEWEST} or more.")
    if points is None:
        found = _joined(list(_between(connection, run_id, key, first_step, last_step)))
        total = len(found)
    else:
        found, total = _sampled(_between(connection, run_id, key, first_step, last_step), points)
    return _history(key, found, total)


def smoothed_history(connection: sa.Connection, run_id: str, key: str, *, weight: float, points: int, first_step: int | None = None,
                     last_step: int | None = None) -> tuple[History, list[float]]:
    """The decimated curve, and beside each of its points the moving average of all points up to it, also of those that are left out.

    The average is exponential: a point weighs `weight` times as much as the one after it. It is corrected for its beginning at
    zero (Kingma and Ba 2015, section 3), as TensorBoard's is. What is not finite is passed over.

    Args:
        weight: from 0 to below 1.
        points: at most so many, as in `metric_history`.
    """
    if points < FEWEST or not 0 <= weight < 1:
        raise InvalidInput(f"points={points} and weight={weight} were asked for.",
                           f"A curve has at least {FEWEST} points, and a weight is at least 0 and below 1.", "Pass weight=0.9.")
    found, total = _sampled(_averaged(_between(connection, run_id, key, None, last_step), weight, first_step), points)
    return _history(key, found, total), found["average"].tolist() if len(found) else []


def metric_keys(connection: sa.Connection, run_id: str) -> dict[str, int]:
    """The keys of a run's metrics by name, with how many points each has."""
    query = sa.select(latest_metrics.c.key, latest_metrics.c.count).where(latest_metrics.c.run_id == run_id).order_by(latest_metrics.c.key)
    return {row[0]: row[1] for row in connection.execute(query)}


def history_page(connection: sa.Connection, run_id: str, key: str, *, limit: int | None = None, after: str | None = None) -> HistoryPage:
    """Points of one metric by (time, step, value). Turning pages neither skips nor repeats a point, also while others are added.

    Args:
        limit: at most so many points (default: all).
        after: the token of the page before.
    """
    if limit is not None and limit < 1:
        raise InvalidInput(f"limit={limit} was asked for.", "A page has at least one point.", "Turn pages with after=page.next.")
    bound = digest_json([run_id, key])[7:23]
    last = None if after is None else _read_token(after, bound)
    blocks: list[np.ndarray[Any, Any]] = []
    count = 0
    for block in _blocks(connection, run_id, key, "time", since=None if last is None else last[0], size=LONG if limit is None else limit + 1):
        blocks.append(block if last is None else block[_beyond(block, last)])
        count += len(blocks[-1])
        if limit is not None and count > limit:
            break
    found = _joined(blocks)
    if limit is None or count <= limit:
        return HistoryPage(_points(found), None)
    return HistoryPage(_points(found[:limit]), _token(bound, found[limit - 1]))


def histories(connection: sa.Connection, run_ids: Sequence[str], key: str, *, limit: int) -> list[tuple[str, Points]]:
    """One metric of several runs, by (run, time, step, value), `limit` points in all; runs that have none are left out."""
    found: list[tuple[str, Points]] = []
    for run_id in sorted(set(run_ids)):
        if limit < 1:
            break
        points = history_page(connection, run_id, key, limit=limit).points
        limit -= len(points)
        if points.steps:
            found.append((run_id, points))
    return found


def sampled_histories(connection: sa.Connection, run_ids: Sequence[str], key: str, *, points: int, first_step: int | None = None,
                      last_step: int | None = None) -> list[tuple[str, Points]]:
    """One metric of several runs, in the order of `run_ids`, each by (step, time, value) and decimated as by `metric_history`.

    A single point is the last, two are the first and the last.
    """
    if points < 1:
        raise InvalidInput(f"points={points} was asked for.", "A curve has at least one point.", "Ask for more.")
    curves = [(run_id, _sampled(_between(connection, run_id, key, first_step, last_step), points)[0]) for run_id in dict.fromkeys(run_ids)]
    return [(run_id, _points(curve)) for run_id, curve in curves if len(curve)]


def _history(key: str, found: np.ndarray[Any, Any], total: int) -> History:
    return History(key, found["step"].tolist(), [time * 1000 for time in found["time"].tolist()], found["value"].tolist(), total)


def _sampled(blocks: Iterator[np.ndarray[Any, Any]], points: int) -> tuple[np.ndarray[Any, Any], int]:
    """So many points of a curve that comes in sorted pieces, and how many there are."""
    import numpy as np

    first, second = next(blocks, _joined([])), next(blocks, None)
    if second is None:
        return first[_chosen(first["value"], points)], len(first)
    kept: list[np.ndarray[Any, Any]] = []
    places: list[np.ndarray[Any, Any]] = []
    total = 0
    for found in itertools.chain((first, second), blocks):
        few = _chosen(found["value"], max(FEWEST, _FINER * points * len(found) // LONG))
        kept.append(found[few])
        places.append(np.array(few, np.int64) + total)
        total += len(found)
    joined = _joined(kept)
    return joined[_chosen(joined["value"], points, np.concatenate(places))], total


def _between(connection: sa.Connection, run_id: str, key: str, first_step: int | None, last_step: int | None) -> Iterator[np.ndarray[Any, Any]]:
    """The curve, or a range of its steps, in sorted pieces."""
    if (first_step is not None and first_step > _LARGEST) or (last_step is not None and last_step < -_LARGEST - 1):
        return
    low, high = max(-_LARGEST - 1, -_LARGEST - 1 if first_step is None else first_step), min(_LARGEST, _LARGEST if last_step is None else last_step)
    for block in _blocks(connection, run_id, key, "step", since=low, until=high, size=LONG):
        yield block if first_step is None and last_step is None else block[(block["step"] >= low) & (block["step"] <= high)]


def _averaged(blocks: Iterator[np.ndarray[Any, Any]], weight: float, first_step: int | None) -> Iterator[np.ndarray[Any, Any]]:
    """The pieces with a moving average beside each point. Points before `first_step` count and are left out."""
    import numpy as np

    mean = share = 0.0
    for block in blocks:
        found = np.empty(len(block), [*_layout().descr, ("average", "<f8")])
        for name in ("step", "time", "value"):
            found[name] = block[name]
        averages = []
        for value in block["value"].tolist():
            if math.isfinite(value):
                mean, share = mean * weight + value * (1 - weight), share * weight + 1 - weight
            averages.append(mean / share if share else math.nan)
        found["average"] = averages
        yield found if first_step is None else found[found["step"] >= first_step]


def _blocks(connection: sa.Connection, run_id: str, key: str, order: Literal["step", "time"], *, since: int | None = None, until: int | None = None,
            size: int) -> Iterator[np.ndarray[Any, Any]]:
    """The curve in sorted pieces of at least `size` points, each wholly before the next; only chunks that reach into the range are read."""
    first, last = (_CHUNK.first_step, _CHUNK.last_step) if order == "step" else (_CHUNK.first_time, _CHUNK.last_time)
    query = sa.select(_CHUNK.number, _CHUNK.count, first, last).where(_CHUNK.run_id == run_id, _CHUNK.key == key)
    if since is not None:
        query = query.where(last >= since)
    if until is not None:
        query = query.where(first <= until)
    numbers: list[int] = []
    count = reach = 0
    for number, points, begins, ends in connection.execute(query.order_by(first, _CHUNK.number)).all():
        if count >= size and begins > reach:
            yield _sorted(_read(connection, run_id, key, numbers), order)
            numbers, count = [], 0
        reach = max(reach, ends) if numbers else ends
        numbers.append(number)
        count += points
    if numbers:
        yield _sorted(_read(connection, run_id, key, numbers), order)


def _read(connection: sa.Connection, run_id: str, key: str, numbers: Sequence[int]) -> np.ndarray[Any, Any]:
    import numpy as np

    query = sa.select(_CHUNK.data).where(_CHUNK.run_id == run_id, _CHUNK.key == key).order_by(_CHUNK.number)
    rest = iter(sorted(numbers))
    found: list[bytes] = []
    while some := list(itertools.islice(rest, _LOOKUP)):
        asked = _CHUNK.number.between(some[0], some[-1]) if some[-1] - some[0] == len(some) - 1 else _CHUNK.number.in_(some)
        found.extend(connection.scalars(query.where(asked)))
    return np.frombuffer(b"".join(found), _layout())


def _sorted(found: np.ndarray[Any, Any], order: Literal["step", "time"]) -> np.ndarray[Any, Any]:
    import numpy as np

    major, minor = (found["step"], found["time"]) if order == "step" else (found["time"], found["step"])
    if np.all((major[1:] > major[:-1]) | ((major[1:] == major[:-1]) & (minor[1:] > minor[:-1]))):
        return found
    missing = np.isnan(found["value"])
    return found[np.lexsort((missing, np.where(missing, 0.0, found["value"]), minor, major))]


def _chosen(column: np.ndarray[Any, Any], points: int, places: np.ndarray[Any, Any] | None = None) -> list[int]:
    """Which `points` of these values to show: the first and the last, and of each slice between them the lowest, the highest and the first NaN.

    Args:
        places: where each of them stands among all, if some are left out already; then it is those that are cut into equal slices.
    """
    import numpy as np

    count = len(column)
    if count <= points:
        return list(range(count))
    if points == 1:
        return [count - 1]
    values = np.ascontiguousarray(column)
    missing = np.isnan(values)
    holes = bool(missing.any())
    slices = (points - 2) // (3 if points >= FEWEST and holes else 2)
    between = (count if places is None else int(places[-1]) + 1) - 2
    ends = [1 + between * index // slices for index in range(1, slices + 1)]
    kept = {0, count - 1}
    start = 1
    for end in ends if places is None else np.searchsorted(places, ends).tolist():
        part = values[start:end]
        if holes and missing[start:end].any():
            numbers = np.flatnonzero(~missing[start:end])
            if points >= FEWEST:
                kept.add(start + int(np.argmax(missing[start:end])))
            if len(numbers):
                kept |= {start + int(numbers[np.argmin(part[numbers])]), start + int(numbers[np.argmax(part[numbers])])}
        elif len(part):
            kept |= {start + int(np.argmin(part)), start + int(np.argmax(part))}
        start = end
    return sorted(kept)


def _layout() -> np.dtype[Any]:
    import numpy as np

    return np.dtype([("step", "<i8"), ("time", "<i8"), ("value", "<f8")])


def _joined(blocks: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    import numpy as np

    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks) if blocks else np.empty(0, _layout())


def _points(found: np.ndarray[Any, Any]) -> Points:
    return Points(array("q", found["step"].astype("=i8").tobytes()), array("q", found["time"].astype("=i8").tobytes()),
                  array("d", found["value"].astype("=f8").tobytes()))


def _beyond(found: np.ndarray[Any, Any], last: tuple[int, int, float, bool]) -> np.ndarray[Any, Any]:
    """Which points come strictly behind `last` in the order of pages."""
    import numpy as np

    missing = np.isnan(found["value"])
    behind = np.zeros(len(found), bool)
    same = np.ones(len(found), bool)
    for column, value in zip((found["time"], found["step"], np.where(missing, 0.0, found["value"]), missing), last, strict=True):
        behind |= same & (column > value)
        same &= column == value
    return behind


def _token(bound: str, last: Any) -> str:
    missing = bool(last["value"] != last["value"])
    parts = [bound, int(last["time"]), int(last["step"]), "0" if missing else float(last["value"]).hex(), missing]
    return base64.urlsafe_b64encode(msgspec.json.encode(parts)).decode()


def _read_token(token: str, bound: str) -> tuple[int, int, float, bool]:
    try:
        found = msgspec.json.decode(base64.urlsafe_b64decode(token), type=tuple[str, int, int, str, bool])
        if found[0] != bound or not all(-_LARGEST - 1 <= whole <= _LARGEST for whole in found[1:3]):
            raise ValueError
        return found[1], found[2], float.fromhex(found[3]), found[4]
    except (ValueError, TypeError, OverflowError, binascii.Error, msgspec.MsgspecError) as error:
        raise InvalidInput(f"{token[:60]!r} is not a page of this curve.", "A page's token fits the curve that gave it, unchanged.",
                           "Start again without `after`.") from error
