"""What is live and how its releases stand, JSON-able."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from davy.release.releases import read_releases
from davy.serving.assignment import arms
from davy.serving.traffic import read_traffic

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from davy.release.findings import Finding
    from davy.release.releases import Release


def live(connection: Connection, model: str | None = None) -> list[dict[str, Any]]:
    """One row for each version with traffic, and for each shadow."""
    rows = []
    for found in read_traffic(connection, model):
        named = arms(found.versions, found.stable)
        rows += [{"model": found.model, "version": version, "arm": named[version], "weight": weight, "since": found.updated, "by": found.actor,
                  "release": found.release or None} for version, weight in sorted(found.versions.items())]
        if found.shadow is not None:
            rows.append({"model": found.model, "version": found.shadow, "arm": "shadow", "weight": 0.0, "since": found.updated, "by": found.actor,
                         "release": found.release or None})
    return rows


def told(release: Release) -> dict[str, Any]:
    """A release with its evidence beside its limits, and what it waits for. E-values are natural logarithms."""
    state, findings = release.state, release.findings
    return {"release": release.id, "model": release.model, "version": release.version, "stable": release.stable, "strategy": release.policy.strategy,
            "state": state.label, "step": state.step + 1 if state.phase == "step" else None, "steps": [*release.policy.steps, 1.0],
            "weights": release.weights, "created": release.created, "updated": release.updated, "ended": release.ended, "by": release.actor,
            "reasons": list(state.reasons), "requests": {"stable": findings.stable, "canary": findings.canary, "shadow": findings.shadow},
            "metrics": [_metric(found) for found in findings.metrics],
            "sample_ratio": {"ln_e": round(findings.sample_ratio, 3), "limit": round(findings.sample_ratio_limit, 3)},
            "needed_requests": None if state.ended or not findings.metrics else findings.needed}


def behind(connection: Connection, model: str, version: int, release: str, logged: int) -> dict[str, Any] | None:
    """The release that a prediction was part of, or else the one that had brought its version there; `during` says which."""
    for found in read_releases(connection, model, limit=10_000):
        during = found.id == release
        if during or (not release and found.version == version and found.ended is not None and found.ended <= logged):
            return {"during": during, **told(found)}
    return None


def releases(connection: Connection, model: str | None = None, *, ended: int = 3) -> list[dict[str, Any]]:
    """Those on their way, and of each model the last few that have ended."""
    found, counts = [], dict[str, int]()
    for release in read_releases(connection, model):
        if release.ended is not None:
            counts[release.model] = counts.get(release.model, 0) + 1
            if counts[release.model] > ended:
                continue
        found.append(told(release))
    return found


def _metric(found: Finding) -> dict[str, Any]:
    return {"metric": found.metric, "verdict": found.verdict, "harm": {"ln_e": round(found.worse, 3), "limit": round(found.worse_limit, 3)},
            "harmless": {"ln_e": round(found.fine, 3), "limit": round(found.fine_limit, 3)},
            "stable": {"bad": found.stable.bad, "of": found.stable.total}, "canary": {"bad": found.canary.bad, "of": found.canary.total},
            "needed_requests": found.needed, "detail": found.detail}
