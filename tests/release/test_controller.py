"""The controller on a log that a test writes: it decides by the clock that it is given, goes on after any crash, and moves traffic whole."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from databases import write_settings
from davy.core.clock import DrivenClock
from davy.errors import ConfigError, Conflict, InvalidInput, NotFound
from davy.gate.record import keep, standing
from davy.gate.run import Report, Result
from davy.home import CLOCK_FILE, Home
from davy.release.controller import Controller
from davy.release.evidence import Observation
from davy.release.follow import Follower, past_of
from davy.release.releases import Release, ask, get_release, read_releases, start_release, timeline
from davy.release.status import live, told
from davy.release.traffic import get_traffic, set_traffic
from davy.serving.predictions import PredictionLog, PredictionRecord, flush_predictions, folder_of
from davy.store import journal
from serving_kit import add_version, feature_set

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START, MINUTE = 1_700_000_000_000_000, 60_000_000
FEATURES = feature_set()
TOML = """
project = "shop"
[release]
steps = [10, 50]
unit = "request"
min_time = "1min"
min_requests = 100
tolerated = { errors = 0.02 }
"""
MODELS = """
import davy

payments = davy.Stream("payments", time="at", fields={"card": str})


class Card(davy.View):
    stream, entity = payments, "card"
    n_1h = davy.agg.count(window="1h")


def complaint(prediction, stolen):
    return float(stolen and prediction < 0.5)


@davy.model(entities=["card"], features=[Card], outcome=davy.Outcome("stolen", kind=bool), kpis=[complaint])
def fraud(data):
    return None
"""


class Stand:
    """A shop with a log that the test writes, and a clock that it drives."""

    def __init__(self, root: Path) -> None:
        self.clock = DrivenClock(root / ".davy" / CLOCK_FILE, start=START)
        self.home = Home(root, clock=self.clock)
        self.log = PredictionLog(folder_of(self.home))
        self.number = 0

    def answer(self, count: int, *, bad: int = 0, failing: str = "error", taken: int = 100, **changes: Any) -> None:
        """So many requests, routed as the traffic stands; of the canary's, one in `bad` fails."""
        found = get_traffic(self.home, "fraud")
        assert found is not None
        records = []
        for _ in range(count):
            self.number += 1
            self.clock.set(self.clock.now() + 1_000)
            weights = sorted(found.versions.items())
            canary = len(weights) > 1 and self.number % 100 < 100 * weights[1][1]
            version, share = weights[1] if canary else weights[0]
            failed = bool(bad) and version != 1 and self.number % bad == 0
            record = PredictionRecord(
                f"{self.number:032x}", self.clock.now(), self.clock.now(), "fraud", version, "canary" if version != 1 else "stable", False, f"k{self.number}",
                FEATURES.digest, {"card": "c"}, {"amount": 1.0, "shop": "books", "asked": START}, {"payments": 0}, [0, 0.0, None, None, 1.0, "books"],
                None if failed else 0.1, taken, 10, taken + self.number % 7, "k", share, failing if failed else "ok", found.release)
            for name, value in changes.items():
                setattr(record, name, value)
            records.append(record)
        self.log.append(records)

    def pass_time(self, micros: int) -> None:
        self.clock.set(self.clock.now() + micros)

    def release(self) -> Release:
        with self.home.database.read() as connection:
            return read_releases(connection, "fraud")[0]

    def weights(self) -> dict[str, float]:
        found = get_traffic(self.home, "fraud")
        assert found is not None
        return found.weights

    def actions(self) -> list[str]:
        with self.home.database.read() as connection:
            assert journal.verify(connection).broken is None
            return [entry.action for entry in reversed(journal.entries(connection, subject="fraud"))]


@pytest.fixture
def stand(project: Path) -> Iterator[Stand]:
    write_settings(project, TOML)
    made = Stand(project)
    add_version(made.home)
    add_version(made.home, seed=1)
    set_traffic(made.home, "fraud", {"fraud@1": 1.0})
    yield made
    made.log.close()
    made.home.close()


