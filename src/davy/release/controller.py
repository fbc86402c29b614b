"""The controller: follows the prediction log, asks the judge, and moves traffic. A process of its own, the only one of its home.

It keeps nothing that isn't in the database and the log. Killed at any moment, it finds its releases in the database, counts again from
the log what was logged since, and goes on; traffic is where the last transaction has put it.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from davy.core.signals import Stop
from davy.errors import Conflict, DavyError
from davy.home import Home
from davy.release import plan
from davy.release.evidence import Judge
from davy.release.follow import Follower, past_of
from davy.release.releases import Release, read_releases, write
from davy.release.sources import sources
from davy.serving.fleet import worker_name, workers_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from davy.release.findings import Findings
    from davy.release.sources import Source

LOOK_SECONDS = 0.05
IDLE_SECONDS = 0.1
TELL_SECONDS = 1.0
GROWTH = 1.02
ACTOR = "release controller"


class Controlled:
    """One release on its way: its row, its evidence, and where in the log it has got to."""

    def __init__(self, home: Home, release: Release, given: Sequence[Source]) -> None:
        self._home, self.release, self._sources = home, release, given
        self._follower: Follower | None = None
        self._cursors = [""] * len(given)
        self._told, self._told_at = 0, 0.0
        self._count()

    def adopt(self, release: Release) -> None:
        """Take over what somebody else has changed."""
        anew = release.state.counted != self.release.state.counted or release.progress.past != self.release.progress.past
        self.release = release
        if anew:
            self._count()

    def look(self) -> None:
        """Take in what is new, decide, and write it down if that moves something or there is something to tell."""
        if self.release.state.phase == "pending":
            self._begin()
            return
        self._take_in()
        findings = self._findings()
        policy, state, now = self.release.policy, self.release.state, self._home.clock.now()
        decision = plan.look(policy, state, findings, now)
        trouble = self._trouble()
        if trouble is not None and not decision.moved:
            decision = plan.command(policy, state, "roll back", findings, now, model=self.release.model, why=trouble)
        grown = findings.asked > self._told * GROWTH
        if decision.moved or ((grown or decision.state.reasons != state.reasons) and time.perf_counter() - self._told_at > TELL_SECONDS):
            self._write(decision, findings, point=decision.moved or grown)

    def close(self) -> None:
        """Let go of the log."""
        if self._follower is not None:
            self._follower.close()

    def _begin(self) -> None:
        """Fix stable's past, and move to the first state. A trouble that an earlier attempt has left behind is none of this one's."""
        release = self.release
        (workers_folder(self._home) / f"{worker_name(release.model, release.version)}.error").unlink(missing_ok=True)
        past = past_of(self._home, release.model, release.stable)
        decision = plan.look(release.policy, release.state, release.findings, self._home.clock.now())
        with self._home.database.begin() as connection:
            self.release = write(connection, release, decision, release.findings, clock=self._home.clock, actor=ACTOR, past=past)
        self._count()

    def _count(self) -> None:
        """Begin the counts anew, from the log."""
        self.close()
        self._follower = follower = Follower(self._home, self.release.model, self.release.id)
        release = self.release
        self._judge = Judge(release.policy, release.id, release.version, release.progress.past, release.state.counted)
        self._cursors = [""] * len(self._sources)
        for record in follower.begin():
            self._judge.add(record)

    def _take_in(self) -> None:
        assert self._follower is not None
        for record in self._follower.poll():
            self._judge.add(record)
        if self._follower.missed:
            self._count()
        for index, source in enumerate(self._sources):
            observations, self._cursors[index] = source.observations(self.release.model, self.release.id, self._cursors[index])
            for observation in observations:
                self._judge.observe(observation)

    def _findings(self) -> Findings:
        state = self.release.state
        phase = state.was if state.phase == "paused" else state.phase
        return self._judge.findings(paired=phase == "shadow", alone=self.release.policy.strategy == "blue-green")

    def _trouble(self) -> str | None:
        """Why the version can't be loaded, if its process has said so; the note goes when it is loaded after all."""
        release = self.release
        path = workers_folder(self._home) / f"{worker_name(release.model, release.version)}.error"
        if release.state.phase not in ("step", "shadow") or not path.exists():
            return None
        return f"{release.reference} can't be loaded; .davy/run/up.log says why."

    def _write(self, decision: plan.Decision, findings: Findings, *, point: bool) -> None:
        """What is told is at most a second old; the timeline gets a point with each fiftieth more requests, so that a long release makes no long table."""
        with self._home.database.begin() as connection:
            self.release = write(connection, self.release, decision, findings, clock=self._home.clock, actor=ACTOR, point=point)
        self._told_at = time.perf_counter()
        if point:
            self._told = findings.asked


class Controller:
    """All releases on their way."""

    def __init__(self, home: Home, given: Sequence[Source] | None = None) -> None:
        self._home, self._sources = home, list(sources(home) if given is None else given)
        self._controlled: dict[str, Controlled] = {}
        self._seen = -1

    @property
    def busy(self) -> bool:
        """Whether a release is on its way."""
        return bool(self._controlled)

    def look(self) -> None:
        """One look at everything."""
        seen = self._home.database.version()
        if seen != self._seen:
            self._reload()
            self._seen = seen
        for controlled in list(self._controlled.values()):
            try:
                controlled.look()
            except Conflict:  # somebody has moved it at the same moment: the next look reads what they wrote
                self._seen = -1
            if controlled.release.state.ended:
                self._drop(controlled)

    def close(self) -> None:
        """Let go of everything."""
        for controlled in list(self._controlled.values()):
            self._drop(controlled)

    def _reload(self) -> None:
        with self._home.database.read() as connection:
            present = {release.id: release for release in read_releases(connection, open_only=True)}
        for name in [name for name in self._controlled if name not in present]:
            self._drop(self._controlled[name])
        for name, release in present.items():
            if name in self._controlled:
                self._controlled[name].adopt(release)
            else:
                self._controlled[name] = Controlled(self._home, release, self._sources)

    def _drop(self, controlled: Controlled) -> None:
        controlled.close()
        self._controlled.pop(controlled.release.id, None)


def run(home: Home, stop: Stop) -> None:
    """Look until told to stop. What fails is told, and tried again."""
    controller, told = Controller(home), ""
    while not stop.wait(LOOK_SECONDS if controller.busy else IDLE_SECONDS):
        try:
            controller.look()
            told = ""
        except DavyError as error:
            if str(error) != told:
                print(f"The releases can't be looked after: {error}", file=sys.stderr, flush=True)
            told = str(error)
    controller.close()


def main() -> None:
    """`python -m davy.release.controller --project DIR --home DIR`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--home", type=Path, required=True)
    given = parser.parse_args()
    stop = Stop()
    home = Home.open(given.project, home=given.home)
    gc.freeze()
    try:
        run(home, stop)
    finally:
        home.close()


if __name__ == "__main__":
    main()
