"""What came of a demo, as JSON and as lines to read."""

from __future__ import annotations

import shlex
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from davy.core.time import format_time

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from davy.monitoring.summary import DriftAlarm
    from davy.release.releases import Release

SHOWN = 12
MOST_DRIFTS = 5


@dataclass
class Report:
    """Figures of one demo.

    Attributes:
        phases: seconds by part; a part inside another does not count for both.
        kinds: per version how it was trained.
        gate: per version the verdict of each check; `refused` are those that the gate let nobody release.
        releases: per version how its release stands: state, requests that it took, how many of them the version answered, reasons.
        kpi: per version what an answer cost, in dollars.
        held_out_auc, live_auc: per version, on late April's flights and on the answers of May and June; not of a handful of them.
        answered: per version, how many of the answers have an outcome.
        late_events: events that arrived later than their feed promises.
        us_per_request: p50 and p99 over rounds of concurrent requests, of a round's time over its size; one request alone takes longer.
        last_asked: microseconds; when the last prediction was asked for.
        alarms: features that drifted, since when, and whether the labels show harm.
        lateness: what events that arrived later would have changed, as replay reports it.
        lineage: the last prediction, walked back.
    """

    folder: Path
    address: str = ""
    wall_s: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    history: int = 0
    kinds: dict[str, str] = field(default_factory=dict)
    gate: dict[str, dict[str, str]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    releases: dict[str, dict[str, Any]] = field(default_factory=dict)
    kpi: dict[str, float] = field(default_factory=dict)
    held_out_auc: dict[str, float] = field(default_factory=dict)
    live_auc: dict[str, float] = field(default_factory=dict)
    answered: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    failed: int = 0
    retried: int = 0
    events: int = 0
    late_events: int = 0
    duplicates: int = 0
    outcomes: int = 0
    us_per_request: dict[str, float] = field(default_factory=dict)
    replayed: int = 0
    different: int = 0
    lateness: dict[str, Any] = field(default_factory=dict)
    prediction: str = ""
    last_asked: int = 0
    alarms: list[DriftAlarm] = field(default_factory=list)
    lineage: list[str] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Take the time of a part, less that of the parts inside it."""
        began, before = time.perf_counter(), sum(self.phases.values())
        yield
        inside = sum(self.phases.values()) - before
        self.phases[name] = self.phases.get(name, 0.0) + time.perf_counter() - began - inside

    def release(self, found: Release) -> None:
        """Note how a release stands."""
        requests = found.findings.stable + found.findings.canary
        self.releases[found.reference] = {"state": found.state.phase, "requests": requests, "canary": found.findings.canary,
                                          "reasons": list(found.state.reasons)}

    def ended(self, state: str) -> dict[str, Any] | None:
        """The last release that ended so and had a stable version beside it: its version, and how many requests it took."""
        found = [{"version": reference, "requests": release["requests"]} for reference, release in self.releases.items()
                 if release["state"] == state and release["requests"]]
        return found[-1] if found else None

    def to_json(self) -> dict[str, Any]:
        """The figures, rounded; `wall_s, requests, failed, replayed, different, late_events, promoted, rolled_back, kpi` come first."""
        return {
            "wall_s": round(self.wall_s, 2), "requests": self.requests, "failed": self.failed, "replayed": self.replayed, "different": self.different,
            "late_events": self.late_events, "promoted": self.ended("promoted"), "rolled_back": self.ended("rolled back"),
            "kpi": _rounded(self.kpi, 2), "refused": self.refused, "gate": self.gate, "releases": self.releases,
            "retried": self.retried, "events": self.events, "duplicates": self.duplicates, "outcomes": self.outcomes,
            "history": self.history, "held_out_auc": _rounded(self.held_out_auc), "live_auc": _rounded(self.live_auc), "answered": self.answered,
            "us_per_request": _rounded(self.us_per_request, 0), "phases": _rounded(self.phases, 2), "lateness": self.lateness.get("streams", {}),
            "drift": [{"version": alarm.version, "feature": alarm.feature, "began": format_time(alarm.began), "harm": alarm.harm.verdict}
                      for alarm in self.alarms],
            "prediction": self.prediction,
            "address": self.address}

    def lines(self) -> list[str]:
        """The summary for a person."""
        versions = [line for version in sorted(self.kinds) for line in self._version(version)]
        verdict = "all equal, bit for bit" if not self.different else f"{self.different:,} DIFFERENT"
        return [
            f"Flights of May and June in {self.wall_s:.0f} s: {', '.join(f'{name} {seconds:.0f}' for name, seconds in self.phases.items())}.",
            *versions,
            (f"  requests: {self.requests:,}, failed: {self.failed}, retried: {self.retried}; a round's time over its size "
             f"p50 {self.us_per_request.get('p50', 0) / 1000:.2f} ms, p99 {self.us_per_request.get('p99', 0) / 1000:.2f} ms"),
            f"  events: {self.events:,} taken, {self.duplicates} came twice and were taken once, {self.late_events:,} came late; {self.outcomes:,} outcomes",
            f"  vectors recomputed as of (t, W): {self.replayed:,}, {verdict}",
            *_lateness(self.lateness, self.replayed),
            *_drifts(self.alarms),
            "", f"One prediction, walked back: davy why {self.prediction} --project {shlex.quote(str(self.folder))}",
            *(f"  {line}" for line in _shortened(self.lineage))]

    def _version(self, version: str) -> list[str]:
        """What became of a version: its release and why, then how well it answered."""
        release = self.releases.get(version)
        if version in self.refused:
            failed = [check for check, verdict in self.gate[version].items() if verdict == "fail"]
            return [f"  {version}, {self.kinds[version]}: never had traffic; it failed {', '.join(failed)}"]
        if release is None:
            return [f"  {version}, {self.kinds[version]}: not released"]
        count = f" after {release['requests']:,} requests, {release['canary']:,} of them its own" if release["requests"] else ""
        lines = [f"  {version}, {self.kinds[version]}: {release['state']}{count}", *(f"    {reason}" for reason in release["reasons"])]
        if version in self.live_auc:
            cost = f", {self.kpi[version]:.2f} USD an answer" if version in self.kpi else ""
            lines.append(f"    AUC {self.live_auc[version]:.3f} on {self.answered[version]:,} flights{cost} (held out in April: "
                         f"{self.held_out_auc[version]:.3f})")
        return lines


def _rounded(values: dict[str, float], digits: int = 4) -> dict[str, float]:
    return {name: round(value, digits) for name, value in values.items()}


def _shortened(lines: list[str]) -> list[str]:
    """The first lines and the last, without the middle of the vector."""
    return lines if len(lines) <= SHOWN else [*lines[:SHOWN - 5], f"│  … {len(lines) - SHOWN:,} more values", *lines[-5:]]


def _lateness(found: dict[str, Any], vectors: int) -> list[str]:
    """How late events came, and the feature that it would have changed most."""
    lines = [f"  {name} arrived {_span(told['p50_us'])} after it happened (p99 {_span(told['p99_us'])}, at most {_span(told['max_us'])})"
             for name, told in sorted(found.get("streams", {}).items()) if "p50_us" in told]
    features: dict[str, dict[str, Any]] = found.get("features", {})
    if features:
        name, told = max(features.items(), key=lambda item: item[1]["changed"])
        lines.append(f"  had every event been known at once, {name} would be another in {told['changed']:,} of {vectors:,} vectors")
    return lines


def _drifts(alarms: list[DriftAlarm]) -> list[str]:
    """The features that drifted under the version that serves, the first to do so first."""
    serving = max((alarm.version for alarm in alarms), default=0)
    own = sorted((alarm for alarm in alarms if alarm.version == serving and alarm.cleared is None), key=lambda alarm: alarm.began)
    return [f"  {alarm.feature} drifts since {format_time(alarm.began)[:10]}: {alarm.harm.verdict}" for alarm in own[:MOST_DRIFTS]]


def _span(micros: float) -> str:
    minutes = micros / 60e6
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
