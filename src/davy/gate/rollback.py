"""Rollback, rehearsed: weights go to the candidate and back while clients ask without a pause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from davy.gate.check import Check, Finding, failed, no_data, passed
from davy.serving.routes import WATCH_SECONDS

if TYPE_CHECKING:
    from davy.gate.candidate import Candidate

CLIENTS, STEP_SECONDS = 8, 0.25
SHOWN = 5


def rollback(candidate: Candidate) -> Finding:
    """All to stable, half, all to the candidate, all back, on the stand's own gateway; no request may fail, and none may be left behind."""
    stable = candidate.stable
    if stable is None:
        return no_data(f"There is nothing to roll back to: {candidate.alone}.")
    if _asked(candidate, stable) != _asked(candidate, candidate.version):
        return no_data(f"{stable.reference} takes other requests; see the check `signature`.")
    new, old = candidate.version.version, stable.version
    plan = [{old: 1.0}, {old: 0.5, new: 0.5}, {new: 1.0}, {old: 1.0}]
    bodies = [msgspec.json.encode(body) for body in candidate.requests]
    found = candidate.stand.rehearse(plan, bodies, clients=CLIENTS, seconds=STEP_SECONDS)
    before = [item for item in found.asked if item.ended < found.moments[1]]
    after = [item for item in found.asked if item.ended >= found.moments[1]]
    back = found.moments[-1]
    lost = [item for item in after if item.status != 200]
    left = [item for item in found.asked if item.began > back and item.version == new]
    last = max((item.ended for item in found.asked if item.version == new and item.ended >= back), default=back)
    took = (last - back) * 1000
    evidence: dict[str, Any] = {
        "stable": stable.reference, "plan": [{f"{candidate.model}@{version}": weight for version, weight in weights.items()} for weights in found.plan],
        "requests": len(found.asked), "by_candidate": sum(item.version == new for item in found.asked), "failed": len(lost), "back_ms": took,
        "weights_are_looked_at_every_ms": WATCH_SECONDS * 1000, "errors": [item.error for item in lost[:SHOWN]]}
    if any(item.status != 200 for item in before):
        return no_data(f"{stable.reference} itself does not answer the requests that the rehearsal sends.", **evidence)
    if lost:
        return failed(f"{len(lost)} of {len(found.asked):,} requests failed while weights moved: {lost[0].error}",
                      fix="No request may fail that stable would have answered.", **evidence)
    if left or not evidence["by_candidate"]:
        return failed(f"{len(left)} requests were answered by the candidate after the weights had gone back." if left
                      else "The candidate answered none of the requests that its weight gave it.", **evidence)
    return passed(f"All to {candidate.version.reference} and back to {stable.reference} under load: {len(found.asked):,} requests, none failed; the last "
                  f"answer of the candidate came {took:.1f} ms after the weights had gone back.", **evidence)


def _asked(candidate: Candidate, version: Any) -> dict[str, Any]:
    features = candidate.feature_set(version)
    return {field.name: field for field in (*features.entities, *features.request)}


CHECKS = (Check("rollback", "Traffic can go to it and back under load without losing a request", rollback),)
