"""What a release is promised to be judged by: davy.toml's [release], checked, and kept with the release as it was when it began."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import msgspec

from davy.config import Kpi
from davy.core.time import parse_duration
from davy.errors import ConfigError, InvalidInput
from davy.registry.reference import check_alias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from davy.config import Release

Strategy = Literal["canary", "blue-green", "shadow", "all-at-once"]
STRATEGIES: tuple[Strategy, ...] = ("canary", "blue-green", "shadow", "all-at-once")
DELTAS = {"errors": 1.0, "latency": 0.5}
TOLERATED = {"errors": 0.005, "latency": 0.1}
_STEPS = "Steps are percentages above 0 and up to 100, rising, such as 1,5,25,50,100."


class Policy(msgspec.Struct, frozen=True):
    """One release's rules. Shares are fractions, times microseconds.

    Attributes:
        steps: the canary's share at each step, all below 1; after the last one comes promotion.
        alpha: with what probability a version that is as good as stable may be rolled back, over all metrics and looks.
        beta: with what probability a bad one may be promoted: one whose rate, on some metric, is 1 + delta times stable's and above `tolerated`.
        latency_slack: microseconds that the canary may take longer without it being harm: a process with less to do is a little slower.
        unit: `key` when a routing key comes again and again, `request` when each request has its own.
        min_time, min_requests: what each step lasts at least; the requests are the canary's (or the shadow's).
        max_time, deadline: what each step, and the whole, lasts at most; then `at_deadline`.
        approval: whether promotion waits for `davy promote`.
        alias: what a promotion lets mean the version, and taking it back the one before; empty: none.
    """

    strategy: Strategy = "canary"
    steps: tuple[float, ...] = (0.01, 0.05, 0.25, 0.5)
    alpha: float = 0.05
    beta: float = 0.05
    unit: Literal["key", "request"] = "key"
    delta: dict[str, float] = {}
    tolerated: dict[str, float] = {}
    latency_slack: int = 1_000
    min_time: int = 60_000_000
    min_requests: int = 100
    max_time: int = 86_400_000_000
    deadline: int = 7 * 86_400_000_000
    at_deadline: Literal["pause", "rollback", "promote"] = "pause"
    approval: bool = False
    kpis: dict[str, Kpi] = {}
    alias: str = ""

    def delta_of(self, metric: str) -> float:
        """By what part a metric's rate may be higher than stable's without being bad."""
        kpi = self.kpis.get(metric)
        return self.delta.get(metric, kpi.delta if kpi else DELTAS.get(metric, 0.2))

    def tolerated_of(self, metric: str) -> float:
        """The rate below which a metric is not bad, whatever stable's is."""
        kpi = self.kpis.get(metric)
        return self.tolerated.get(metric, kpi.tolerated if kpi else TOLERATED.get(metric, 0.0))

    @classmethod
    def of(cls, settings: Release, *, strategy: Strategy | None = None, steps: Sequence[float] | None = None) -> Policy:
        """The settings, with what the command line says instead.

        Raises:
            ConfigError, InvalidInput: a value out of its range; names it.
        """
        for name in ("alpha", "beta"):
            _need(0 < getattr(settings, name) < 1, f"release.{name}", getattr(settings, name), "It is a probability above 0 and below 1.")
        _need(settings.min_requests >= 0, "release.min_requests", settings.min_requests, "It is a count.")
        if settings.alias:
            check_alias(settings.alias)
        for metric, delta in settings.delta.items():
            _need(math.isfinite(delta) and delta > 0, f"release.delta.{metric}", delta, "It is above 0: 0.2 lets the rate be 20 % higher than stable's.")
        for metric, rate in settings.tolerated.items():
            _need(0 <= rate < 1, f"release.tolerated.{metric}", rate, "It is a rate from 0 to below 1.")
        for name, kpi in settings.kpis.items():
            _need(name not in DELTAS, f"release.kpis.{name}", "set", "The names errors and latency are taken.")
            _need(math.isfinite(kpi.cap) and kpi.cap > 0, f"release.kpis.{name}.cap", kpi.cap, "It is above 0.")
            _need(kpi.delta > 0 and (kpi.better == "lower" or kpi.delta < 1), f"release.kpis.{name}.delta", kpi.delta, "It is above 0, and below 1 for a mean.")
            _need(0 <= kpi.tolerated < 1, f"release.kpis.{name}.tolerated", kpi.tolerated, "It is a rate from 0 to below 1.")
        times = {name: parse_duration(getattr(settings, name)) for name in ("latency_slack", "min_time", "max_time", "deadline")}
        _need(times["min_time"] <= times["max_time"] <= times["deadline"], "release.max_time", settings.max_time, "min_time <= max_time <= deadline.")
        chosen = strategy or settings.strategy
        shares = _shares(steps or settings.steps) if chosen in ("canary", "shadow") else ()
        return cls(chosen, shares, settings.alpha, settings.beta, settings.unit, dict(settings.delta), dict(settings.tolerated), times["latency_slack"],
                   times["min_time"], settings.min_requests, times["max_time"], times["deadline"], settings.at_deadline, settings.approval, dict(settings.kpis),
                   settings.alias)


def _need(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ConfigError(f"{name} is {value!r} in davy.toml.", allowed, "Mend it, then try again.")


def _shares(steps: Sequence[float]) -> tuple[float, ...]:
    """Percentages as shares, without the 100 % that is promotion."""
    inside = all(math.isfinite(step) and 0 < step <= 100 for step in steps)
    if not steps or not inside or list(steps) != sorted(set(steps)):
        raise InvalidInput(f"{', '.join(f'{step:g}' for step in steps) or 'nothing'} are no steps.", _STEPS, "Write for example --steps 1,5,25,50,100")
    found = tuple(round(step / 100, 12) for step in steps if step < 100)
    if not found:
        raise InvalidInput("A canary whose only step is 100 % compares nothing.", _STEPS, "Use --strategy blue-green or all-at-once for that.")
    return found
