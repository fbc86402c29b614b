"""Curves of runs, as the page's choices ask for them: across steps or the time since the run began, and smoothed or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from davy.errors import InvalidInput
from davy.tracking.history import metric_history, smoothed_history
from davy.web.charts import Chart, Series

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from davy.tracking.history import History
    from davy.tracking.records import RunRecord


class View(msgspec.Struct, frozen=True):
    """How curves are looked at. `weight` is that of their moving average, 0 for none."""

    time: bool = False
    weight: float = 0.0
    first: int | None = None
    last: int | None = None


def read_view(query: Mapping[str, str]) -> View:
    """What `x=time`, `smooth=0.9`, `first=STEP` and `last=STEP` ask for.

    Raises:
        InvalidInput: one of them is none of that.
    """
    across, smooth = query.get("x", ""), query.get("smooth", "")
    try:
        weight = float(smooth or 0)
    except ValueError:
        weight = -1.0
    if across not in ("", "step", "time") or not 0 <= weight < 1:
        raise InvalidInput(f"x={across!r} and smooth={smooth!r} were asked for.", "x is step or time, and smooth is at least 0 and below 1.", "Correct it.")
    return View(across == "time", weight, _step(query.get("first")), _step(query.get("last")))


def curves(connection: Connection, runs: Sequence[RunRecord], key: str, view: View, points: int) -> Chart:
    """A metric of these runs, each with at most so many points and with the lowest and highest of its slices.

    Times are seconds since each run began. Each smoothed curve stands before the one that it smooths, which is drawn pale.
    """
    found = []
    for hue, run in enumerate(runs):
        if view.weight:
            curve, smooth = smoothed_history(connection, run.id, key, weight=view.weight, points=points, first_step=view.first, last_step=view.last)
        else:
            curve, smooth = metric_history(connection, run.id, key, points=points, first_step=view.first, last_step=view.last), []
        if curve.steps:
            found.append(_Curve(run.name if len(runs) > 1 else key, hue, _across(run, curve, view.time), curve, smooth))
    x, columns = _beside(found)
    series = [line for one, (values, smooth) in zip(found, columns, strict=True) for line in _lines(one, values, smooth, span=len(found) > 1)]
    steps = {place: step for one in found for place, step in zip(one.x, one.history.steps, strict=True)} if view.time else {}
    return Chart(x, "time since the start" if view.time else "step", key, series, total=sum(one.history.total for one in found), elapsed=view.time,
                 steps=[steps[place] for place in x] if view.time else ())


class _Curve(msgspec.Struct, frozen=True):
    label: str
    hue: int
    x: list[float]
    history: History
    smooth: list[float]


def _across(run: RunRecord, curve: History, time: bool) -> list[float]:
    return [(at - run.started) / 1e6 for at in curve.times] if time else list(curve.steps)


def _beside(found: Sequence[_Curve]) -> tuple[list[float], list[tuple[list[float | None], list[float | None]]]]:
    """All curves over one axis: its places, and for each curve its values and averages there.

    A single curve keeps every point; of several, each keeps one per place, the last.
    """
    if len(found) == 1:
        (one,) = found
        order = sorted(range(len(one.x)), key=one.x.__getitem__)
        return [one.x[at] for at in order], [([one.history.values[at] for at in order], [one.smooth[at] for at in order] if one.smooth else [])]
    x = sorted({place for one in found for place in one.x})
    columns = []
    for one in found:
        values, smooth = dict(zip(one.x, one.history.values, strict=True)), dict(zip(one.x, one.smooth, strict=True)) if one.smooth else {}
        columns.append(([values.get(place) for place in x], [smooth.get(place) for place in x] if smooth else []))
    return x, columns


def _lines(one: _Curve, values: list[float | None], smooth: list[float | None], *, span: bool) -> list[Series]:
    raw = Series(one.label, values, hue=one.hue, span=span, pale=bool(smooth))
    return [Series(f"{one.label}, smoothed", smooth, hue=one.hue, span=span), raw] if smooth else [raw]


def _step(text: str | None) -> int | None:
    if not text:
        return None
    try:
        return max(-(2**63), min(int(text), 2**63 - 1))
    except ValueError:
        raise InvalidInput(f"{text[:40]!r} is not a step.", "A step is a whole number.", "Correct it.") from None
