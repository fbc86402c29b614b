"""What came of a demo, as JSON and as lines to read."""

from __future__ import annotations

import shlex
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHOWN = 12


@dataclass
class Report:
    """Figures of one demo.

    Attributes:
        phases: seconds by part.
        held_out_auc, live_auc: per version, on late April's flights and on May's answers.
        answered: per version, how many of the answers have an outcome.
        late_events: events that arrived later than their feed promises.
        us_per_request: p50 and p99 over rounds of concurrent requests, of a round's time over its size; one request alone takes longer.
        lateness: what events that arrived later would have changed, as replay reports it.
        lineage: the last prediction, walked back.
    """

    folder: Path
    address: str = ""
    wall_s: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    history: int = 0
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
    lineage: list[str] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Take the time of a part."""
        began = time.perf_counter()
        yield
        self.phases[name] = self.phases.get(name, 0.0) + time.perf_counter() - began

    def to_json(self) -> dict[str, Any]:
        """The figures, rounded; `wall_s, requests, failed, replayed, different, late_events` come first."""
        return {
            "wall_s": round(self.wall_s, 2), "requests": self.requests, "failed": self.failed, "replayed": self.replayed, "different": self.different,
            "late_events": self.late_events, "retried": self.retried, "events": self.events, "duplicates": self.duplicates, "outcomes": self.outcomes,
            "history": self.history, "held_out_auc": _rounded(self.held_out_auc), "live_auc": _rounded(self.live_auc), "answered": self.answered,
            "us_per_request": _rounded(self.us_per_request, 0), "phases": _rounded(self.phases, 2), "lateness": self.lateness.get("streams", {}),
            "prediction": self.prediction,
            "address": self.address}

    def lines(self) -> list[str]:
        """The summary for a person."""
        live = [f"  {version}: AUC {self.live_auc[version]:.3f} on {self.answered[version]:,} flights of May (held out in April: "
                f"{self.held_out_auc.get(version, float('nan')):.3f})" for version in sorted(self.live_auc)]
        verdict = "all equal, bit for bit" if not self.different else f"{self.different:,} DIFFERENT"
        return [
            f"A month of flights in {self.wall_s:.0f} s: {', '.join(f'{name} {seconds:.0f}' for name, seconds in self.phases.items())}.",
            *live,
            (f"  requests: {self.requests:,}, failed: {self.failed}, retried: {self.retried}; a round's time over its size "
             f"p50 {self.us_per_request.get('p50', 0) / 1000:.2f} ms, p99 {self.us_per_request.get('p99', 0) / 1000:.2f} ms"),
            f"  events: {self.events:,} taken, {self.duplicates} came twice and were taken once, {self.late_events:,} came late; {self.outcomes:,} outcomes",
            f"  vectors recomputed as of (t, W): {self.replayed:,}, {verdict}",
            *_lateness(self.lateness, self.replayed),
            "", f"One prediction, walked back: davy why {self.prediction} --project {shlex.quote(str(self.folder))}",
            *(f"  {line}" for line in _shortened(self.lineage))]


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


def _span(micros: float) -> str:
    minutes = micros / 60e6
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
