"""Alerts: what fires, since when, by which rule, and whether somebody was told."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from davy.monitoring.alerts import FIRING, PENDING, RESOLVED, rules_of
from davy.monitoring.courier import deliveries_of
from davy.monitoring.summary import alert_states
from davy.web.render import page, to

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request
    from starlette.responses import Response

    from davy.config import AlertRule
    from davy.home import Home
    from davy.monitoring.summary import AlertState

_SUBJECT = re.compile(r"(?P<model>.+?)(?:@(?P<version>\d+))?(?: (?P<part>\S+))?", re.DOTALL)


def alerts(home: Home, request: Request) -> Response:
    """`/alerts`: firing, waiting and resolved ones, and the rules that there are."""
    rules, problems = rules_of(home)
    named = {rule.name: rule for rule in rules}
    sent = deliveries_of(home)
    rows: list[dict[str, Any]] = [{"alert": state, "link": evidence(state.subject), "rule": named.get(state.rule), "words": limit(named.get(state.rule)),
             "sent": sent.get((state.rule, state.subject))}
                                  for state in alert_states(home)]
    parts = {state: [row for row in rows if row["alert"].state == state] for state in (FIRING, PENDING, RESOLVED)}
    return page(request, "alerts.html", project=home.config.project, now=home.clock.now(), parts=parts,
                rules=[(rule, limit(rule)) for rule in rules], problems=problems)


def about(subject: str) -> tuple[str, int | None, str]:
    """What an alert speaks of: model, version, and the feature or stream.

    >>> about("late@2 dep_delay"), about("late")
    (('late', 2, 'dep_delay'), ('late', None, ''))
    """
    found = _SUBJECT.fullmatch(subject)
    if found is None:
        return subject, None, ""
    version = found["version"]
    return found["model"], None if version is None else int(version), found["part"] or ""


def evidence(subject: str) -> str:
    """The page that shows what the alert was raised on."""
    model, version, part = about(subject)
    if version is None:
        return to("models", model, "monitoring") + ("#replay" if part else "")
    return to("models", model, "monitoring", version=version, feature=part) + ("#drift" if part else "")


def limit(rule: AlertRule | None) -> str:
    """A rule for people."""
    if rule is None:
        return "no rule of this name any more"
    side, value = ("above", rule.above) if rule.above is not None else ("below", rule.below)
    held = f", held for {rule.held}" if rule.held != "0s" else ""
    return f"{rule.metric} {side} {value:g} over {rule.window}{held}"


def grouped(states: Iterable[AlertState]) -> list[dict[str, Any]]:
    """Firing alerts, those of one rule and version as one line, the newest first."""
    groups: dict[tuple[str, str], list[AlertState]] = {}
    for state in states:
        if state.state == FIRING:
            model, version, _ = about(state.subject)
            groups.setdefault((state.rule, model if version is None else f"{model}@{version}"), []).append(state)
    found = [{"rule": rule, "about": name, "link": evidence(name), "since": max(state.since for state in group), "parts": [about(s.subject)[2] for s in group],
              "text": group[0].text, "count": len(group)} for (rule, name), group in groups.items()]
    return sorted(found, key=lambda group: -int(str(group["since"])))
