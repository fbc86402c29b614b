"""The judge: counts what the prediction log and the KPIs say of a release, and turns the counts into findings.

It keeps counters for each share that was in force, and one bit for each key that has had a bad event: constant memory, whatever the
traffic. The same records in any order of gateways give the same findings, so that a controller that died starts from the log.

Because a routing key keeps its version, the requests of one key are no independent trials: of each key only the first bad event
counts (`unit = "key"`), which makes its arm a fresh coin of probability ρ.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

from davy.release.findings import Arm, Finding, Findings
from davy.release.kernels import NOT_WORSE, WORSE, Bets, log_labels, log_mean, log_pairs, log_rate, log_sample_ratio, rate_bounds
from davy.serving.predictions import ERROR, FALLBACK, TIMEOUT

if TYPE_CHECKING:
    from davy.config import Kpi
    from davy.release.policy import Policy
    from davy.serving.predictions import PredictionRecord

QUANTILES = (0.5, 0.9, 0.99, 0.999)
PROMOTED_AT = 1
BURN_IN = 200
SAMPLE_RATIO_ALPHA = 0.01
WINDOW_US, LEAST_WINDOWS = 250_000, 8
_BITS = 1 << 20
_LOWER = (0.75, 0.5, 0.25, 0.1, 0.02)
_HIGHER = (1.25, 1.5, 2.0, 3.0, 6.0, 15.0)


class Observation(msgspec.Struct, frozen=True):
    """A KPI of one prediction, as it becomes known. All but `metric` and `value` are those of the prediction's record.

    Attributes:
        value: for a KPI of events 1 (bad) or 0; for a mean the value.
    """

    metric: str
    release: str
    version: int
    share: float
    key: str
    logged: int
    value: float


class Past(msgspec.Struct, frozen=True):
    """What stable did before the release: requests, how many failed, and its latency's quantiles in microseconds (none when too few are known)."""

    requests: int = 0
    errors: int = 0
    thresholds: tuple[float, ...] = ()


