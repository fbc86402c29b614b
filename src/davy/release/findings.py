"""What the judge has found: for each metric the evidence of harm and of harmlessness beside its limits, and what is still needed."""

from __future__ import annotations

from typing import Literal

import msgspec

from davy.core.digest import canonical_json

Verdict = Literal["worse", "fine", "not enough data"]


class Arm(msgspec.Struct, frozen=True):
    """Counts of one arm: bad requests (or the sum of a KPI's values) of how many."""

    bad: float = 0
    total: int = 0


class Finding(msgspec.Struct, frozen=True):
    """One metric. E-values are natural logarithms: `worse` is evidence that the canary does harm, `fine` that it does none that matters.

    Attributes:
        needed: requests that are still needed, at the present share, until `fine` reaches its limit if both versions are equally good;
            None when no number of them would do.
        detail: for latency, ln E at each threshold.
    """

    metric: str
    worse: float
    worse_limit: float
    fine: float
    fine_limit: float
    stable: Arm
    canary: Arm
    needed: int | None = None
    detail: dict[str, float] = {}

    @property
    def verdict(self) -> Verdict:
        """Evidence that isn't there is neither pass nor fail."""
        if self.worse >= self.worse_limit:
            return "worse"
        return "fine" if self.fine >= self.fine_limit else "not enough data"


class Findings(msgspec.Struct, frozen=True):
    """Everything at one moment.

    Attributes:
        stable, canary, shadow: requests that each was asked.
        sample_ratio: ln E that the versions do not get their share, which makes all other evidence worthless; `sample_ratio_limit` beside it.
        paired: the metrics' evidence comes from a shadow.
    """

    metrics: tuple[Finding, ...] = ()
    stable: int = 0
    canary: int = 0
    shadow: int = 0
    sample_ratio: float = 0.0
    sample_ratio_limit: float = 1.0
    paired: bool = False

    @property
    def asked(self) -> int:
        """All requests."""
        return self.stable + self.canary + self.shadow

    @property
    def worse(self) -> tuple[str, ...]:
        """The metrics on which the canary does harm."""
        return tuple(finding.metric for finding in self.metrics if finding.verdict == "worse")

    @property
    def fine(self) -> bool:
        """Whether no harm that matters is shown on every metric."""
        return bool(self.metrics) and all(finding.verdict == "fine" for finding in self.metrics)

    @property
    def quiet(self) -> bool:
        """Whether no metric leans towards harm: none has come a third of the way to its limit."""
        return all(finding.worse < finding.worse_limit / 3 for finding in self.metrics)

    @property
    def split_is_wrong(self) -> bool:
        """Whether the versions do not get the share that they were given."""
        return self.sample_ratio >= self.sample_ratio_limit

    @property
    def needed(self) -> int | None:
        """Requests until all metrics would be fine; None when no number would do."""
        parts = [finding.needed for finding in self.metrics if finding.verdict != "fine"]
        return None if any(part is None for part in parts) else max((part for part in parts if part is not None), default=0)

    def summary(self) -> dict[str, object]:
        """Compact and JSON-able, for the journal: counts, and each metric's evidence rounded to hundredths."""
        metrics = {finding.metric: {"worse": round(finding.worse, 2), "worse_limit": round(finding.worse_limit, 2), "fine": round(finding.fine, 2),
                                    "fine_limit": round(finding.fine_limit, 2), "stable": [finding.stable.bad, finding.stable.total],
                                    "canary": [finding.canary.bad, finding.canary.total], "verdict": finding.verdict} for finding in self.metrics}
        return {"requests": {"stable": self.stable, "canary": self.canary, "shadow": self.shadow}, "metrics": metrics,
                "sample_ratio": round(self.sample_ratio, 2), "sample_ratio_limit": round(self.sample_ratio_limit, 2)}


def encode(value: msgspec.Struct) -> str:
    """As it is kept in the database."""
    return canonical_json(msgspec.to_builtins(value)).decode()
