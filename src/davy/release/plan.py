"""The plan: one table of transitions, and the rules that say which one the evidence calls for. Pure: state, findings and time in, decision out.

    pending ─start─▶ shadow ─next─▶ step 0 ─next─▶ step 1 … ─promote─▶ promoted
                        └──────────────┴──────────── roll back ──────▶ rolled back
        (pause and resume from shadow and steps; abort from anywhere before the end; roll back after promotion too, by hand)

"Not enough data" is no failure: the state stays, and says what it waits for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from davy.errors import Conflict
from davy.release.findings import Findings

if TYPE_CHECKING:
    from davy.release.policy import Policy

Phase = Literal["pending", "shadow", "step", "paused", "promoted", "rolled back", "aborted"]
Event = Literal["shadow", "step", "next", "promote", "roll back", "pause", "resume", "abort"]
ENDED: tuple[Phase, ...] = ("promoted", "rolled back", "aborted")

TRANSITIONS: dict[tuple[Phase, Event], Phase] = {
    ("pending", "shadow"): "shadow",
    ("pending", "step"): "step",
    ("pending", "promote"): "promoted",
    ("pending", "abort"): "aborted",
    ("shadow", "next"): "step",
    ("shadow", "roll back"): "rolled back",
    ("shadow", "pause"): "paused",
    ("shadow", "promote"): "promoted",
    ("shadow", "abort"): "aborted",
    ("step", "next"): "step",
    ("step", "promote"): "promoted",
    ("step", "roll back"): "rolled back",
    ("step", "pause"): "paused",
    ("step", "abort"): "aborted",
    ("paused", "resume"): "step",
    ("paused", "promote"): "promoted",
    ("paused", "roll back"): "rolled back",
    ("paused", "abort"): "aborted",
    ("promoted", "roll back"): "rolled back",
}


class State(msgspec.Struct, frozen=True):
    """Where a release stands. Times are microseconds.

    Attributes:
        step: index into the policy's steps; meaningful in `step`, and in `paused` when `was` is `step`.
        began: when the release was asked for, or resumed; `entered`: when this phase or step was.
        counted: evidence counts from here on: a resume after an alarm of the sample ratio begins anew.
        exposed: the canary's (or shadow's) requests when this step was entered.
        was: what was paused.
        reasons: why it came here, or what it waits for.
    """

    phase: Phase
    step: int
    began: int
    entered: int
    counted: int
    exposed: int = 0
    was: Phase = "pending"
    reasons: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether nothing can happen to it any more."""
        return self.phase in ENDED

    @property
    def label(self) -> str:
        """As people read it: `step 2`, `paused`."""
        return f"step {self.step + 1}" if self.phase == "step" else self.phase


class Placed(msgspec.Struct, frozen=True):
    """How traffic lies in a state: the canary's share of it, and whether the canary is asked as a shadow."""

    share: float
    shadow: bool = False


class Decision(msgspec.Struct, frozen=True):
    """What a look came to: the state, where traffic lies in it, and whether anything moved."""

    state: State
    placed: Placed
    moved: bool


def begin(now: int) -> State:
    """A release that has been asked for."""
    return State("pending", 0, now, now, now)


def placed(policy: Policy, state: State) -> Placed:
    """Where traffic lies in a state."""
    phase = state.was if state.phase == "paused" else state.phase
    if phase == "promoted":
        return Placed(1.0)
    if phase == "shadow":
        return Placed(0.0, shadow=True)
    if phase == "step":
        return Placed(1.0 if policy.strategy == "blue-green" else policy.steps[state.step])
    return Placed(0.0)


def look(policy: Policy, state: State, findings: Findings, now: int) -> Decision:
    """What the evidence calls for at this moment. A clock that runs backwards makes nothing happen sooner or later than once."""
    if state.ended or state.phase == "paused":
        return Decision(state, placed(policy, state), False)
    if state.phase == "pending":
        return _start(policy, state, findings, now)
    if findings.split_is_wrong:
        reason = ("The versions do not get the share that they were given, so that no other evidence can be trusted "
                  f"(ln E {findings.sample_ratio:.1f} >= {findings.sample_ratio_limit:.1f}).")
        return _move(policy, state, "pause", findings, now, (reason,))
    if findings.worse:
        return _move(policy, state, "roll back", findings, now, tuple(_harm(findings, metric) for metric in findings.worse))
    return _onwards(policy, state, findings, now)


