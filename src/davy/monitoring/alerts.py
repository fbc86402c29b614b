"""Alerts: rules over numbers of monitoring, each with a state of its own per version, and one message for each change of state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from davy.config import AlertRule
from davy.core.clock import SystemClock, new_id
from davy.core.time import format_time, parse_duration
from davy.errors import ConfigError, nearest
from davy.monitoring.summary import Summary, recent_hours, summary
from davy.schema.tables import alert_deliveries, alerts
from davy.store.database import insert

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from davy.home import Home
    from davy.monitoring.collect import Collector
    from davy.project import ModelDefinition

BUILT_IN = (
    AlertRule("drift", "drift", above=0),
    AlertRule("skew", "skew", above=0),
    AlertRule("errors", "failure_rate", above=0.05, window="10min"),
)
TRAFFIC = ("error_rate", "timeout_rate", "fallback_rate", "failure_rate", "latency_p50_ms", "latency_p99_ms", "requests_per_second")
JUDGED = ("auc", "logloss", "accuracy", "positive_rate", "mean_prediction", "mae", "bias", "coverage")
FOUND = ("drift", "skew", "psi", "late_events")
FIRING, RESOLVED, PENDING = "firing", "resolved", "pending"


class Reading(msgspec.Struct, frozen=True):
    """A metric of one subject, such as `late@2`, with what to say of it."""

    subject: str
    value: float
    text: str = ""


class Message(msgspec.Struct, frozen=True):
    """What a webhook is sent. `id` is the same in every attempt."""

    id: str
    alert: str
    state: str
    subject: str
    metric: str
    value: float
    limit: float
    since: str
    text: str
    page: str


def check_rule(rule: AlertRule) -> None:
    """Refuse a metric that does not exist.

    Raises:
        ConfigError: names the nearest.
    """
    known = (*TRAFFIC, *JUDGED, *FOUND)
    if rule.metric not in known and not (rule.metric.startswith("kpi.") and len(rule.metric) > 4):
        raise ConfigError(f"The alert {rule.name!r} is about {rule.metric!r}.", f"Metrics are {', '.join(known)} and kpi.NAME; {nearest(rule.metric, known)}",
                          "Correct metric in davy.toml.")


def rules_of(home: Home) -> tuple[list[AlertRule], list[ConfigError]]:
    """The rules in force: built-in ones, unless davy.toml has one of the same name; and what is wrong with those that aren't."""
    rules, problems = {rule.name: rule for rule in BUILT_IN}, list[ConfigError]()
    for rule in home.config.alerts:
        try:
            check_rule(rule)
        except ConfigError as error:
            problems.append(error)
            continue
        rules[rule.name] = rule
    return list(rules.values()), problems


def evaluate(home: Home, model: str, *, definition: ModelDefinition | None = None, collector: Collector | None = None,
             rules: Sequence[AlertRule] | None = None) -> list[Message]:
    """Look at every rule for a model, change states, and leave a message for each change to be sent. Returns the messages."""
    chosen = [rule for rule in (rules if rules is not None else rules_of(home)[0]) if rule.model in ("", model)]
    seen: dict[int, Summary] = {}
    hours, messages = recent_hours(home, model), []
    for rule in chosen:
        span = parse_duration(rule.window)
        if span not in seen:
            seen[span] = summary(home, model, definition=definition, collector=collector, window=span, hours=hours)
        messages += _follow(home, rule, model, readings(rule.metric, seen[span]))
    return messages


def readings(metric: str, found: Summary) -> list[Reading]:
    """A metric of every version that has it."""
    if metric in TRAFFIC:
        return _of_traffic(metric, found)
    if metric == "drift":
        return [Reading(f"{found.model}@{alarm.version} {alarm.feature}", 1.0, f"{alarm.feature} has moved since {format_time(alarm.began)[:16]}Z "
                        f"({alarm.bet}); {alarm.harm.verdict}") for alarm in found.alarms if alarm.cleared is None]
    if metric == "psi":
        return [Reading(f"{found.model}@{moved.version} {column.feature}", column.psi) for moved in found.drift for column in moved.columns
                if column.psi is not None and column.verdict != "not enough data"]
    if metric == "skew":
        replay = found.replay
        return [] if replay is None else [Reading(found.model, float(replay.checked - replay.equal),
                                                  f"{replay.checked - replay.equal} of {replay.checked} replayed vectors differ from what was served")]
    if metric == "late_events":
        streams = found.replay.lateness.get("streams", {}) if found.replay is not None else {}
        return [Reading(f"{found.model} {name}", told["late"] / told["events"]) for name, told in streams.items() if told.get("events")]
    return _of_labels(metric, found)


