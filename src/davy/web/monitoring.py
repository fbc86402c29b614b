"""What a model's versions answered, how their inputs moved, and what the answers were worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from davy.core.time import parse_duration
from davy.errors import NotFound
from davy.monitoring.profiles import SLICE, Profile, by_version, read_profiles
from davy.registry.models import get_version, list_versions
from davy.serving.traffic import read_traffic
from davy.web.charts import Chart, Series, chart
from davy.web.distribution import Bars, bars, curves
from davy.web.health import health
from davy.web.quality import judged_over, labels_in, measures
from davy.web.render import page

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from davy.home import Home
    from davy.monitoring.columns import ColumnProfile, ColumnReference
    from davy.monitoring.summary import Summary, VersionDrift
    from davy.web.watched import Watched

HOUR, DAY = 3_600_000_000, 86_400_000_000
DAYS = (1, 7, 30)
BUCKETS = 180
LATE = 6

_MEASURES: dict[str, tuple[str, Callable[[Profile, int], float | None]]] = {
    "p50": ("Latency, ms", lambda profile, _: _ms(profile.latency.quantile(0.5))),
    "p99": ("Latency, ms", lambda profile, _: _ms(profile.latency.quantile(0.99))),
    "failures": ("Share of requests, %", lambda profile, _: 100 * (profile.share("error", "timeout") or 0.0)),
    "requests": ("Requests a minute", lambda profile, span: profile.rows / (span / 60e6)),
}


def monitoring(watched: Watched, request: Request) -> Response:
    """`/models/late/monitoring?version=2&feature=wind&days=7`: traffic, drift of a version, alarms, performance, the last replay."""
    home, name, query = watched.home, request.path_params["name"], request.query_params
    with home.database.read() as connection:
        versions = list_versions(connection, name)
        if not versions:
            get_version(connection, name, 0)
        traffic = read_traffic(connection, name)
    found, days = watched.summary(name), _days(query.get("days"), watched, name)
    live = traffic[0].versions if traffic else {}
    moved = _chosen(found, query.get("version"), live)
    feature = query.get("feature") or None
    alarms = {alarm.feature: alarm for alarm in reversed(found.alarms) if moved and alarm.version == moved.version and alarm.cleared is None}
    columns = sorted(moved.columns, key=lambda item: item.verdict != "drifted" and item.feature not in alarms) if moved else []
    column = next((item for item in columns if item.feature == feature), columns[0] if columns else None)
    kind, texts = _texts(watched, found, moved.version, column.feature) if moved and column else ("none", [])
    width = _bucket(home, days)
    answered = _total(watched.buckets(name, days * DAY, width))
    late = sorted(((stream, told) for stream, told in found.replay.lateness.get("streams", {}).items()), key=_late_first) if found.replay else []
    changed = sorted(found.replay.lateness.get("features", {}).items(), key=lambda item: -item[1]["changed"])[:LATE] if found.replay else []
    return page(request, "monitoring.html", project=home.config.project, now=home.clock.now(), name=name, newest=versions[0].version, found=found, days=days,
                choices=DAYS, live=live, moved=moved, columns=columns, column=column, alarms=alarms, kind=kind, texts=texts, health=health(home, found),
                answered=answered, bucket=width, late=late, changed=changed, tolerance=home.config.monitoring.drift_tolerance,
                measured={item.version for item in found.drift}, measures=measures(found), labels=labels_in(judged_over(watched, found, days * DAY)[0]),
                listed=sorted(found.alarms, key=lambda alarm: (alarm.cleared is not None, -alarm.raised)))


def traffic_series(watched: Watched, request: Request) -> Response:
    """`/models/late/monitoring/traffic?of=p99&days=7`: a measure of every version over time."""
    name, of = request.path_params["name"], request.query_params.get("of", "")
    if of not in _MEASURES:
        raise NotFound(f"Nothing is measured as {of!r}.", f"There are {', '.join(_MEASURES)}.")
    days = _days(request.query_params.get("days"), watched, name)
    label, measure = _MEASURES[of]
    span = _bucket(watched.home, days)
    parts, until = watched.buckets(name, days * DAY, span), watched.summary(name).until or 0
    versions = sorted({version for profiles in parts.values() for version in profiles})
    times = list(range(min(parts), max(parts) + span, span)) if parts else []
    lines = []
    for version in versions:
        here = [parts.get(time, {}).get(version) for time in times]
        values = [None if profile is None else measure(profile, max(min(span, until - time), SLICE)) for time, profile in zip(times, here, strict=True)]
        lines.append(Series(f"{name}@{version}", values, version - 1))
    return chart(Chart([time / 1e6 for time in times], "Time, UTC", label, lines, time=True, zero=True, total=_total(parts)))


def distribution_series(watched: Watched, request: Request) -> Response:
    """`/models/late/monitoring/distribution?version=2&feature=wind`: a column of numbers in the training set and in the window."""
    name, query = request.path_params["name"], request.query_params
    number = query.get("version", "")
    found = _column(watched, watched.summary(name), int(number) if number.isdecimal() and len(number) < 10 else 0, query.get("feature", ""))
    if found is None or found[0].kind != "number":
        raise NotFound(f"No distribution of {query.get('feature', '')!r} is known for {name}@{number}.", "", f"Count what was served: davy monitor {name}")
    return chart(curves(*found))


def _total(parts: dict[int, dict[int, Profile]]) -> int:
    return sum(profile.rows for profiles in parts.values() for profile in profiles.values())


def _bucket(home: Home, days: int) -> int:
    """Microseconds that one point of a chart stands for: at most `BUCKETS` parts of whole hours; a day where some slices have been summed up into days."""
    if days * DAY > parse_duration(home.config.monitoring.keep_slices):
        return DAY
    return -(-days * DAY // BUCKETS // HOUR) * HOUR


def _days(text: str | None, watched: Watched, name: str) -> int:
    """How far the charts look back: as asked for, or the shortest that covers the monitoring window."""
    asked = next((days for days in DAYS if str(days) == text), None)
    return asked or next((days for days in DAYS if days * 86_400 >= watched.summary(name).window_s), DAYS[-1])


def _chosen(found: Summary, version: str | None, live: dict[int, float]) -> VersionDrift | None:
    """The version that was asked for, else the live one with the most traffic, else the newest."""
    wanted = next((item for item in found.drift if str(item.version) == version), None)
    return wanted or max(found.drift, key=lambda item: (live.get(item.version, 0.0), item.version), default=None)


def _column(watched: Watched, found: Summary, version: int, feature: str) -> tuple[ColumnReference, ColumnProfile] | None:
    column = watched.collector.reference(found.model, version).by_name.get(feature)
    if column is None or found.until is None:
        return None
    profiles = by_version(read_profiles(watched.home, found.model, start=found.until - int(found.window_s * 1e6), version=version))
    counted = profiles[version].columns.get(feature) if version in profiles else None
    return None if counted is None else (column, counted)


def _texts(watched: Watched, found: Summary, version: int, feature: str) -> tuple[str, list[Bars]]:
    """What kind of column it is, and the bars of one of texts."""
    column = _column(watched, found, version, feature)
    if column is None:
        return "none", []
    return column[0].kind, bars(*column) if column[0].kind == "category" else []


def _late_first(item: tuple[str, dict[str, Any]]) -> float:
    return -(item[1].get("late", 0) / item[1]["events"]) if item[1].get("events") else 0.0


def _ms(micros: float | None) -> float | None:
    return None if micros is None else micros / 1000