def command(policy: Policy, state: State, event: Event, findings: Findings, now: int, *, model: str, why: str) -> Decision:
    """What a person asks for.

    Raises:
        Conflict: the state doesn't allow it; says what it does.
    """
    if (state.phase, event) not in TRANSITIONS:
        allowed = [other.replace(" ", "") for phase, other in TRANSITIONS if phase == state.phase and other in ("promote", "pause", "resume", "abort")]
        raise Conflict(f"A release that is {state.label} can't be asked to {event}.", f"It can be asked to {', '.join(allowed) or 'do nothing more'}.",
                       f"See it: davy status {model}")
    return _move(policy, state, event, findings, now, (why,))


def _start(policy: Policy, state: State, findings: Findings, now: int) -> Decision:
    if policy.strategy == "all-at-once":
        return _move(policy, state, "promote", findings, now, ("All at once: nothing is compared.",))
    return _move(policy, state, "shadow" if policy.strategy == "shadow" else "step", findings, now, ("The release begins.",))


def _onwards(policy: Policy, state: State, findings: Findings, now: int) -> Decision:
    """Without harm: to the next step, to promotion, or to what the deadline says; else wait, and say for what."""
    last = policy.strategy == "blue-green" or state.step == len(policy.steps) - 1
    exposed = (findings.shadow if state.phase == "shadow" else findings.canary) - state.exposed
    waits = []
    if now - state.entered < policy.min_time:
        waits.append("the step's shortest time")
    if exposed < policy.min_requests:
        waits.append(f"{policy.min_requests - exposed:,} more requests of the {'shadow' if state.phase == 'shadow' else 'canary'}")
    if not findings.quiet:
        waits.append(f"{', '.join(finding.metric for finding in findings.metrics if finding.worse >= finding.worse_limit / 3)} to become clear")
    if state.phase == "step" and last and not findings.fine:
        waits.append(_missing(findings))
    if not waits and not (state.phase == "step" and last):
        return _move(policy, state, "next", findings, now, ("No metric leans towards harm.",))
    if not waits and not policy.approval:
        return _move(policy, state, "promote", findings, now, tuple(_harmless(findings)))
    if not waits:
        waits.append("approval: davy promote")
    if now - state.entered > policy.max_time or now - state.began > policy.deadline:
        return _overdue(policy, state, findings, now, waits)
    reasons = (f"Not enough data yet: it waits for {'; '.join(waits)}.",)
    return Decision(msgspec.structs.replace(state, reasons=reasons), placed(policy, state), False)


def _overdue(policy: Policy, state: State, findings: Findings, now: int, waits: list[str]) -> Decision:
    event: dict[str, Event] = {"pause": "pause", "rollback": "roll back", "promote": "promote"}
    reason = f"The {'deadline' if now - state.began > policy.deadline else 'longest time of a step'} has passed while it waited for {'; '.join(waits)}."
    return _move(policy, state, event[policy.at_deadline], findings, now, (reason,))


def _move(policy: Policy, state: State, event: Event, findings: Findings, now: int, reasons: tuple[str, ...]) -> Decision:
    phase = TRANSITIONS[state.phase, event]
    step, began, counted, was = state.step, state.began, state.counted, state.was
    if event == "next" and state.phase == "step":
        step += 1
    if event == "pause":
        was = state.phase
    if event == "resume":
        phase, began, counted = state.was, now, now if findings.split_is_wrong else counted
    exposed = findings.shadow if phase == "shadow" else findings.canary
    moved = State(phase, step, began, now, counted, 0 if counted != state.counted else exposed, was, reasons)
    return Decision(moved, placed(policy, moved), True)


def _harm(findings: Findings, metric: str) -> str:
    found = next(finding for finding in findings.metrics if finding.metric == metric)
    return (f"{metric}: {found.canary.bad:g} of {found.canary.total:,} against stable's {found.stable.bad:g} of {found.stable.total:,} "
            f"(ln E {found.worse:.1f} >= {found.worse_limit:.1f}).")


def _harmless(findings: Findings) -> list[str]:
    return [f"{found.metric}: {found.canary.bad:g} of {found.canary.total:,} against stable's {found.stable.bad:g} of {found.stable.total:,} "
            f"(ln E {found.fine:.1f} >= {found.fine_limit:.1f})." for found in findings.metrics]


def _missing(findings: Findings) -> str:
    names = ", ".join(finding.metric for finding in findings.metrics if finding.verdict != "fine")
    if findings.needed is None:
        return f"evidence on {names or 'any metric'}"
    return f"about {findings.needed:,} more requests for evidence on {names}"
