"""What is known of a model, in one record: what the status, the pages and the alerts speak of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from davy.core.time import parse_duration
from davy.monitoring.cohorts import mature_until, stored_cohorts
from davy.monitoring.collect import Collector
from davy.monitoring.drift import ColumnDrift, drift
from davy.monitoring.performance import Cohort
from davy.monitoring.profiles import Profile, by_version, latest, read_profiles
from davy.schema.tables import alerts, monitor_alarms, monitor_replays

if TYPE_CHECKING:
    from davy.home import Home
    from davy.project import ModelDefinition

FEWEST_LABELS, MOST_ALARMS = 100, 1000
MATURE_SPAN, LOOKED_BACK = 30 * 86_400_000_000, 60 * 86_400_000_000
FINE = 6 * 3_600_000_000
Hours = list[tuple[int, str, int, Cohort]]


class Traffic(msgspec.Struct, frozen=True):
    """What one version answered on one arm within the window. Latencies are milliseconds, of the whole answer."""

    version: int
    arm: str
    requests: int
    per_second: float
    errors: float
    timeouts: float
    fallbacks: float
    p50_ms: float | None
    p99_ms: float | None
    features_p50_ms: float | None
    model_p50_ms: float | None
    mean_prediction: float | None


class KpiState(msgspec.Struct, frozen=True):
    """A KPI of a version over its mature hours: per prediction, with the standard error of that, and in all."""

    name: str
    unit: str
    count: int
    mean: float
    error: float | None
    total: float
    failed: int


class Performance(msgspec.Struct, frozen=True):
    """A version over its mature hours of the last thirty days.

    Attributes:
        until: hours before this moment are mature.
        coverage: the share of mature answers whose outcome is known; `young` answers are not judged yet.
        lag_p50_s, lag_p95_s: seconds from a prediction until its outcome arrived.
    """

    version: int
    until: int
    predictions: int
    labelled: int
    coverage: float | None
    corrected: int
    young: int
    lag_p50_s: float | None
    lag_p95_s: float | None
    metrics: dict[str, float]
    kpis: list[KpiState]


class Harm(msgspec.Struct, frozen=True):
    """Whether labels show that a drift did harm: the metric before it began and since."""

    verdict: str
    metric: str | None = None
    before: float | None = None
    since: float | None = None
    labels_before: int = 0
    labels_since: int = 0


class DriftAlarm(msgspec.Struct, frozen=True):
    """A column that has moved: since when, and what the labels say of it. Times are microseconds; `cleared` is None while it lasts."""

    version: int
    feature: str
    began: int
    raised: int
    cleared: int | None
    bet: str
    harm: Harm


class VersionDrift(msgspec.Struct, frozen=True):
    """The window's distributions of a version against its training set.

    What matters most to the predictions comes first: PSI times the share of the feature in `importance`, where the model tells it.
    """

    version: int
    rows: int
    columns: list[ColumnDrift]
    importance: dict[str, float]


class ReplayState(msgspec.Struct, frozen=True):
    """The last scheduled replay: vectors checked and equal, and the lateness of the streams behind them."""

    start: int
    until: int
    checked: int
    equal: int
    lateness: dict[str, Any]


class AlertState(msgspec.Struct, frozen=True):
    """A rule that fires, or did."""

    rule: str
    subject: str
    state: str
    since: int
    value: float | None
    text: str


class Summary(msgspec.Struct, frozen=True):
    """All of it. `until` is the time of the last counted prediction (microseconds), and the window ends there."""

    model: str
    until: int | None
    window_s: float
    traffic: list[Traffic]
    drift: list[VersionDrift]
    alarms: list[DriftAlarm]
    performance: list[Performance]
    replay: ReplayState | None
    alerts: list[AlertState]


def summary(home: Home, model: str, *, definition: ModelDefinition | None = None, collector: Collector | None = None,
            window: int | None = None, hours: Hours | None = None) -> Summary:
    """What is known of a model.

    Args:
        definition: the model as the project declares it; without it, maturity and the units of KPIs are not known.
        window: microseconds of traffic and drift (default: `monitoring.window`).
        hours: what `recent_hours` gives, for who asks several times.
    """
    span = window or parse_duration(home.config.monitoring.window)
    until = latest(home, model)
    start = None if until is None else until - span
    profiles = {} if start is None else read_profiles(home, model, start=start)
    recent = profiles if span > FINE or start is None else read_profiles(home, model, start=start, fine=True)
    flow = [_traffic(version, arm, profile, span) for (version, arm), profile in sorted(recent.items())]
    tolerance = home.config.monitoring.drift_tolerance
    known = collector or Collector(home)
    moved = [_moved(known, model, version, profile, tolerance) for version, profile in by_version(profiles).items() if profile.columns]
    hours = recent_hours(home, model) if hours is None else hours
    return Summary(model, until, span / 1e6, flow, moved, drift_alarms(home, model, hours, definition), _performance(home, hours, definition),
                   last_replay(home, model), alert_states(home, model))


def recent_hours(home: Home, model: str) -> Hours:
    """The stored cohorts of the last sixty days: those that are judged, and what drift is compared with."""
    return stored_cohorts(home, model, start=home.clock.now() - LOOKED_BACK)


def drift_alarms(home: Home, model: str, hours: Hours, definition: ModelDefinition | None = None, *,
                 open_only: bool = False) -> list[DriftAlarm]:
    """The alarms of a model, the newest first, each with what labels say."""
    query = sa.select(monitor_alarms).where(monitor_alarms.c.model == model).order_by(monitor_alarms.c.raised.desc()).limit(MOST_ALARMS)
    if open_only:
        query = query.where(monitor_alarms.c.cleared.is_(None))
    with home.database.read() as connection:
        rows = connection.execute(query).all()
    mature = None if definition is None else mature_until(definition, home.clock.now())
    found = []
    for row in rows:
        bet = msgspec.json.decode(row.evidence).get("bet", "")
        found.append(DriftAlarm(row.version, row.feature, row.began, row.raised, row.cleared, bet, _harm(hours, row.version, row.began, row.cleared, mature)))
    return found


def _harm(hours: Hours, version: int, began: int, cleared: int | None, mature: int | None) -> Harm:
    before, since = Cohort(), Cohort()
    for number, _, start, cohort in hours:
        if number == version and (mature is None or start < mature):
            if start < began:
                before = before + cohort
            elif cleared is None or start < cleared:
                since = since + cohort
    if min(before.judged, since.judged) < FEWEST_LABELS:
        return Harm("not enough labels yet", labels_before=before.judged, labels_since=since.judged)
    old, new = before.metrics(), since.metrics()
    metric = next(name for name in ("auc", "logloss", "accuracy", "mae") if name in old and name in new)
    worse = (old[metric] - new[metric]) if metric in ("auc", "accuracy") else (new[metric] - old[metric])
    margin = _margin(metric, before, since)
    verdict = "labels show harm" if worse > margin else "labels show no harm"
    return Harm(verdict, metric, old[metric], new[metric], before.judged, since.judged)


def _margin(metric: str, before: Cohort, since: Cohort) -> float:
    """Two standard errors of the difference, or for unbounded losses a tenth of what it was."""
    if metric == "auc":
        return float(2 * (auc_variance(before) + auc_variance(since)) ** 0.5)
    if metric == "accuracy":
        shares = [(cohort.correct / cohort.judged, cohort.judged) for cohort in (before, since)]
        return float(2 * sum(share * (1 - share) / count for share, count in shares) ** 0.5)
    return 0.1 * before.metrics()[metric]


def auc_variance(cohort: Cohort) -> float:
    """Hanley and McNeil's, Radiology 143 (1982)."""
    area, ups, downs = cohort.metrics()["auc"], int(cohort.ups.sum()), int(cohort.downs.sum())
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    return (area * (1 - area) + (ups - 1) * (first - area**2) + (downs - 1) * (second - area**2)) / (ups * downs)


