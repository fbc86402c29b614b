"""The plan: every state and event, and what evidence, time and hands lead to."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest

from davy.config import Release
from davy.errors import ConfigError, Conflict, InvalidInput
from davy.release.findings import Arm, Finding, Findings
from davy.release.plan import ENDED, TRANSITIONS, Decision, Event, Phase, Placed, State, begin, command, look, placed
from davy.release.policy import Policy

MINUTE = 60_000_000
POLICY = Policy(min_time=MINUTE, min_requests=100, max_time=60 * MINUTE, deadline=600 * MINUTE)


def findings(*, worse: float = 0.0, fine: float = 9.0, canary: int = 10_000, shadow: int = 0, ratio: float = 0.0) -> Findings:
    found = Finding("errors", worse, 3.7, fine, 3.0, Arm(5, canary), Arm(5, canary), 400)
    return Findings((found,), canary, canary, shadow, ratio, 4.6)


def at(phase: Phase, step: int = 0, **changes: Any) -> State:
    return State(phase, step, 0, 0, 0, **changes)


def through(policy: Policy, seen: Findings, *, minutes: int = 2, most: int = 20) -> list[Decision]:
    """All moves of a release whose findings never change."""
    state, now, found = begin(0), 0, []
    for _ in range(most):
        decision = look(policy, state, seen, now)
        state, now = decision.state, now + minutes * MINUTE
        seen = Findings(seen.metrics, seen.stable + 1_000, seen.canary + 1_000, seen.shadow + 1_000, seen.sample_ratio, seen.sample_ratio_limit)
        if decision.moved:
            found.append(decision)
    return found


@pytest.mark.parametrize(("strategy", "labels", "shares"), [
    ("canary", ["step 1", "step 2", "step 3", "step 4", "promoted"], [0.01, 0.05, 0.25, 0.5, 1.0]),
    ("shadow", ["shadow", "step 1", "step 2", "step 3", "step 4", "promoted"], [0.0, 0.01, 0.05, 0.25, 0.5, 1.0]),
    ("blue-green", ["step 1", "promoted"], [1.0, 1.0]),
    ("all-at-once", ["promoted"], [1.0]),
])
def test_a_good_version_goes_all_the_way(strategy: Any, labels: list[str], shares: list[float]) -> None:
    settings = Release(strategy=strategy, min_time="1min", min_requests=100)
    moves = through(Policy.of(settings), findings())
    assert [move.state.label for move in moves] == labels
    assert [move.placed.share for move in moves] == shares
    assert [move.placed.shadow for move in moves] == [label == "shadow" for label in labels]


@pytest.mark.parametrize("phase", ["shadow", "step"])
def test_harm_rolls_back_from_anywhere_with_its_evidence_as_reason(phase: Phase) -> None:
    decision = look(POLICY, at(phase, 2 if phase == "step" else 0), findings(worse=4.0), 1)
    assert decision.state.phase == "rolled back"
    assert decision.placed == Placed(0.0)
    assert "errors: 5 of 10,000" in decision.state.reasons[0]
    assert "ln E 4.0 >= 3.7" in decision.state.reasons[0]


def test_a_wrong_split_pauses_before_anything_else_is_believed() -> None:
    decision = look(POLICY, at("step", 1), findings(worse=9.0, ratio=5.0), 1)
    assert (decision.state.phase, decision.state.was, decision.placed) == ("paused", "step", Placed(0.05))
    resumed = command(POLICY, decision.state, "resume", findings(ratio=5.0), 77, model="fraud", why="mended")
    assert (resumed.state.phase, resumed.state.step, resumed.state.counted, resumed.state.exposed) == ("step", 1, 77, 0)


@pytest.mark.parametrize(("seen", "now", "said"), [
    (findings(), MINUTE - 1, "shortest time"),
    (findings(canary=40), 2 * MINUTE, "60 more requests of the canary"),
    (findings(worse=1.5), 2 * MINUTE, "errors to become clear"),
])
def test_a_step_waits_and_says_for_what(seen: Findings, now: int, said: str) -> None:
    decision = look(POLICY, at("step", 0), seen, now)
    assert not decision.moved
    assert decision.state.phase == "step"
    assert decision.state.reasons[0].startswith("Not enough data yet")
    assert said in decision.state.reasons[0]


def test_the_last_step_waits_for_evidence_with_a_forecast_and_the_earlier_ones_do_not() -> None:
    assert look(POLICY, at("step", 0), findings(fine=0.0), 2 * MINUTE).state.step == 1
    waiting = look(POLICY, at("step", 3), findings(fine=0.0), 2 * MINUTE)
    assert not waiting.moved
    assert "about 400 more requests for evidence on errors" in waiting.state.reasons[0]
    assert look(POLICY, at("step", 3), findings(), 2 * MINUTE).state.phase == "promoted"


@pytest.mark.parametrize(("setting", "phase"), [("pause", "paused"), ("rollback", "rolled back"), ("promote", "promoted")])
def test_a_deadline_says_what_then(setting: Any, phase: str) -> None:
    policy = Policy(min_requests=100, max_time=60 * MINUTE, deadline=90 * MINUTE, at_deadline=setting)
    assert not look(policy, at("step", 3), findings(fine=0.0), 60 * MINUTE).moved
    decision = look(policy, at("step", 3), findings(fine=0.0), 60 * MINUTE + 1)
    assert decision.state.phase == phase
    assert "longest time of a step has passed while it waited for" in decision.state.reasons[0]


def test_promotion_may_need_approval_and_rolling_back_never_does() -> None:
    policy = Policy(min_requests=100, approval=True)
    waiting = look(policy, at("step", 3), findings(), 2 * MINUTE)
    assert not waiting.moved
    assert "approval: davy promote" in waiting.state.reasons[0]
    assert command(policy, waiting.state, "promote", findings(), 3 * MINUTE, model="fraud", why="yes").state.phase == "promoted"
    assert look(policy, at("step", 3), findings(worse=4.0), 2 * MINUTE).state.phase == "rolled back"


def test_a_clock_that_jumps_decides_nothing_without_evidence() -> None:
    state = State("step", 3, 10 * MINUTE, 10 * MINUTE, 0)
    for now in (-(10**15), 0, 10 * MINUTE, 10**17):
        decision = look(POLICY, state, findings(fine=0.0, canary=50), now)
        assert decision.state.phase in ("step", "paused")
        assert decision.placed.share == 0.5
    assert look(POLICY, state, findings(), -(10**15)).state.phase == "step"


def test_every_state_and_event_is_allowed_by_the_table_or_refused_with_what_is() -> None:
    for phase, event in itertools.product(get_args(Phase), get_args(Event)):
        state = at(phase, was="step")
        if (phase, event) in TRANSITIONS:
            assert command(POLICY, state, event, findings(), 5, model="fraud", why="so").moved
        else:
            with pytest.raises(Conflict, match=f"is {state.label} can't be asked to {event}"):
                command(POLICY, state, event, findings(), 5, model="fraud", why="so")


def test_nothing_leaves_an_end_by_itself() -> None:
    for phase in ENDED:
        for seen in (findings(), findings(worse=9.0), findings(ratio=9.0)):
            assert not look(POLICY, at(phase), seen, 10**18).moved


def test_each_state_has_one_place_for_the_traffic() -> None:
    assert placed(POLICY, at("paused", 2, was="step")) == Placed(0.25)
    assert placed(POLICY, at("paused", was="shadow")) == Placed(0.0, shadow=True)
    assert [placed(POLICY, at(phase)).share for phase in ("pending", "promoted", "rolled back", "aborted")] == [0.0, 1.0, 0.0, 0.0]


def test_settings_become_a_policy() -> None:
    policy = Policy.of(Release(steps=(10, 100), delta={"latency": 2.0}, tolerated={"errors": 0.01}), strategy="shadow", steps=[2.5, 50])
    assert policy.steps == (0.025, 0.5)
    assert (policy.strategy, policy.delta_of("latency"), policy.delta_of("errors"), policy.tolerated_of("errors")) == ("shadow", 2.0, 1.0, 0.01)


@pytest.mark.parametrize(("settings", "kind", "said"), [
    (Release(alpha=0.0), ConfigError, "release.alpha"),
    (Release(steps=(5, 1)), InvalidInput, "5, 1 are no steps"),
    (Release(steps=(0, 50)), InvalidInput, "no steps"),
    (Release(steps=()), InvalidInput, "nothing are no steps"),
    (Release(steps=(100,)), InvalidInput, "compares nothing"),
    (Release(delta={"errors": -1.0}), ConfigError, "release.delta.errors"),
    (Release(tolerated={"errors": 1.0}), ConfigError, "release.tolerated.errors"),
    (Release(min_time="2d"), ConfigError, "min_time <= max_time"),
    (Release(min_requests=-1), ConfigError, "release.min_requests"),
])
def test_settings_out_of_range_are_named(settings: Release, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        Policy.of(settings)
