"""How a live version is, in words with the numbers behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from davy.monitoring.alerts import FIRING
from davy.monitoring.profiles import by_version, read_profiles
from davy.web.alerts import about

if TYPE_CHECKING:
    from davy.home import Home
    from davy.monitoring.summary import DriftAlarm, KpiState, Performance, Summary

HARM = "labels show harm"
FAILING, FEWEST = 0.01, 3


class Health(msgspec.Struct, frozen=True):
    """One version. Shares are fractions, latencies microseconds, and None is what is not known.

    Attributes:
        words, tone: the short answer, and whether it is `good`, `wait` or `bad`.
        requests: what errors and latencies are of; drift, too, was looked for in these.
        drifting: the columns that have moved; `harm` is what labels say of the worst of them.
        mature, coverage: answers whose outcomes are due; the share of them that is known.
    """

    words: str
    tone: str
    requests: int
    failures: float | None
    p50: float | None
    p99: float | None
    last: int | None
    drifting: tuple[str, ...]
    harm: str
    firing: int
    mature: int
    coverage: float | None
    kpis: tuple[KpiState, ...]


def health(home: Home, found: Summary) -> dict[int, Health]:
    """Every version of a model that has answered within the window, was judged, or is alerted of."""
    span = int(found.window_s * 1e6)
    profiles = {} if found.until is None else by_version(read_profiles(home, found.model, start=found.until - span))
    judged = {item.version: item for item in found.performance}
    return {version: _of(version, found, profiles.get(version), judged.get(version)) for version in {*profiles, *judged}}


def unknown() -> Health:
    """Of a version that has not been counted yet."""
    return Health("No answer yet", "wait", 0, None, None, None, None, (), "", 0, 0, None, ())


def _of(version: int, found: Summary, profile: Any, judged: Performance | None) -> Health:
    alarms = [alarm for alarm in found.alarms if alarm.version == version and alarm.cleared is None]
    firing = [alert for alert in found.alerts if alert.state == FIRING and about(alert.subject)[:2] in ((found.model, version), (found.model, None))]
    harm = worst(alarms)
    others = sorted({alert.rule for alert in firing if not _of_drift(alert.subject, alarms)})
    failed = 0 if profile is None else profile.statuses.get("error", 0) + profile.statuses.get("timeout", 0)
    words, tone = in_words(others, harm, len(alarms), failed, profile.rows if profile is not None else 0)
    if profile is None:
        return msgspec.structs.replace(unknown(), words=words, tone=tone, drifting=tuple(alarm.feature for alarm in alarms), harm=harm, firing=len(firing),
                                       mature=judged.predictions if judged else 0, coverage=judged.coverage if judged else None,
                                       kpis=tuple(judged.kpis) if judged else ())
    return Health(words, tone, profile.rows, profile.share("error", "timeout"), profile.latency.quantile(0.5), profile.latency.quantile(0.99), profile.last,
                  tuple(alarm.feature for alarm in alarms), harm, len(firing), judged.predictions if judged else 0, judged.coverage if judged else None,
                  tuple(judged.kpis) if judged else ())


def worst(alarms: list[DriftAlarm]) -> str:
    """What labels say of open alarms: harm if they show it for one."""
    verdicts = {alarm.harm.verdict for alarm in alarms}
    return next((verdict for verdict in (HARM, "not enough labels yet", "labels show no harm") if verdict in verdicts), "")


def _of_drift(subject: str, alarms: list[DriftAlarm]) -> bool:
    return any(about(subject)[2] == alarm.feature for alarm in alarms)


def in_words(rules: list[str], harm: str, moved: int, failed: int, requests: int) -> tuple[str, str]:
    """The short answer and its tone, the worst first.

    Args:
        rules: what fires, but for drift.
        harm: what labels say of the worst drift; `moved` is how many columns have.
    """
    if rules:
        return f"Not well: {', '.join(rules)}", "bad"
    if harm == HARM:
        return "Drift does harm", "bad"
    if failed >= FEWEST and failed >= FAILING * requests:
        return "Requests fail", "bad"
    if not requests:
        return "Silent", "wait"
    return ("Inputs have moved", "wait") if moved else ("Well", "good")