def through(stand: Stand, controller: Controller, *, most: int = 60, **how: Any) -> Release:
    """Traffic and looks in turn until the release has ended."""
    for _ in range(most):
        controller.look()
        if stand.release().state.ended:
            break
        stand.answer(100, **how)
        stand.pass_time(MINUTE // 2)
    controller.close()
    return stand.release()


def test_a_good_version_is_promoted_and_the_journal_and_timeline_tell_how(stand: Stand) -> None:
    stand.answer(500)
    start_release(stand.home, "fraud@2")
    done = through(stand, Controller(stand.home, []))
    assert done.state.phase == "promoted"
    assert stand.weights() == {"fraud@2": 1.0}
    assert done.progress.past.requests == 500
    assert len(done.progress.past.thresholds) == 4
    assert stand.actions()[-7:] == ["release.started", "release.step", "traffic.set", "release.step", "traffic.set", "release.promoted", "traffic.set"]
    with stand.home.database.read() as connection:
        points = timeline(connection, done.id)
        entry = journal.entries(connection, subject="fraud", action="traffic.set")[0]
    assert [point.label for point in points if point.reasons] == ["step 1", "step 2", "promoted"]
    assert points[-1].requests == (done.findings.stable, done.findings.canary, 0)
    assert points[-1].metrics["errors"][2] >= points[-1].metrics["errors"][3]
    assert entry.details["evidence"]["metrics"]["errors"]["verdict"] == "fine"
    assert entry.details["evidence"]["release"] == done.id


def test_while_nobody_asks_it_says_that_there_is_not_enough_data(stand: Stand) -> None:
    start_release(stand.home, "fraud@2")
    controller = Controller(stand.home, [])
    controller.look()
    controller.look()
    controller.close()
    assert stand.release().state.reasons == ("Not enough data yet: it waits for the step's shortest time; 100 more requests of the canary.",)


def test_a_bad_version_is_rolled_back_at_the_look_after_the_deciding_request(stand: Stand) -> None:
    stand.answer(500)
    start_release(stand.home, "fraud@2")
    controller = Controller(stand.home, [])
    controller.look()
    for _ in range(20):
        stand.answer(10, bad=1)
        controller.look()
        if stand.release().state.ended:
            break
    done = stand.release()
    assert done.state.phase == "rolled back"
    assert stand.weights() == {"fraud@1": 1.0}
    assert done.findings.worse == ("errors",)
    assert done.findings.canary <= 10
    controller.close()


def test_it_counts_the_same_whether_it_lives_or_is_made_anew_at_every_look(stand: Stand) -> None:
    """Also while the log moves into tables, and gateways come and go."""
    stand.answer(500)
    start_release(stand.home, "fraud@2")
    steady = Controller(stand.home, [])
    steady.look()
    for turn in range(6):
        stand.answer(70, bad=300, failing="timeout")
        if turn % 2:
            flush_predictions(stand.home)
        if turn == 3:
            stand.log.close()
            stand.log = PredictionLog(folder_of(stand.home))
        follower = Follower(stand.home, "fraud", stand.release().id)
        found = [record.id for record in follower.begin()]
        assert len(found) == len(set(found)) == 70 * (turn + 1)
        follower.close()
    steady.look()
    (kept,) = steady._controlled.values()
    fresh = Controller(stand.home, [])
    fresh.look()
    (made,) = fresh._controlled.values()
    assert made._findings() == kept._findings()
    assert kept._findings().stable + kept._findings().canary == 420
    steady.close()
    fresh.close()


DYING = """
import os, sys
from pathlib import Path
from davy.home import Home
from davy.release import controller, releases
from davy.store import database
home, moment = Home(Path(sys.argv[1])), sys.argv[2]
def die(*args, **kwargs):
    os.kill(os.getpid(), 9)
if moment == "before the traffic":
    releases.move_traffic = die
elif moment == "after the traffic":
    releases._add_point = die
elif moment == "after the commit":
    write = controller.write
    real = controller.Controlled._count
    controller.Controlled._count = lambda self: die() if self.release.state.phase == "step" and self.release.progress.past.requests else real(self)
elif moment == "while it reads the past":
    controller.past_of = die
controller.Controller(home, []).look()
"""


@pytest.mark.parametrize("moment", ["while it reads the past", "before the traffic", "after the traffic", "after the commit"])
def test_killed_at_any_point_it_goes_on_and_traffic_is_never_in_between(stand: Stand, moment: str) -> None:
    stand.answer(500)
    start_release(stand.home, "fraud@2")
    died = subprocess.run([sys.executable, "-c", DYING, str(stand.home.root), moment], check=False, env=dict(os.environ))
    assert died.returncode == -9
    moved = moment == "after the commit"
    assert stand.weights() == ({"fraud@1": 0.9, "fraud@2": 0.1} if moved else {"fraud@1": 1.0})
    assert stand.release().state.phase == ("step" if moved else "pending")
    assert stand.actions().count("release.step") == moved
    assert through(stand, Controller(stand.home, [])).state.phase == "promoted"
    assert stand.actions().count("release.promoted") == 1


def test_two_controllers_at_once_move_a_release_once(stand: Stand) -> None:
    stand.answer(500)
    start_release(stand.home, "fraud@2")
    one, other = Controller(stand.home, []), Controller(stand.home, [])
    for _ in range(40):
        one.look()
        other.look()
        if stand.release().state.ended:
            break
        stand.answer(100)
        stand.pass_time(MINUTE // 2)
    one.close()
    other.close()
    assert stand.release().state.phase == "promoted"
    assert stand.actions().count("release.promoted") == 1
    assert stand.actions().count("release.step") == 2


def test_a_clock_that_jumps_neither_promotes_nor_loses_anything(stand: Stand) -> None:
    stand.answer(500)
    start_release(stand.home, "fraud@2")
    controller = Controller(stand.home, [])
    controller.look()
    stand.answer(50)
    stand.pass_time(-30 * MINUTE)
    stand.answer(50)
    controller.look()
    assert stand.release().state.label == "step 1"
    stand.pass_time(10 * 86_400_000_000)
    controller.look()
    paused = stand.release()
    assert paused.state.phase == "paused"
    assert "deadline" in paused.state.reasons[0]
    assert paused.findings.stable + paused.findings.canary == 50  # what was logged before the release began, by its clock, is not its own
    assert stand.weights() == {"fraud@1": 0.9, "fraud@2": 0.1}
    ask(stand.home, "fraud", "resume")
    assert through(stand, controller).state.phase == "promoted"


def test_kpis_of_a_source_decide_like_the_log_and_are_asked_for_again_after_a_crash(stand: Stand, project: Path) -> None:
    class Complaints:
        """Every second request of the canary ends in a complaint, one in ten of stable's."""

        def observations(self, model: str, release: str, cursor: str) -> tuple[list[Observation], str]:
            found = stand.release()
            begin = int(cursor or 0)
            share = found.weights.get("fraud@2", 0.0)
            made = [Observation("complaint", release, 2 if number % 10 == 0 else 1, share if number % 10 == 0 else 1 - share, f"k{number}", stand.clock.now(),
                                float(number % 20 == 0 if number % 10 == 0 else number % 10 == 1)) for number in range(begin, begin + 100)]
            return made, str(begin + 100)

    (project / "models.py").write_text(MODELS)
    write_settings(project, TOML + "[release.kpis.complaints]\ndelta = 0.5\n")
    home = Home(project, clock=stand.clock)
    with pytest.raises(ConfigError, match="did you mean 'complaint'"):
        start_release(home, "fraud@2")
    home.close()
    write_settings(project, TOML + "[release.kpis.complaint]\ndelta = 0.5\n")
    home = Home(project, clock=stand.clock)
    start_release(home, "fraud@2")
    done = through(stand, Controller(home, [Complaints()]))
    assert done.state.phase == "rolled back"
    assert done.findings.worse == ("complaint",)
    home.close()


def test_what_cannot_be_released_is_refused_with_what_to_do(stand: Stand) -> None:
    for reference, kind, said in (("fraud@1", Conflict, "has all the traffic already"), ("fraud@9", NotFound, "no version 9"), ("frod@1", NotFound, "fraud")):
        with pytest.raises(kind, match=said):
            start_release(stand.home, reference)
    with pytest.raises(InvalidInput, match="no steps"):
        start_release(stand.home, "fraud@2", steps=[50, 10])
    set_traffic(stand.home, "fraud", {"fraud@1": 0.6, "fraud@2": 0.4})
    with pytest.raises(Conflict, match="davy traffic fraud fraud@1=1"):
        start_release(stand.home, "fraud@2")
    set_traffic(stand.home, "fraud", {"fraud@1": 1.0})
    add_version(stand.home, seed=3, gated=False)
    with pytest.raises(Conflict, match="fraud@3 has not been through the gate") as refused:
        start_release(stand.home, "fraud@3")
    assert refused.value.fix == "Run it: davy gate fraud@3"
    with stand.home.database.begin() as connection:
        item = Result("quality", "", "fail", True, "worse", "", {}, 0.0)
        keep(connection, Report("fraud", 3, None, 1, "", False, True, stand.clock.now(), 0.0, (item,)), clock=stand.clock, actor="tester")
    with pytest.raises(Conflict, match="fraud@3 failed its gate: quality") as refused:
        start_release(stand.home, "fraud@3")
    assert '--override "REASON"' in refused.value.fix
    assert "release.started" not in stand.actions()
    made = start_release(stand.home, "fraud@3", override="the check is wrong")
    with stand.home.database.read() as connection:
        entry = journal.entries(connection, action="release.started")[0]
        assert get_release(connection, made.id).state.phase == "pending"
        found = standing(connection, "fraud", 3)
    assert entry.details["gate"] == {"refused": "fraud@3 failed its gate: quality.", "overridden": "the check is wrong", "gate": found.gate}
    assert (found.state, found.reason) == ("overridden", "the check is wrong")
    with pytest.raises(Conflict, match="davy abort fraud"):
        start_release(stand.home, "fraud@2")
    with pytest.raises(Conflict, match="davy abort fraud"):
        set_traffic(stand.home, "fraud", {"fraud@1": 1.0})
    assert ask(stand.home, "fraud", "abort").state.phase == "aborted"
    assert stand.weights() == {"fraud@1": 1.0}
    set_traffic(stand.home, "fraud", {"fraud@2": 1.0})


def test_the_first_version_of_a_model_is_released_all_at_once(stand: Stand) -> None:
    add_version(stand.home, "other")
    made = start_release(stand.home, "other@1")
    assert (made.state.phase, made.first, made.weights) == ("promoted", True, {"other@1": 1.0})
    found = get_traffic(stand.home, "other")
    assert found is not None
    assert (found.weights, found.release, found.stable) == ({"other@1": 1.0}, "", None)
    with pytest.raises(Conflict, match="nothing to roll other back to"):
        ask(stand.home, "other", "roll back")


def test_what_is_told_holds_everything_that_is_asked_for(stand: Stand) -> None:
    stand.answer(500)
    start_release(stand.home, "fraud@2")
    controller = Controller(stand.home, [])
    controller.look()
    stand.answer(300)
    controller.look()
    controller.close()
    found = told(stand.release())
    assert found["state"] == "step 1"
    assert found["weights"] == {"fraud@1": 0.9, "fraud@2": 0.1}
    assert found["requests"] == {"stable": 270, "canary": 30, "shadow": 0}
    assert {row["metric"] for row in found["metrics"]} == {"errors", "latency"}
    assert found["needed_requests"] > 0
    with stand.home.database.read() as connection:
        assert [(row["version"], row["arm"], row["weight"]) for row in live(connection)] == [(1, "stable", 0.9), (2, "canary", 0.1)]


def test_the_past_is_stables_own_and_what_it_failed_counts(stand: Stand) -> None:
    stand.answer(300, taken=1_000)
    stand.answer(30, status="error", output=None)
    stand.answer(50, pinned=True, arm="pinned")
    stand.answer(50, status="fallback")
    past = past_of(stand.home, "fraud", 1)
    assert (past.requests, past.errors) == (330, 30)
    assert past.thresholds[0] > 1_000
    assert past_of(stand.home, "fraud", 2).requests == 0
