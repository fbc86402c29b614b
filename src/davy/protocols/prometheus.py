"""Prometheus's text format: what monitoring has counted, written by the process that watches and read from a file by the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from davy.home import Home
    from davy.monitoring.monitor import Monitor
    from davy.monitoring.summary import Summary

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FILE = "metrics.prom"
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
Sample = tuple[str, "Mapping[str, object]", float]

HELP = {
    "davy_predictions_total": ("counter", "Predictions in the log, by how they ended."),
    "davy_prediction_latency_seconds": ("histogram", "Time to answer."),
    "davy_drift_alarm": ("gauge", "1 while a feature has moved away from the training set."),
    "davy_drift_psi": ("gauge", "Population stability index of a feature over the window, against the training set."),
    "davy_replay_checked": ("gauge", "Vectors of the last replay."),
    "davy_replay_different": ("gauge", "Vectors of the last replay that were not what was served."),
    "davy_label_coverage": ("gauge", "Share of mature predictions whose outcome is known."),
    "davy_performance": ("gauge", "Metrics over mature predictions."),
    "davy_kpi_mean": ("gauge", "A KPI per mature prediction."),
    "davy_kpi_total": ("gauge", "A KPI over the mature predictions of thirty days."),
    "davy_alert_firing": ("gauge", "1 while an alert fires."),
}


def route(home: Home) -> Route:
    """GET /metrics."""
    path = home.place("run", FILE)

    def metrics(request: Request) -> Response:
        try:
            return PlainTextResponse(path.read_bytes(), media_type=CONTENT_TYPE)
        except FileNotFoundError:
            return PlainTextResponse(b"", media_type=CONTENT_TYPE)

    return Route("/metrics", metrics, name="metrics")


def write_metrics(home: Home, monitor: Monitor) -> None:
    """Leave the text where the gateway finds it; a reader sees the old or the new one."""
    path = home.place("run", FILE)
    scratch = path.with_suffix(".new")
    scratch.write_text(exposition(home, monitor))
    scratch.rename(path)


def exposition(home: Home, monitor: Monitor) -> str:
    """All metrics of all models."""
    from davy.monitoring.summary import alert_states, summary

    found: list[Sample] = []
    for model in monitor.models():
        found += _counted(home, model)
        found += _judged(summary(home, model, definition=monitor.definition(model), collector=monitor.collector))
    found += [("davy_alert_firing", {"alert": state.rule, "subject": state.subject}, 1.0) for state in alert_states(home) if state.state == "firing"]
    return render(found)


def render(samples: Iterable[Sample]) -> str:
    """Samples as text, each family under its own head.

    >>> print(render([("davy_alert_firing", {"alert": "slow", "subject": "late@2"}, 1.0)]), end="")
    # HELP davy_alert_firing 1 while an alert fires.
    # TYPE davy_alert_firing gauge
    davy_alert_firing{alert="slow",subject="late@2"} 1
    """
    families: dict[str, list[str]] = {name: [] for name in HELP}
    for name, labels, value in samples:
        family = next(known for known in (name, name.rpartition("_")[0]) if known in HELP)
        told = ",".join(f'{key}="{_escaped(str(label))}"' for key, label in labels.items())
        families[family].append(f"{name}{{{told}}} {value:.10g}")
    lines = []
    for family, members in families.items():
        if members:
            kind, text = HELP[family]
            lines += [f"# HELP {family} {text}", f"# TYPE {family} {kind}", *members]
    return "\n".join(lines) + "\n" if lines else ""


def _counted(home: Home, model: str) -> Iterator[Sample]:
    from davy.monitoring.profiles import ALL_TIME, merged, slices

    for (version, arm), profile in sorted(merged(slices(home, model, span=ALL_TIME)).items()):
        labels = {"model": model, "version": version, "arm": arm}
        for status, count in sorted(profile.statuses.items()):
            yield "davy_predictions_total", {**labels, "status": status}, float(count)
        name, count = "davy_prediction_latency_seconds", profile.latency.count
        for bound in BUCKETS:
            yield f"{name}_bucket", {**labels, "le": f"{bound:g}"}, float(count - profile.latency.above(bound * 1e6))
        yield f"{name}_bucket", {**labels, "le": "+Inf"}, float(count)
        yield f"{name}_sum", labels, profile.latency.total / 1e6
        yield f"{name}_count", labels, float(count)


def _judged(found: Summary) -> Iterator[Sample]:
    for alarm in found.alarms:
        if alarm.cleared is None:
            yield "davy_drift_alarm", {"model": found.model, "version": alarm.version, "feature": alarm.feature}, 1.0
    for moved in found.drift:
        for column in moved.columns:
            if column.psi is not None:
                yield "davy_drift_psi", {"model": found.model, "version": moved.version, "feature": column.feature}, column.psi
    if found.replay is not None:
        yield "davy_replay_checked", {"model": found.model}, float(found.replay.checked)
        yield "davy_replay_different", {"model": found.model}, float(found.replay.checked - found.replay.equal)
    for judged in found.performance:
        labels = {"model": found.model, "version": judged.version}
        if judged.coverage is not None:
            yield "davy_label_coverage", labels, judged.coverage
        for metric, value in judged.metrics.items():
            yield "davy_performance", {**labels, "metric": metric}, value
        for kpi in judged.kpis:
            yield "davy_kpi_mean", {**labels, "kpi": kpi.name, "unit": kpi.unit}, kpi.mean
            yield "davy_kpi_total", {**labels, "kpi": kpi.name, "unit": kpi.unit}, kpi.total


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