def _of_traffic(metric: str, found: Summary) -> list[Reading]:
    total: dict[int, list[float]] = {}
    numbers = {"error_rate": "errors", "timeout_rate": "timeouts", "fallback_rate": "fallbacks", "latency_p50_ms": "p50_ms", "latency_p99_ms": "p99_ms",
               "requests_per_second": "per_second"}
    for flow in found.traffic:
        value = flow.errors + flow.timeouts if metric == "failure_rate" else getattr(flow, numbers[metric])
        if value is not None:
            total.setdefault(flow.version, []).append(value if metric == "requests_per_second" else value * flow.requests)
    if metric == "requests_per_second":
        return [Reading(f"{found.model}@{version}", sum(values)) for version, values in total.items()]
    requests = {version: sum(flow.requests for flow in found.traffic if flow.version == version) for version in total}
    return [Reading(f"{found.model}@{version}", sum(values) / max(requests[version], 1)) for version, values in total.items()]


def _of_labels(metric: str, found: Summary) -> list[Reading]:
    result = []
    for judged in found.performance:
        name = f"{found.model}@{judged.version}"
        if metric == "coverage" and judged.coverage is not None:
            result.append(Reading(name, judged.coverage))
        elif metric in judged.metrics:
            result.append(Reading(name, judged.metrics[metric]))
        result += [Reading(name, kpi.mean) for kpi in judged.kpis if metric == f"kpi.{kpi.name}" and kpi.count]
    return result


def _follow(home: Home, rule: AlertRule, model: str, found: Iterable[Reading]) -> list[Message]:
    """One rule's states. What is not measured any more keeps its state, but drift that has gone is resolved."""
    now, messages = home.clock.now(), list[Message]()
    current = {reading.subject: reading for reading in found}
    with home.database.begin() as connection:
        rows = connection.execute(sa.select(alerts).where(alerts.c.rule == rule.name)).all()
        stored = {row.subject: row for row in rows if row.subject.replace("@", " ").split(" ")[0] == model}
        if rule.metric == "drift":
            current |= {subject: Reading(subject, 0.0, "no drift is seen any more") for subject in stored if subject not in current}
        for subject, reading in current.items():
            message = _step(connection, rule, reading, stored.get(subject), now)
            if message is not None:
                messages.append(message)
                _post(connection, rule, message)
    return messages


def _step(connection: sa.Connection, rule: AlertRule, reading: Reading, stored: sa.Row | None, now: int) -> Message | None:  # type: ignore[type-arg]
    over = reading.value > rule.above if rule.above is not None else reading.value < rule.below if rule.below is not None else False
    before = stored.state if stored is not None else RESOLVED
    if not over and stored is None:
        return None
    since = stored.since if stored is not None and before != RESOLVED else now
    since = min(since, now)  # a clock that was set back must not hold an alert up
    if over:
        state = FIRING if before == FIRING or now - since >= parse_duration(rule.held) else PENDING
    else:
        state = RESOLVED
        if before == PENDING:
            connection.execute(sa.delete(alerts).where(alerts.c.rule == rule.name, alerts.c.subject == reading.subject))
            return None
    changed = now if state != before else stored.changed if stored is not None else now
    since = changed if state == RESOLVED and before == FIRING else stored.since if state == RESOLVED and stored is not None else since
    text = reading.text or _sentence(rule, reading)
    row = {"rule": rule.name, "subject": reading.subject, "state": state, "since": since, "changed": changed, "value": reading.value,
           "details": msgspec.json.encode({"text": text, "metric": rule.metric}).decode()}
    statement = insert(connection, alerts).values(row)
    columns = {name: statement.excluded[name] for name in ("state", "since", "changed", "value", "details")}
    connection.execute(statement.on_conflict_do_update(index_elements=["rule", "subject"], set_=columns))
    if state in (before, PENDING):
        return None
    limit = rule.above if rule.above is not None else rule.below
    assert limit is not None
    model = reading.subject.replace("@", " ").split(" ")[0]
    return Message(new_id(SystemClock()), rule.name, state, reading.subject, rule.metric, reading.value, limit, format_time(since), text, f"/models/{model}")


def _sentence(rule: AlertRule, reading: Reading) -> str:
    side, limit = ("above", rule.above) if rule.above is not None else ("below", rule.below)
    return f"{rule.metric} of {reading.subject} is {reading.value:.6g}; the alert is for {side} {limit:g}"


def _post(connection: sa.Connection, rule: AlertRule, message: Message) -> None:
    if not rule.webhook:
        return
    plain = msgspec.to_builtins(message)
    body = plain if rule.format == "json" else {"text": f"[{message.state}] {message.alert}: {message.subject}. {message.text} ({message.page})"}
    row = {"id": message.id, "rule": message.alert, "subject": message.subject, "url": rule.webhook, "body": msgspec.json.encode(body).decode(),
           "attempts": 0, "due": SystemClock().now(), "ended": None, "problem": None}
    connection.execute(sa.insert(alert_deliveries).values(row))
