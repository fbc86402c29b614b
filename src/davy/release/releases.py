"""Releases as they stand in the database, and what a person can ask of them. Each change is one transaction: row, traffic, journal, timeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from davy.core.clock import new_id
from davy.errors import Conflict, NotFound
from davy.registry.adopt import adopt
from davy.registry.aliases import read_aliases, set_alias
from davy.registry.models import resolve
from davy.registry.reference import parse_reference
from davy.release import plan
from davy.release.evidence import Past
from davy.release.findings import Findings, encode
from davy.release.gate import gate_allows, overrule
from davy.release.policy import Policy, Strategy
from davy.release.traffic import move_traffic
from davy.schema.tables import release_points, releases
from davy.serving.traffic import read_traffic
from davy.store import journal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from davy.core.clock import Clock
    from davy.home import Home
    from davy.release.plan import Decision, Event, State
    from davy.serving.traffic import Traffic


class Progress(msgspec.Struct, frozen=True):
    """What changes about a release: where it stands, and the past of stable that its beginning fixed."""

    state: plan.State
    past: Past = Past()


class Release(msgspec.Struct, frozen=True):
    """One release of a version against the stable one. Times are microseconds; `ended` is None while it is on its way.

    Attributes:
        findings: as of `updated`.
        first: whether nothing served before it, so that `stable` is the version itself.
    """

    id: str
    model: str
    version: int
    stable: int
    policy: Policy
    progress: Progress
    findings: Findings
    created: int
    updated: int
    ended: int | None
    actor: str

    @property
    def reference(self) -> str:
        return f"{self.model}@{self.version}"

    @property
    def state(self) -> State:
        return self.progress.state

    @property
    def first(self) -> bool:
        return self.stable == self.version

    @property
    def weights(self) -> dict[str, float]:
        """How the traffic lies in this state."""
        share = plan.placed(self.policy, self.state).share
        pairs = ((f"{self.model}@{self.stable}", 1 - share), (self.reference, share))
        return {self.reference: 1.0} if self.first else {reference: weight for reference, weight in pairs if weight > 0}


class Point(msgspec.Struct, frozen=True):
    """One moment of a release's timeline, compact, for a plot.

    Attributes:
        label: the state, such as `step 2`.
        share, shadow: how traffic lies from here on.
        requests: of stable, canary, shadow.
        metrics: name -> [ln E of harm, its limit, ln E of harmlessness, its limit, stable's bad, of, the canary's bad, of].
        sample_ratio: [ln E, its limit].
        reasons: when the state changed.
    """

    time: int
    label: str
    share: float
    shadow: bool
    requests: tuple[int, int, int]
    metrics: dict[str, tuple[float, float, float, float, float, int, float, int]]
    sample_ratio: tuple[float, float]
    reasons: tuple[str, ...] = ()


def read_releases(connection: Connection, model: str | None = None, *, open_only: bool = False, limit: int = 100) -> list[Release]:
    """Those on their way, then the newest first."""
    query = sa.select(releases).order_by(releases.c.ended.is_(None).desc(), releases.c.created.desc(), releases.c.id.desc()).limit(limit)
    if model is not None:
        query = query.where(releases.c.model == model)
    if open_only:
        query = query.where(releases.c.ended.is_(None))
    return [_release(row) for row in connection.execute(query)]


def get_release(connection: Connection, id: str) -> Release:
    """The release with this id.

    Raises:
        NotFound: none has it.
    """
    row = connection.execute(sa.select(releases).where(releases.c.id == id)).first()
    if row is None:
        raise NotFound(f"There is no release {id!r}.", "", "See them: davy status")
    return _release(row)


def timeline(connection: Connection, id: str) -> list[Point]:
    """The release's points in order of time."""
    query = sa.select(release_points.c.json).where(release_points.c.release == id).order_by(release_points.c.number)
    return [msgspec.json.decode(row.json, type=Point) for row in connection.execute(query)]


