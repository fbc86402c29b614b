"""What the answers turned out to be worth, over time: label coverage, a metric or a KPI of mature cohorts, with its standard error where it has one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from davy.core.time import parse_duration
from davy.errors import NotFound
from davy.monitoring.summary import auc_variance
from davy.web.charts import Chart, Series, chart

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from davy.monitoring.performance import Cohort
    from davy.monitoring.summary import Summary
    from davy.web.watched import Watched

HOUR, DAY = 3_600_000_000, 86_400_000_000
COVERAGE, KPI = "coverage", "kpi."
METRICS = ("auc", "accuracy", "mae")


def quality_series(watched: Watched, request: Request) -> Response:
    """`/models/late/monitoring/quality?of=kpi.cost&span=7d`: by the day, or by the hour of at most two days."""
    name, of = request.path_params["name"], request.query_params.get("of", "")
    found = watched.summary(name)
    if of not in measures(found):
        raise NotFound(f"Nothing is judged as {of!r}.", f"There are {', '.join(measures(found)) or 'no labels yet'}.")
    parts, width = judged_over(watched, found, parse_duration(request.query_params.get("span", "30d")))
    times = list(range(min(parts), max(parts) + width, width)) if parts else []
    lines = []
    for version in sorted({version for cohorts in parts.values() for version in cohorts}):
        points = [measured(parts.get(time, {}).get(version), of) for time in times]
        lines.append(Series(f"{name}@{version}", [value for value, _ in points], version - 1, error=[error for _, error in points]))
    units = {item.name: item.unit for judged in found.performance for item in judged.kpis}
    label = "Known labels, %" if of == COVERAGE else of if not of.startswith(KPI) else f"{of.removeprefix(KPI)} per answer, {units[of.removeprefix(KPI)]}"
    return chart(Chart([time / 1e6 for time in times], "Time, UTC", label.rstrip(", "), lines, time=True, zero=of == COVERAGE, total=labels_in(parts)))


def judged_over(watched: Watched, found: Summary, span: int) -> tuple[dict[int, dict[int, Cohort]], int]:
    """Mature cohorts per version and bucket, in the whole buckets of a span, and how wide those are."""
    width = HOUR if span <= 2 * DAY else DAY
    if not found.performance:
        return {}, width
    until = found.performance[0].until
    return watched.cohorts(found.model, -(-(until - span) // width) * width, until, width), width


def labels_in(parts: dict[int, dict[int, Cohort]]) -> int:
    """How many labels a chart stands for."""
    return sum(cohort.labelled for cohorts in parts.values() for cohort in cohorts.values())


def measures(found: Summary) -> list[str]:
    """What there is a chart of: coverage, the first metric that says how good the answers are, and every KPI."""
    if not any(judged.labelled for judged in found.performance):
        return []
    metric = [name for name in METRICS if any(name in judged.metrics for judged in found.performance)][:1]
    kpis = sorted({item.name for judged in found.performance for item in judged.kpis})
    return [*metric, *(f"{KPI}{name}" for name in kpis), COVERAGE]


def measured(cohort: Cohort | None, of: str) -> tuple[float | None, float | None]:
    """The value and its standard error."""
    if cohort is None:
        return None, None
    if of == COVERAGE:
        return None if cohort.coverage is None else 100 * cohort.coverage, None
    if of.startswith(KPI):
        kpi = cohort.kpis.get(of.removeprefix(KPI))
        return (None, None) if kpi is None else (kpi.mean, kpi.error)
    value = cohort.metrics().get(of)
    if value is None:
        return None, None
    if of == "auc":
        return value, math.sqrt(max(auc_variance(cohort), 0.0))
    return value, math.sqrt(value * (1 - value) / cohort.judged) if of == "accuracy" else None
