"""Releases: what was decided, on which evidence, and how traffic moved meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from davy.errors import NotFound
from davy.registry.models import get_version, list_versions
from davy.release.releases import get_release, read_releases, timeline
from davy.release.status import told
from davy.store.journal import entries
from davy.web.charts import Chart, Limit, Series, chart
from davy.web.render import page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection
    from starlette.requests import Request
    from starlette.responses import Response

    from davy.home import Home
    from davy.release.releases import Point, Release

POINTS = 2000
AFTER = 0.04
ENTRIES = 1000
HARM, HARMLESS = 1, 2
RATIO, WEIGHTS = "sample ratio", "weights"


def releases(home: Home, request: Request) -> Response:
    """`/models/late/releases`: every release of a model, the newest first."""
    name = request.path_params["name"]
    with home.database.read() as connection:
        versions = list_versions(connection, name)
        if not versions:
            get_version(connection, name, 0)
        found = [told(release) for release in read_releases(connection, name)]
    return page(request, "releases.html", project=home.config.project, now=home.clock.now(), name=name, releases=found, newest=versions[0].version)


def release(home: Home, request: Request) -> Response:
    """`/releases/ID`: the decision and why, traffic and evidence over time, the counts of each arm."""
    with home.database.read() as connection:
        found = get_release(connection, request.path_params["release"])
        points = timeline(connection, found.id)
        moves = _moves(connection, found, points)
    state = told(found)
    metrics = [row["metric"] for row in state["metrics"]]
    return page(request, "release.html", project=home.config.project, now=home.clock.now(), found=found, told=state, moves=moves, metrics=metrics,
                points=len(points), drawn=min(len(points), POINTS), left=_left(points, state["needed_requests"]), ratio=RATIO, weights=WEIGHTS)


def release_series(home: Home, request: Request) -> Response:
    """`/releases/ID/series?of=errors`: a chart's points: of a metric's evidence, of `weights`, or of the `sample ratio`."""
    of = request.query_params.get("of", WEIGHTS)
    with home.database.read() as connection:
        found = get_release(connection, request.path_params["release"])
        points = timeline(connection, found.id)
    total, points = len(points), thinned(points, POINTS)
    times = [point.time / 1e6 for point in points]
    if of == WEIGHTS:
        shares = [100 * point.share for point in points]
        if times:  # what holds after the last look, so that it is seen
            times.append(times[-1] + max(times[-1] - times[0], 1.0) * AFTER)
            shares.append(shares[-1])
        lines = [Series(found.reference, shares, 0, step=True, fill=True)]
        if not found.first:
            lines.append(Series(f"{found.model}@{found.stable}", [100 - share for share in shares], 3, step=True))
        return chart(Chart(times, "Time, UTC", "Share of traffic, %", lines, time=True, zero=True, total=total))
    if of == RATIO:
        ratio = [Series("wrong split", [point.sample_ratio[0] for point in points], HARM)]
        limits = [Limit(f"pauses at {points[-1].sample_ratio[1]:.2f}", points[-1].sample_ratio[1], HARM)] if points else []
        return chart(Chart(times, "Time, UTC", "Evidence, ln E", ratio, limits, time=True, total=total))
    if not any(of in point.metrics for point in points):
        raise NotFound(f"This release has no metric {of!r}.", "", f"See it: davy status {found.model}")
    return chart(_evidence(points, times, of, total))


def _evidence(points: Sequence[Point], times: list[float], metric: str, total: int) -> Chart:
    parts = [point.metrics.get(metric) for point in points]
    last = next(part for part in reversed(parts) if part is not None)
    lines = [Series("harm", [None if part is None else part[0] for part in parts], HARM),
             Series("harmlessness", [None if part is None else part[2] for part in parts], HARMLESS)]
    limits = [Limit(f"rolls back at {last[1]:.2f}", last[1], HARM), Limit(f"enough at {last[3]:.2f}", last[3], HARMLESS)]
    return Chart(times, "Time, UTC", "Evidence, ln E", lines, limits, time=True, total=total)


def thinned(points: list[Point], most: int) -> list[Point]:
    """At most about so many: evenly chosen ones, with the first, the last and all at which the state changed."""
    if len(points) <= most:
        return points
    stride = -(-len(points) // most)
    return [point for index, point in enumerate(points) if index % stride == 0 or index == len(points) - 1 or point.reasons]


def _moves(connection: Connection, found: Release, points: Sequence[Point]) -> list[dict[str, Any]]:
    """Every change of state, the first one first, with its entry in the journal: both are written in one transaction, so that they pair up in order."""
    logged = [entry for entry in reversed(entries(connection, subject=found.model, action="release.", limit=ENTRIES))
              if entry.details.get("release") == found.id]
    started = next((entry for entry in logged if entry.action == "release.started"), None)
    rest = [entry for entry in logged if entry.action != "release.started"]
    moved = [point for point in points if point.reasons]
    paired = rest if len(rest) == len(moved) else [None] * len(moved)
    rows: list[dict[str, Any]] = [{"time": found.created, "label": "asked for", "share": None, "requests": None, "actor": found.actor,
                                   "reasons": [_gate(started.details)] if started else [], "seq": started.seq if started else None}]
    rows += [{"time": point.time, "label": f"{point.label}, shadowed" if point.shadow else point.label, "share": point.share, "requests": point.requests,
              "reasons": list(point.reasons), "actor": entry.actor if entry else "", "seq": entry.seq if entry else None}
             for point, entry in zip(moved, paired, strict=True)]
    return rows


def _gate(details: dict[str, Any]) -> str:
    gate = details.get("gate")
    return f"The gate had refused it ({gate['refused']}); overridden: {gate['overridden']}" if gate else "The gate let it through."


def _left(points: Sequence[Point], needed: int | None) -> float | None:
    """Microseconds until so many more requests have come, at the pace since the last change of state; None where no pace is known."""
    if not needed or not points:
        return None
    begin = next((point for point in reversed(points[:-1]) if point.reasons), points[0])
    passed, came = points[-1].time - begin.time, sum(points[-1].requests) - sum(begin.requests)
    return needed * passed / came if came > 0 and passed > 0 else None