def start_release(home: Home, reference: str, *, strategy: Strategy | None = None, steps: Sequence[float] | None = None, override: str | None = None,
                  actor: str | None = None) -> Release:
    """Ask for a version to be released. The controller of a running server does the rest; what compares nothing is done at once.

    Args:
        reference: `late@2`, or an alias.
        strategy, steps: instead of davy.toml's; steps are percentages.
        override: why a version that the gate refuses may go nevertheless; the journal keeps it.

    Raises:
        NotFound: no such version. InvalidInput: steps that are none.
        Conflict: a release of the model is on its way, the gate refuses, the version serves already, or no single version is stable.
        And what `adopt` raises of a version that MLflow's protocol has registered.
    """
    from davy.release.kpis import rules_of

    actor = actor or home.actor
    adopt(home, reference, actor=actor)
    kpis = rules_of(home, parse_reference(reference).model, home.config.release.kpis)
    with home.database.begin() as connection:
        version = resolve(connection, parse_reference(reference))
        model, number = version.name, version.version
        _refuse_second(connection, model)
        refusal = gate_allows(connection, model, number)
        if refusal is not None and not override:
            raise Conflict(refusal.came, refusal.allowed, refusal.fix)
        stable = _stable(read_traffic(connection, model), model, number)
        policy = Policy.of(home.config.release, strategy=strategy if stable is not None else "all-at-once", steps=steps)
        policy = msgspec.structs.replace(policy, kpis=kpis)
        now = home.clock.now()
        made = Release(new_id(home.clock), model, number, number if stable is None else stable, policy, Progress(plan.begin(now)), Findings(), now, now, None,
                       actor)
        connection.execute(sa.insert(releases).values(
            id=made.id, model=model, version=number, stable=made.stable, strategy=policy.strategy, state="pending", policy=encode(policy),
            progress=encode(made.progress), evidence=encode(made.findings), created=now, updated=now, ended=None, actor=actor))
        details: dict[str, Any] = {"release": made.id, "version": number, "stable": stable, "policy": msgspec.to_builtins(policy)}
        if refusal is not None:
            overruled = overrule(connection, model, number, str(override), clock=home.clock, actor=actor)
            details["gate"] = {"refused": refusal.came, "overridden": override, "gate": overruled}
        journal.append(connection, clock=home.clock, actor=actor, action="release.started", subject=model, details=details)
        if policy.strategy == "all-at-once":
            return write(connection, made, plan.look(policy, made.state, made.findings, now), made.findings, clock=home.clock, actor=actor)
        return made


def ask(home: Home, model: str, event: Event, *, reason: str = "", actor: str | None = None) -> Release:
    """Promote, pause, resume, abort or roll back by hand.

    Rolling back also takes back the last release after its promotion.

    Raises:
        NotFound: no such model, or it has no release. Conflict: its state does not allow it.
    """
    actor = actor or home.actor
    with home.database.begin() as connection:
        found = _asked(connection, model, event)
        decision = plan.command(found.policy, found.state, event, found.findings, home.clock.now(), model=model, why=reason or f"By hand, by {actor}.")
        return write(connection, found, decision, found.findings, clock=home.clock, actor=actor)


def write(connection: Connection, before: Release, decision: Decision, findings: Findings, *, clock: Clock, actor: str, past: Past | None = None,
          point: bool = True) -> Release:
    """Write down a decision: the row, where it moves something also the traffic and the journal, and with `point` the timeline.

    Raises:
        Conflict: somebody has moved the release since `before` was read.
    """
    state, now = decision.state, clock.now()
    progress = Progress(state, before.progress.past if past is None else past)
    after = msgspec.structs.replace(before, progress=progress, findings=findings, updated=now, ended=now if state.ended else None)
    changed = connection.execute(
        sa.update(releases).where(releases.c.id == before.id, releases.c.progress == encode(before.progress)).values(
            state=state.phase, progress=encode(progress), evidence=encode(findings), updated=now, ended=after.ended))
    if changed.rowcount != 1:
        raise Conflict(f"The release of {before.reference} was moved meanwhile.", "", f"Look at it, then decide again: davy status {before.model}")
    if decision.moved:
        evidence = findings.summary()
        journal.append(connection, clock=clock, actor=actor, action=f"release.{state.phase.replace(' ', '_')}", subject=before.model, details={
            "release": before.id, "version": before.version, "from": before.state.label, "to": state.label, "reasons": list(state.reasons),
            "share": decision.placed.share, "evidence": evidence})
        _place(connection, after, decision, evidence, clock, actor)
        _move_alias(connection, before, after, clock, actor)
    if point:
        _add_point(connection, after, decision, now)
    return after