class _Keys:
    """A set of keys in 128 KB. Two keys may share a bit; which ones does not depend on their arms, so it costs events and never validity."""

    def __init__(self) -> None:
        self._bits = bytearray(_BITS // 8)

    def add(self, key: str) -> bool:
        """Whether it is new."""
        number = crc32(key.encode()) % _BITS
        byte, bit = number >> 3, 1 << (number & 7)
        if self._bits[byte] & bit:
            return False
        self._bits[byte] |= bit
        return True

    def __contains__(self, key: str) -> bool:
        number = crc32(key.encode()) % _BITS
        return bool(self._bits[number >> 3] & 1 << (number & 7))


class _Events:
    """Bad events by share, and trials by arm. With `by_key`, only the first bad event of each key, and only trials before it."""

    def __init__(self, by_key: bool) -> None:
        self.bad = _Keys() if by_key else None
        self.steps: dict[float, list[int]] = {}
        self.trials, self.events = [0, 0], [0, 0]

    def trial(self, canary: bool, share: float, key: str, bad: bool) -> bool:
        """Count; whether it is an event that counts."""
        if self.bad is not None and key in self.bad:
            return False
        self.trials[canary] += 1
        if not bad:
            return False
        self.events[canary] += 1
        if self.bad is not None:
            self.bad.add(key)
        if not 0 < share < 1:
            return False
        step = self.steps.setdefault(share, [0, 0])
        step[0] += 1
        step[1] += canary
        return True

    def log_worse(self) -> float:
        return float(log_labels(self._sums(), WORSE))

    def log_fine(self, delta: float) -> float:
        return float(log_labels(self._sums(), NOT_WORSE, 1 + delta))

    def _sums(self) -> list[tuple[float, int, int]]:
        return [(share, events, canary) for share, (events, canary) in sorted(self.steps.items())]

    def arm(self, canary: bool) -> Arm:
        return Arm(self.events[canary], self.trials[canary])


class _Slow(_Events):
    """Answers above a threshold, tempered for those that come together.

    When a process stands still for a moment, all that it has before it is slow at once, with one label: no independent coins. So
    E^(1/φ) is taken, with φ the dispersion of labels between windows of a quarter of a second over that of coins, where it is larger than
    chance makes it; at least 1, with an allowance for how few windows there are. That never exceeds E where E says anything, so that all of
    E's promises hold for it.
    """

    def __init__(self, by_key: bool) -> None:
        super().__init__(by_key)
        self._window, self._share, self._now = -1, 0.0, [0, 0]
        self._squares: dict[float, list[int]] = {}

    def at(self, canary: bool, share: float, key: str, bad: bool, logged: int) -> None:
        """`trial`, at a time."""
        if not self.trial(canary, share, key, bad):
            return
        if logged // WINDOW_US != self._window or share != self._share:
            self._fold(self._squares)
            self._window, self._share, self._now = logged // WINDOW_US, share, [0, 0]
        self._now[0] += 1
        self._now[1] += canary

    def log_worse(self) -> float:
        return super().log_worse() / self.dispersion()

    def log_fine(self, delta: float) -> float:
        return super().log_fine(delta) / self.dispersion()

    def dispersion(self) -> float:
        """φ; infinite while there are too few windows to tell."""
        squares = {share: list(sums) for share, sums in self._squares.items()}
        self._fold(squares)
        windows = sum(sums[0] for sums in squares.values())
        if windows < LEAST_WINDOWS:
            return math.inf
        found = expected = 0.0
        for share, (_, of_all, crossed, of_canary) in squares.items():
            events, canary = self.steps[share]
            part = canary / events
            found += of_canary - 2 * part * crossed + part * part * of_all
            expected += events * part * (1 - part)
        allowance = 1 + math.sqrt(2 / windows)
        return found / expected * allowance if expected and found > expected * allowance else 1.0

    def _fold(self, squares: dict[float, list[int]]) -> None:
        """Add the window that is being filled."""
        events, canary = self._now
        if events:
            sums = squares.setdefault(self._share, [0, 0, 0, 0])
            for index, part in enumerate((1, events * events, events * canary, canary * canary)):
                sums[index] += part


class Judge:
    """The evidence of one release.

    Args:
        release: its id; records of another one are passed over.
        past: stable's, fixed before the release began.
        since: microseconds; what was logged before is passed over.
    """

    def __init__(self, policy: Policy, release: str, candidate: int, past: Past, since: int = 0) -> None:
        self._policy, self._release, self._candidate, self._past, self._since = policy, release, candidate, past, since
        self._by_key = by_key = policy.unit == "key"
        self._errors = _Events(by_key)
        self._latency = tuple(_Slow(by_key) for _ in QUANTILES)
        self._thresholds = past.thresholds
        self._early: list[int] = []
        self._means = {name: _Mean(kpi, by_key) for name, kpi in policy.kpis.items() if kpi.kind == "mean"}
        self._kpis = {name: _Events(by_key) for name, kpi in policy.kpis.items() if kpi.kind == "event"}
        self._units, self._split = _Keys(), dict[float, list[int]]()
        self._requests = [0, 0]
        self._pairs = [0, 0]
        self._failed: dict[str, bool] = {}
        self.shadowed = self._shadow_errors = self._paired_errors = 0
        self._share = 0.0

    def add(self, record: PredictionRecord) -> None:
        """One line of the prediction log. Pinned requests and answers given for another version say nothing of a version's own traffic."""
        if record.release != self._release or record.pinned or record.status == FALLBACK or record.logged < self._since:
            return
        failed = record.status == ERROR or record.status == TIMEOUT
        if record.arm == "shadow":
            self._add_shadow(record, failed)
            return
        canary = record.version == self._candidate
        share = self._share = round(record.share if canary else 1 - record.share, 12)
        key = record.routing_key
        self._requests[canary] += 1
        if 0 < share < 1 and (not self._by_key or self._units.add(key)):
            step = self._split.setdefault(share, [0, 0])
            step[0] += 1
            step[1] += canary
        self._errors.trial(canary, share, key, failed)
        if failed:
            self._failed_by_stable(record, canary)
        elif self._thresholds:
            taken = record.features + record.model_time - (self._policy.latency_slack if canary else 0)
            for threshold, events in zip(self._thresholds, self._latency, strict=True):
                events.at(canary, share, key, taken > threshold, record.logged)
        elif not canary:
            self._burn_in(record.features + record.model_time)

    def observe(self, observation: Observation) -> None:
        """One KPI of one prediction. KPIs that the policy doesn't name are passed over."""
        if observation.release != self._release or observation.logged < self._since:
            return
        canary = observation.version == self._candidate
        share = round(observation.share if canary else 1 - observation.share, 12)
        events, mean = self._kpis.get(observation.metric), self._means.get(observation.metric)
        if events is not None:
            events.trial(canary, share, observation.key, observation.value > 0)
        elif mean is not None:
            mean.add(canary, share, observation.key, observation.value)

    def findings(self, *, paired: bool = False, alone: bool = False) -> Findings:
        """All metrics as they stand now.

        Args:
            paired: from the shadow's pairs.
            alone: the canary has all traffic, and is held against stable's past.
        """
        count = 2 + len(self._kpis) + len(self._means)
        limit, enough = math.log(count / self._policy.alpha), math.log(1 / self._policy.beta)
        if paired:
            metrics = [self._shadow_finding(limit, enough)]
        elif alone:
            metrics = [self._alone("errors", self._errors, self._past.errors, self._past.requests, limit, enough)]
            if self._past.thresholds:
                at = self._past.requests
                parts = [self._alone("latency", events, round((1 - quantile) * at), at, limit, enough)
                         for quantile, events in zip(QUANTILES, self._latency, strict=True)]
                metrics.append(msgspec.structs.replace(parts[PROMOTED_AT], worse=log_mean([part.worse for part in parts])))
        else:
            metrics = [self._finding("errors", self._errors, limit, enough), self._latency_finding(limit, enough)]
            metrics += [self._finding(name, events, limit, enough) for name, events in self._kpis.items()]
            metrics += [mean.finding(name, limit, enough) for name, mean in self._means.items()]
        ratio = float(log_sample_ratio((share, units, canary) for share, (units, canary) in sorted(self._split.items())))
        return Findings(tuple(metrics), self._requests[0], self._requests[1], self.shadowed, ratio, math.log(1 / SAMPLE_RATIO_ALPHA), paired)

    def _finding(self, metric: str, events: _Events, limit: float, enough: float) -> Finding:
        fine, needed = self._harmless(metric, events, enough)
        return Finding(metric, events.log_worse(), limit, fine, enough, events.arm(False), events.arm(True), needed)

    def _latency_finding(self, limit: float, enough: float) -> Finding:
        """Harm at any threshold, as the mean of their e-values; harmlessness at one."""
        worse = [events.log_worse() for events in self._latency]
        detail = {f"p{quantile * 100:g}": round(found, 3) for quantile, found in zip(QUANTILES, worse, strict=True)}
        found = self._finding("latency", self._latency[PROMOTED_AT], limit, enough)
        return msgspec.structs.replace(found, worse=float(log_mean(worse)), detail=detail)

    def _harmless(self, metric: str, events: _Events, enough: float) -> tuple[float, int | None]:
        """(ln E that the rate is below 1 + delta times stable's or below what is tolerated, requests until that is enough)."""
        delta, tolerated = self._policy.delta_of(metric), self._policy.tolerated_of(metric)
        fine, needed = events.log_fine(delta), _labels_needed(events, self._share, delta, enough)
        if tolerated > 0:
            bad, total = events.events[1], events.trials[1]
            rate = float(log_rate(bad, total - bad, tolerated, [tolerated * part for part in _LOWER]))
            fine = float(log_mean([fine, rate]))
            needed = _smaller(needed, _rate_needed(bad, total, tolerated, rate, enough + math.log(2), self._share))
        return fine, 0 if fine >= enough else needed

    def _alone(self, metric: str, events: _Events, bad: int, total: int, limit: float, enough: float) -> Finding:
        """Against bounds of stable's past rate: half of each error budget is the bound's, so both limits rise by ln 2."""
        low, high = rate_bounds(bad, total, math.exp(-limit) / 2)
        tolerated, delta = self._policy.tolerated_of(metric), self._policy.delta_of(metric)
        most = min(max(high, tolerated), 0.99)
        allowed = min(max(low * (1 + delta), tolerated), 0.99)
        seen, trials = events.events[1], events.trials[1]
        worse = float(log_rate(seen, trials - seen, most, [min(most * ratio, (1 + most) / 2) for ratio in _HIGHER])) - math.log(2)
        fine = float(log_rate(seen, trials - seen, allowed, [allowed * part for part in _LOWER])) - math.log(2) if allowed > 0 else 0.0
        needed = _rate_needed(seen, trials, allowed, fine, enough, 1.0) if allowed > 0 else None
        return Finding(metric, worse, limit, fine, enough, Arm(bad, total), Arm(seen, trials), needed)

    def _shadow_finding(self, limit: float, enough: float) -> Finding:
        only_shadow, only_stable = self._pairs
        ratios = tuple((ratio / (1 + self._policy.delta_of("errors")), weight) for ratio, weight in NOT_WORSE)
        return Finding("errors", float(log_pairs(only_shadow, only_stable)), limit, float(log_pairs(only_shadow, only_stable, ratios)), enough,
                       Arm(self._paired_errors, self.shadowed), Arm(self._shadow_errors, self.shadowed))

    def _failed_by_stable(self, record: PredictionRecord, canary: bool) -> None:
        """Remember for the pair; the shadow's record comes soon after."""
        if not canary:
            self._failed[record.id] = True
            if len(self._failed) > 10_000:
                del self._failed[next(iter(self._failed))]

    def _add_shadow(self, record: PredictionRecord, failed: bool) -> None:
        other = self._failed.pop(record.answered, False)
        self.shadowed += 1
        self._shadow_errors += failed
        self._paired_errors += other
        if failed != other:
            self._pairs[other] += 1

    def _burn_in(self, taken: int) -> None:
        """Without a past, the first answers of stable fix the thresholds; counting begins after them."""
        self._early.append(taken)
        if len(self._early) >= BURN_IN:
            self._thresholds, self._early = thresholds(self._early), []


class _Mean:
    """A KPI whose mean counts, by bets. With `by_key`, the first value of each key."""

    def __init__(self, kpi: Kpi, by_key: bool) -> None:
        self._kpi, self._seen = kpi, _Keys() if by_key else None
        lower = kpi.better == "lower"
        self._worse = Bets(kpi.cap, higher=lower)
        self._fine = Bets(kpi.cap, higher=not lower, times=1 + kpi.delta if lower else 1 - kpi.delta)
        self._sums, self._counts = [0.0, 0.0], [0, 0]

    def add(self, canary: bool, share: float, key: str, value: float) -> None:
        if not 0 < share < 1 or (self._seen is not None and not self._seen.add(key)):
            return
        value = max(value, 0.0)
        self._sums[canary] += value
        self._counts[canary] += 1
        self._worse.add(value, canary, share)
        self._fine.add(value, canary, share)

    def finding(self, name: str, limit: float, enough: float) -> Finding:
        fine, count = self._fine.log_e, sum(self._counts)
        needed = math.ceil((enough - fine) * count / fine) if fine > 0 else None
        return Finding(name, self._worse.log_e, limit, fine, enough, Arm(self._sums[0], self._counts[0]), Arm(self._sums[1], self._counts[1]), needed)


def thresholds(latencies: list[int]) -> tuple[float, ...]:
    """The latencies above which an answer of stable's is among its slowest half, tenth, hundredth and thousandth."""
    ordered = sorted(latencies)
    return tuple(float(ordered[min(len(ordered) - 1, math.ceil(quantile * len(ordered)))]) for quantile in QUANTILES)


def _labels_needed(events: _Events, share: float, delta: float, enough: float) -> int | None:
    """Requests until the label test shows harmlessness, if both versions are equally good."""
    trials, bad, missing = sum(events.trials), sum(events.events), enough - events.log_fine(delta)
    if missing <= 0:
        return 0
    if not 0 < share < 1 or not bad:
        return None
    if isinstance(events, _Slow) and math.isfinite(events.dispersion()):
        missing *= events.dispersion()
    under, relative = (1 + delta) * share / ((1 + delta) * share + 1 - share), 1 / (1 + delta)
    growth = share * math.log(relative) - math.log(under * relative + 1 - under)
    return math.ceil(missing / (growth * bad / trials))


def _rate_needed(bad: int, total: int, null: float, log_e: float, enough: float, share: float) -> int | None:
    """Requests until a rate is shown to be below `null`, if it stays as it is."""
    if log_e >= enough:
        return 0
    rate = bad / total if total else 0.0
    growth = max(rate * math.log(part) + (1 - rate) * math.log((1 - part * null) / (1 - null)) for part in _LOWER)
    return math.ceil((enough - log_e) / growth / share) if growth > 0 and share > 0 else None


def _smaller(one: int | None, other: int | None) -> int | None:
    return min((part for part in (one, other) if part is not None), default=None)
