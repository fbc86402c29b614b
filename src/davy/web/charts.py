"""What a chart is, as JSON: series over one axis, and the limits that they are held against. davy.js draws it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response

from davy.web.render import CONFINED

if TYPE_CHECKING:
    from collections.abc import Sequence


class Series(msgspec.Struct, frozen=True):
    """One line. `hue` is its colour, by number; a stepped one holds each value until the next; `error` is drawn as a band, so much to each side.

    With `span`, the line goes on over points that it lacks; a pale one is background to another.
    """

    label: str
    values: Sequence[float | None]
    hue: int = 0
    step: bool = False
    fill: bool = False
    error: Sequence[float | None] = ()
    span: bool = False
    pale: bool = False


class Limit(msgspec.Struct, frozen=True):
    """A dashed line across the chart, in the colour of what it limits."""

    label: str
    value: float
    hue: int = 0


class Chart(msgspec.Struct, frozen=True):
    """The whole. With `time`, x are seconds since 1970, shown as UTC; with `elapsed`, seconds since the start, and `steps` are the steps at each;
    with `zero`, the axis of y begins there."""

    x: Sequence[float]
    x_label: str
    y_label: str
    series: Sequence[Series]
    limits: Sequence[Limit] = ()
    time: bool = False
    elapsed: bool = False
    steps: Sequence[int] = ()
    zero: bool = False
    total: int = 0


def chart(found: Chart) -> Response:
    """The answer for a figure's `data-chart`. What is not finite is a gap."""
    series = [msgspec.structs.replace(one, values=[_finite(value) for value in one.values], error=[_finite(value) for value in one.error])
              for one in found.series]
    body: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(found, series=series))
    return Response(msgspec.json.encode(body), headers=CONFINED | {"cache-control": "no-store"}, media_type="application/json")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