def _moved(known: Collector, model: str, version: int, profile: Profile, tolerance: float) -> VersionDrift:
    importance = known.importance(model, version)
    columns = drift(known.reference(model, version), profile.columns, tolerance=tolerance, span=max(profile.last - profile.first, 1))
    columns.sort(key=lambda column: -(column.psi or 0.0) * (importance.get(column.feature, 0.0) if importance else 1.0))
    return VersionDrift(version, profile.rows, columns, importance)


def _traffic(version: int, arm: str, profile: Profile, span: int) -> Traffic:
    def ms(value: float | None) -> float | None:
        return None if value is None else value / 1000

    return Traffic(version, arm, profile.rows, profile.rows / (span / 1e6), profile.share("error") or 0.0, profile.share("timeout") or 0.0,
                   profile.share("fallback") or 0.0, ms(profile.latency.quantile(0.5)), ms(profile.latency.quantile(0.99)), ms(profile.features.quantile(0.5)),
                   ms(profile.model.quantile(0.5)), profile.output.mean)


def _performance(home: Home, hours: Hours, definition: ModelDefinition | None) -> list[Performance]:
    now = home.clock.now()
    until = mature_until(definition, now) if definition is not None else now
    units = {kpi.name: kpi.unit for kpi in definition.kpis} if definition is not None else {}
    total: dict[int, tuple[Cohort, int]] = {}
    for version, _, start, cohort in hours:
        mature, young = total.get(version, (Cohort(), 0))
        if start >= until:
            young += cohort.predictions
        elif start >= until - MATURE_SPAN:
            mature = mature + cohort
        total[version] = mature, young
    return [_judged(version, until, mature, young, units) for version, (mature, young) in sorted(total.items())]


def _judged(version: int, until: int, cohort: Cohort, young: int, units: dict[str, str]) -> Performance:
    def seconds(share: float) -> float | None:
        lag = cohort.lag.quantile(share)
        return None if lag is None else lag / 1e6

    kpis = [KpiState(name, units.get(name, ""), found.count, found.mean or 0.0, found.error, found.total, found.failed)
            for name, found in cohort.kpis.items() if found.count or found.failed]
    return Performance(version, until, cohort.predictions, cohort.labelled, cohort.coverage, cohort.corrected, young, seconds(0.5), seconds(0.95),
                       cohort.metrics(), kpis)


def last_replay(home: Home, model: str) -> ReplayState | None:
    """What the last scheduled replay found."""
    query = sa.select(monitor_replays).where(monitor_replays.c.model == model).order_by(monitor_replays.c.until.desc()).limit(1)
    with home.database.read() as connection:
        row = connection.execute(query).first()
    if row is None:
        return None
    return ReplayState(row.start, row.until, row.checked, row.equal, msgspec.json.decode(row.details).get("lateness", {}))


def alert_states(home: Home, model: str | None = None) -> list[AlertState]:
    """The state of every rule and what it is about, firing ones first, of one model or of all."""
    with home.database.read() as connection:
        rows = connection.execute(sa.select(alerts).order_by(alerts.c.state, alerts.c.since.desc(), alerts.c.rule, alerts.c.subject)).all()
    return [AlertState(row.rule, row.subject, row.state, row.since, row.value, msgspec.json.decode(row.details).get("text", ""))
            for row in rows if model is None or row.subject.partition("@")[0] == model]
