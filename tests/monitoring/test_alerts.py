"""Alerts: one message for each change of state, each delivered, whatever the webhooks do."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import sqlalchemy as sa

from databases import write_settings
from davy.config import AlertRule, Config
from davy.errors import ConfigError
from davy.monitoring.alerts import BUILT_IN, check_rule, evaluate, rules_of
from davy.monitoring.courier import Courier
from davy.monitoring.monitor import Monitor
from davy.monitoring.summary import alert_states, summary
from davy.schema.tables import alert_deliveries, monitor_alarms
from events_kit import HOUR, NOON
from monitoring_kit import DAY, MINUTE, NAME, Served, vectors
from server_kit import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Webhook:
    """A web server that keeps what it is sent, refuses the first `refuse` requests, and holds those below /hang."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.refuse, self.release = 0, threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.path == "/hang":
                    outer.release.wait(30)
                    return
                if self.path == "/drip":
                    while not outer.release.wait(0.05):
                        self.wfile.write(b"H")
                        self.wfile.flush()
                    return
                outer.ids.append(self.headers["davy-delivery"])
                status = 200
                if outer.refuse:
                    outer.refuse, status = outer.refuse - 1, 503
                else:
                    outer.got.append(msgspec.json.decode(body))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """A client that went away is what these tests are about."""

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def url(self, path: str = "/ok") -> str:
        return f"http://127.0.0.1:{self.server.server_port}{path}"

    def close(self) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    opened = Served(tmp_path, training_rows=2000)
    yield opened
    opened.close()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    opened = Webhook()
    yield opened
    opened.close()