def _place(connection: Connection, release: Release, decision: Decision, evidence: dict[str, object], clock: Clock, actor: str) -> None:
    """Move the traffic to where the state has it, if it isn't there."""
    ended = release.state.ended
    wanted: dict[str, Any] = {"release": "" if ended else release.id, "stable": None if ended else release.stable,
                              "shadow": release.version if decision.placed.shadow else None}
    found = read_traffic(connection, release.model)
    there = found and found[0].weights == release.weights and all(getattr(found[0], name) == value for name, value in wanted.items())
    if not there:
        move_traffic(connection, release.model, release.weights, clock=clock, actor=actor, evidence={"release": release.id, **evidence}, **wanted)


def _move_alias(connection: Connection, before: Release, after: Release, clock: Clock, actor: str) -> None:
    """Let the policy's alias mean the promoted version, or, when that is taken back, the stable one again."""
    alias, taken_back = after.policy.alias, before.state.phase == "promoted" and after.state.phase == "rolled back"
    if not alias or not (after.state.phase == "promoted" or taken_back):
        return
    if taken_back and read_aliases(connection, after.model).get(alias) != after.version:
        return  # somebody has pointed it elsewhere since
    set_alias(connection, clock=clock, actor=actor, name=after.model, alias=alias, version=after.stable if taken_back else after.version,
              evidence={"release": after.id, "reason": " ".join(after.state.reasons)})


def _add_point(connection: Connection, release: Release, decision: Decision, now: int) -> None:
    findings = release.findings
    metrics = {found.metric: (round(found.worse, 3), round(found.worse_limit, 3), round(found.fine, 3), round(found.fine_limit, 3), found.stable.bad,
                              found.stable.total, found.canary.bad, found.canary.total) for found in findings.metrics}
    point = Point(now, release.state.label, decision.placed.share, decision.placed.shadow, (findings.stable, findings.canary, findings.shadow), metrics,
                  (round(findings.sample_ratio, 3), round(findings.sample_ratio_limit, 3)), release.state.reasons if decision.moved else ())
    last = connection.execute(sa.select(sa.func.max(release_points.c.number)).where(release_points.c.release == release.id)).scalar()
    connection.execute(sa.insert(release_points).values(release=release.id, number=(last or 0) + 1, time=now, json=encode(point)))


def _asked(connection: Connection, model: str, event: Event) -> Release:
    """The release that is meant: the one on its way, or for a rollback also the one that made what serves now."""
    found = read_releases(connection, model, limit=1)
    if not found:
        resolve(connection, model)
        raise NotFound(f"{model} has had no release.", "", f"Begin one: davy release {model}@VERSION")
    release = found[0]
    if event == "roll back" and release.state.phase == "promoted":
        serving = read_traffic(connection, model)
        if release.first or not serving or serving[0].weights != {release.reference: 1.0}:
            raise Conflict(f"There is nothing to roll {model} back to.", "A rollback takes back the last release, while its version has all the traffic.",
                           f"Set the weights by hand: davy traffic {model} {model}@VERSION=1")
    return release


def _refuse_second(connection: Connection, model: str) -> None:
    found = read_releases(connection, model, open_only=True, limit=1)
    if found:
        raise Conflict(f"A release of {found[0].reference} is on its way ({found[0].state.label}).", "One version of a model is released at a time.",
                       f"Wait for it, or end it: davy abort {model}")


def _stable(found: list[Traffic], model: str, number: int) -> int | None:
    """The version that has all the traffic; None when none has any."""
    if not found:
        return None
    weights = found[0].versions
    if len(weights) > 1:
        said = ", ".join(f"{reference}={weight:g}" for reference, weight in found[0].weights.items())
        raise Conflict(f"The traffic of {model} is divided: {said}.", "A release begins from one version that has it all.",
                       f"Give it to the stable one first: davy traffic {model} {max(found[0].weights, key=found[0].weights.__getitem__)}=1")
    stable = next(iter(weights))
    if stable == number:
        raise Conflict(f"{model}@{number} has all the traffic already.", "", f"Release another version, or see: davy status {model}")
    return stable


def _release(row: sa.Row[Any]) -> Release:
    return Release(row.id, row.model, row.version, row.stable, msgspec.json.decode(row.policy, type=Policy), msgspec.json.decode(row.progress, type=Progress),
                   msgspec.json.decode(row.evidence, type=Findings), row.created, row.updated, row.ended, row.actor)
