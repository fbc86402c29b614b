"""The whole route on real processes: raw events, two trained versions, live traffic with late and repeated events, and the proof of it all."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import davy
from davy.core.clock import DrivenClock
from davy.home import Home
from davy.serving.predictions import find_prediction
from server_kit import Running

from .project import BEGIN, CARDS, HOUR, MINUTE, Event, amount, history, iso, vector, write

if TYPE_CHECKING:
    from pathlib import Path

STEPS = 40


def call(root: Path, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "davy", *arguments], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"davy {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Live:
    """What is asked and told, and all that the log should hold."""

    def __init__(self, server: Running, clock: DrivenClock, events: list[Event], rng: random.Random) -> None:
        self.server, self.clock, self.events, self.rng = server, clock, events, rng
        self.asked: list[tuple[dict[str, Any], str, int]] = []
        self.late = self.duplicates = 0

    def ask(self) -> None:
        """One to three predictions at once."""
        rows = [(self.rng.choice([*CARDS, "eve"]), self.rng.randrange(1, 3000) * 5) for _ in range(self.rng.randint(1, 3))]
        status, answers = self.server.post("/predict/fraud", [{"card": card, "amount": cents / 100} for card, cents in rows])
        assert status == 200, answers
        self.asked += [(answer, card, cents) for answer, (card, cents) in zip(answers, rows, strict=True)]

    def tell(self) -> None:
        """New payments: now, late by up to three hours, several at one time; and some that were told before."""
        now, rows, new = self.clock.now(), [], []
        for _ in range(self.rng.randint(1, 4)):
            at = now - (self.rng.randrange(3 * HOUR) if self.rng.random() < 0.3 else self.rng.randrange(2) * MINUTE)
            self.late += now - at > 2 * MINUTE
            event = Event(len(self.events) + len(new) + 1, 0, at, self.rng.choice(CARDS), amount(self.rng))
            new.append(event)
            rows.append(event)
        again = self.rng.sample(self.events, self.rng.randint(0, 2))
        body = [{"number": event.offset, "card": event.card, "amount": None if event.cents is None else event.cents / 100, "at": iso(event.time)}
                for event in [*rows, *again]]
        status, receipt = self.server.post("/events/payments", body)
        assert (status, receipt["accepted"], receipt["duplicates"]) == (200, len(new), len(again)), receipt
        assert receipt["last_offset"] == new[-1].offset
        self.events += new
        self.duplicates += len(again)


@pytest.mark.slow
def test_every_vector_from_training_to_replay_is_the_oracle_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, root = random.Random(2026), tmp_path / "route"
    call(tmp_path, "init", str(root))
    events = history(rng)
    moments = write(root, events, rng)
    clock = DrivenClock(root / ".davy" / "run" / "clock", start=BEGIN)
    assert json.loads(call(root, "ingest", "payments", "--json"))[0]["accepted"] == len(events)
    call(root, "train", "fraud", "--json")
    second = json.loads(call(root, "train", "fraud", "-p", "strength=0.02", "--json"))
    call(root, "traffic", "fraud", "fraud@1=0.5", "fraud@2=0.5")

    with monkeypatch.context() as there:
        there.chdir(root)
        trained = davy.training_set(moments.drop("lost"), "fraud")
    assert len(trained) == moments.height
    for row, card, paid, at in zip(trained.features.rows(), moments["card"], moments["amount"], moments["time"].dt.epoch("us"), strict=True):
        known = max((event.offset for event in events if event.ingest < at), default=0)
        assert list(row) == vector(events, card, round(paid * 100), at, known)

    with Running(root) as server:
        live = Live(server, clock, events, rng)
        for _ in range(STEPS):
            clock.set(clock.now() + rng.randrange(1, 20) * MINUTE + rng.randrange(1_000_000))
            live.ask()
            live.tell()
            live.ask()
        found = json.loads(call(root, "replay", "fraud", "--json"))
        answer = live.asked[-1][0]
        why = json.loads(call(root, "why", answer["prediction_id"], "--json"))
    assert live.late > 5
    assert live.duplicates > 5
    assert {answer["version"] for answer, _, _ in live.asked} == {1, 2}

    home = Home(root)
    try:
        for answer, card, cents in live.asked:
            record = find_prediction(home, answer["prediction_id"])
            assert record.watermarks == answer["watermarks"]
            assert iso(record.time)[:23] == answer["time"][:23]
            assert record.values == vector(live.events, card, cents, record.time, record.watermarks["payments"])
    finally:
        home.close()
    assert (found["checked"], found["equal"], found["different"]) == (len(live.asked), len(live.asked), [])
    assert found["lateness"]["streams"]["payments"]["late"] > 0
    assert why["version"] == answer["version"]
    assert why["run"]["id"] == second["run"] or answer["version"] == 1
    again = json.loads(call(root, "reproduce", second["run"], "--json"))
    assert (again["grade"], again["training_set"]) == ("same bytes", True)
    assert json.loads(call(root, "audit", "--json"))["broken"] is None