def failing(served: Served, start: int, share: float) -> None:
    served.serve(vectors(100, 1, start=start, pace=MINUTE // 20), version=1)
    failed = int(share * 100)
    if failed:
        served.serve(vectors(failed, 2, start=start, pace=MINUTE // 20), status="error", outputs=[None] * failed)
    served.home.clock.set(start + 5 * MINUTE)  # type: ignore[attr-defined]
    served.collect()


def rule(hook: Webhook, **changes: Any) -> AlertRule:
    given: dict[str, Any] = {"name": "failures", "metric": "failure_rate", "above": 0.1, "window": "10min", "webhook": hook.url()}
    return AlertRule(**{**given, **changes})


def test_firing_and_resolved_once_each(served: Served, webhook: Webhook) -> None:
    courier, watched = Courier(served.home), [rule(webhook)]
    failing(served, NOON, 0.0)
    assert evaluate(served.home, NAME, rules=watched) == []
    failing(served, NOON + HOUR, 0.4)
    assert [message.state for message in evaluate(served.home, NAME, rules=watched)] == ["firing"]
    for _ in range(3):
        assert evaluate(served.home, NAME, rules=watched) == [], "it fires already"
        courier.send()
        courier.wait()
    failing(served, NOON + 2 * HOUR, 0.0)
    assert [message.state for message in evaluate(served.home, NAME, rules=watched)] == ["resolved"]
    for _ in range(3):
        evaluate(served.home, NAME, rules=watched)
        courier.send()
        courier.wait()
    assert [(item["state"], item["alert"]) for item in webhook.got] == [("firing", "failures"), ("resolved", "failures")]
    assert {item["subject"] for item in webhook.got} == {f"{NAME}@1"}
    assert webhook.got[0]["value"] == pytest.approx(40 / 140)
    assert "above 0.1" in webhook.got[0]["text"]
    (state,) = alert_states(served.home, NAME)
    assert (state.state, state.rule) == ("resolved", "failures")


def test_for_waits_until_it_has_lasted(served: Served, webhook: Webhook) -> None:
    watched = [rule(webhook, held="30min", window="4h")]
    failing(served, NOON, 0.4)
    assert evaluate(served.home, NAME, rules=watched) == []
    assert alert_states(served.home)[0].state == "pending"
    failing(served, NOON + 20 * MINUTE, 0.4)
    assert evaluate(served.home, NAME, rules=watched) == []
    failing(served, NOON + 40 * MINUTE, 0.4)
    assert [message.state for message in evaluate(served.home, NAME, rules=watched)] == ["firing"]


def test_what_passes_before_its_time_was_never_an_alert(served: Served, webhook: Webhook) -> None:
    watched = [rule(webhook, held="30min")]
    failing(served, NOON, 0.4)
    evaluate(served.home, NAME, rules=watched)
    failing(served, NOON + HOUR, 0.0)
    assert evaluate(served.home, NAME, rules=watched) == []
    assert alert_states(served.home) == []


def test_a_webhook_that_refuses_is_tried_again_in_order(served: Served, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("davy.monitoring.courier.FIRST_PAUSE", 1000)
    watched, webhook.refuse = [rule(webhook)], 2
    failing(served, NOON, 0.4)
    evaluate(served.home, NAME, rules=watched)
    failing(served, NOON + HOUR, 0.0)
    evaluate(served.home, NAME, rules=watched)
    courier = Courier(served.home)

    def delivered() -> bool:
        courier.send()
        return len(webhook.got) == 2

    until(delivered)
    courier.wait()
    assert [item["state"] for item in webhook.got] == ["firing", "resolved"]
    assert len(set(webhook.ids[:3])) == 1, "the same delivery, three times"
    with served.home.database.read() as connection:
        rows = connection.execute(sa.select(alert_deliveries).order_by(alert_deliveries.c.id)).all()
    assert [(row.attempts, row.ended is not None, row.problem) for row in rows] == [(3, True, None), (1, True, None)]
    assert courier.send() == 0


@pytest.mark.parametrize("path", ["/hang", "/drip"])
def test_a_webhook_that_hangs_holds_nothing_up(served: Served, webhook: Webhook, path: str) -> None:
    failing(served, NOON, 0.4)
    evaluate(served.home, NAME, rules=[rule(webhook, name="a", webhook=webhook.url(path)), rule(webhook, name="b")])
    courier = Courier(served.home, patience=2)
    began = time.monotonic()
    assert courier.send() == 2
    took = time.monotonic() - began
    until(lambda: webhook.got)
    assert took < 2
    assert [item["alert"] for item in webhook.got] == ["b"]
    courier.wait()
    with served.home.database.read() as connection:
        row = connection.execute(sa.select(alert_deliveries).where(alert_deliveries.c.rule == "a")).one()
    assert (row.attempts, row.ended) == (1, None)
    assert row.problem == "no answer within 2 s"


def test_nobody_listens(served: Served, webhook: Webhook) -> None:
    failing(served, NOON, 0.4)
    evaluate(served.home, NAME, rules=[rule(webhook, webhook="http://127.0.0.1:1/none")])
    courier = Courier(served.home)
    courier.send()
    courier.wait()
    with served.home.database.read() as connection:
        row = connection.execute(sa.select(alert_deliveries)).one()
    assert "ConnectionRefusedError" in row.problem


def test_slack_gets_its_own_shape(served: Served, webhook: Webhook) -> None:
    failing(served, NOON, 0.4)
    evaluate(served.home, NAME, rules=[rule(webhook, format="slack")])
    courier = Courier(served.home)
    courier.send()
    courier.wait()
    assert list(webhook.got[0]) == ["text"]
    assert webhook.got[0]["text"].startswith("[firing] failures: fraud@1.")


def test_drift_fires_by_itself_and_is_resolved_when_it_has_gone(served: Served) -> None:
    monitor = Monitor(served.home)
    served.serve(vectors(600, 4, shift=1.0, pace=2 * MINUTE))
    monitor.collector.collect()
    monitor.judge(NAME)
    (state,) = [state for state in alert_states(served.home, NAME) if state.rule == "drift"]
    assert (state.subject, state.state) == (f"{NAME}@1 amount", "firing")
    assert "not enough labels yet" in state.text
    (alarm,) = summary(served.home, NAME).alarms
    assert alarm.cleared is None
    assert alarm.harm.verdict == "not enough labels yet"
    served.serve(vectors(300, 5, start=NOON + DAY, pace=2 * MINUTE))
    monitor.collector.collect()
    monitor.judge(NAME)
    assert alert_states(served.home, NAME)[0].state == "firing", "a part of the day before still counts"
    served.serve(vectors(900, 6, start=NOON + 3 * DAY, pace=2 * MINUTE))
    monitor.collector.collect()
    monitor.judge(NAME)
    assert [state.state for state in alert_states(served.home, NAME)] == ["resolved"]
    with served.home.database.read() as connection:
        assert connection.scalar(sa.select(monitor_alarms.c.cleared)) is not None


def test_drift_of_a_version_that_answers_nothing_any_more_is_resolved(served: Served) -> None:
    monitor = Monitor(served.home)
    served.serve(vectors(600, 4, shift=1.0, pace=2 * MINUTE))
    monitor.collector.collect()
    monitor.judge(NAME)
    assert [state.state for state in alert_states(served.home, NAME)] == ["firing"]
    served.serve(vectors(300, 5, start=NOON + 3 * DAY, pace=2 * MINUTE), version=2)
    monitor.collector.collect()
    monitor.judge(NAME)
    assert [state.state for state in alert_states(served.home, NAME) if state.subject == f"{NAME}@1 amount"] == ["resolved"]


def test_a_clock_that_was_set_back_keeps_alerts_whole(served: Served, webhook: Webhook) -> None:
    watched = [rule(webhook, held="10min", window="4h")]
    failing(served, NOON + DAY, 0.4)
    evaluate(served.home, NAME, rules=watched)
    served.home.clock.set(NOON)  # type: ignore[attr-defined]
    evaluate(served.home, NAME, rules=watched)
    served.home.clock.set(NOON + 15 * MINUTE)  # type: ignore[attr-defined]
    assert [message.state for message in evaluate(served.home, NAME, rules=watched)] == ["firing"]


def test_a_round_goes_on_when_the_project_can_not_be_loaded(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    (served.home.root / "models.py").write_text("import nothing_of_that_name")
    monitor = Monitor(served.home)
    served.serve(vectors(60))
    assert monitor.round(everything=True) == 60
    assert "loading the project failed" in caplog.text
    said = len(caplog.records)
    monitor.round(everything=True)
    assert len(caplog.records) == said, "the same is said once"


@pytest.mark.parametrize(("text", "words"), [
    ('name = "a"\nmetric = "auc"', "either above or below"), ('name = "a"\nmetric = "auc"\nabove = 1\nbelow = 0', "either above or below"),
    ('name = "a"\nmetric = "auc"\nbelow = 0.6\nwebhook = "ftp://x"', "no http"), ('name = "a"\nmetric = "auc"\nbelow = 0.6\nfor = "long"', "not a duration"),
    ('name = "a"\nmetric = "auc"\nbelow = 0.6\nmodle = "late"', "did you mean 'model'"), ('metric = "auc"\nbelow = 0.6', "name")])
def test_wrong_rules_are_refused(tmp_path: Path, text: str, words: str) -> None:
    write_settings(tmp_path, f"[[alerts]]\n{text}\n")
    with pytest.raises(ConfigError, match=words):
        Config.load(tmp_path)


def test_an_unknown_metric_is_named_and_the_other_rules_hold(served: Served) -> None:
    wrong = AlertRule("a", "latency_p98_ms", above=1)
    with pytest.raises(ConfigError, match="did you mean 'latency_p99_ms'"):
        check_rule(wrong)
    served.home.config = msgspec.structs.replace(served.home.config, alerts=(wrong, AlertRule("drift", "drift", above=3)))
    rules, problems = rules_of(served.home)
    assert [rule.name for rule in rules] == [rule.name for rule in BUILT_IN]
    assert rules[0].above == 3
    assert len(problems) == 1
