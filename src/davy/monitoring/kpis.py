"""KPIs one by one, in the order in which they become known: what a release is judged by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import polars as pl

from davy.monitoring.outcomes import DAY, named_outcomes, read_outcomes, read_served
from davy.monitoring.performance import kpi_value, outputs_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from davy.features.kpi import Kpi
    from davy.home import Home
    from davy.project import ModelDefinition


class KpiEvent(msgspec.Struct, frozen=True):
    """A KPI of one answered prediction.

    Attributes:
        offset: of the outcome in its log, by which events are ordered.
        share, release, routing_key, time, logged: of the prediction's record; times in microseconds.
        bad: whether the KPI calls this value a bad event.
    """

    kpi: str
    offset: int
    prediction: str
    version: int
    arm: str
    share: float
    release: str
    routing_key: str
    time: int
    logged: int
    value: float
    bad: bool


def kpi_events(home: Home, definition: ModelDefinition, kpis: Sequence[Kpi] | None = None, *, after: int = 0, start: int | None = None,
               release: str | None = None) -> Iterator[KpiEvent]:
    """The KPIs of each answered prediction whose outcome is known, in the order of the outcomes.

    The first outcome of a prediction counts; a correction gives no second event, so that asking again always gives the same.

    Args:
        kpis: default: all that the model lists.
        after: only outcomes with a larger offset, to go on from the last event seen.
        start: only predictions from this moment on (microseconds); whoever asks often, asks from the release's beginning.
        release: only predictions that were made under this release.
    """
    events = read_outcomes(home, definition.name, since=None if start is None else start - DAY)
    if events is None or not events.filter(pl.col("offset") > after).height:
        return
    predictions = read_served(home, definition.name, start=start, pending=True)
    if not predictions.height:
        return
    named = named_outcomes(predictions, definition.spec.outcome.matures_after, events)
    first = named.sort("offset").unique("id", keep="first", maintain_order=True).filter(pl.col("offset") > after)
    answered = predictions.filter((pl.col("status") == "ok") & ~pl.col("pinned") & (pl.col("arm") != "shadow"))
    if release is not None:
        answered = answered.filter(pl.col("release") == release)
    known = answered.join(first.select("id", "offset", "value"), left_on="prediction", right_on="id", how="inner").sort("offset", "prediction")
    for output, row in zip(outputs_of(known), known.iter_rows(named=True), strict=True):
        for kpi in definition.kpis if kpis is None else kpis:
            number = kpi_value(kpi, output, row["value"])
            if number is not None:
                yield KpiEvent(kpi.name, row["offset"], row["prediction"], row["version"], row["arm"], row["share"], row["release"], row["routing_key"],
                               row["time"], row["logged"], number, kpi.is_bad(number))
