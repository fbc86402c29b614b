"""What becomes of four versions of one model: each is trained, judged by the gate and, if that lets it through, released while traffic flows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from davy.core.time import to_micros
from davy.demo.data import START
from davy.demo.feed import MODEL
from davy.errors import Conflict

if TYPE_CHECKING:
    from davy.demo.report import Report
    from davy.home import Home
    from davy.project import Project
    from davy.release.releases import Release

HELD_OUT_FROM = datetime(2013, 4, 21, 4, tzinfo=UTC)


class Tells(Protocol):
    """Where the story is told."""

    def note(self, text: str) -> None:
        """One line."""
        ...


@dataclass(frozen=True)
class Act:
    """One version: how `late` trains it, what is behind it, and the moment from which it may come."""

    kind: str
    about: str
    at: datetime


ACTS = (
    Act("logistic", "the baseline", START),
    Act("lightgbm", "a better model", datetime(2013, 5, 4, 4, tzinfo=UTC)),
    Act("banded", "knows no day as hot as those to come", datetime(2013, 5, 27, 4, tzinfo=UTC)),
    Act("lost", "learnt that one airline is never late", datetime(2013, 6, 10, 4, tzinfo=UTC)),
)


class Story:
    """The acts one after another, while the months are replayed. Only the judge moves traffic; this watches."""

    def __init__(self, home: Home, project: Project, report: Report, show: Tells) -> None:
        self._home, self._project, self._report, self._show = home, project, report, show
        self._left = list(ACTS)
        self._seen = -1
        self._told: dict[str, str] = {}
        self._open = False

    def go_on(self, at: int) -> None:
        """Tell what the judge has done, and begin the next act if its moment has come and no release is on its way."""
        self._watch()
        if self._left and to_micros(self._left[0].at) <= at and not self._open:
            self._perform(self._left.pop(0))

    def _perform(self, act: Act) -> None:
        from davy.gate.run import run
        from davy.release.releases import start_release
        from davy.training.train import train

        with self._report.phase("train"):
            result = train(self._project, self._home, MODEL, params={"kind": act.kind}, test_start=to_micros(HELD_OUT_FROM))
        self._report.held_out_auc[result.reference] = result.metrics["test_auc"]
        self._report.kinds[result.reference] = act.kind
        self._show.note(f"Trained {result.reference}, {act.kind}: {act.about}. AUC {result.metrics['test_auc']:.3f} on late April's flights")
        with self._report.phase("gate"):
            found, _ = run(self._home, result.reference)
        self._report.gate[result.reference] = {item.check: item.verdict for item in found.results}
        said = "passes" if found.passed else "; ".join(f"{item.check}: {item.summary}" for item in found.failed)
        self._show.note(f"The gate of {len(found.results)} checks, {found.seconds:.0f} s: {result.reference} {said}")
        try:
            start_release(self._home, result.reference)
        except Conflict as refusal:
            self._report.refused.append(result.reference)
            self._show.note(f"Not released: {refusal.came}")
        self._watch()

    def _watch(self) -> None:
        from davy.release.releases import read_releases

        seen = self._home.database.version()
        if seen == self._seen:
            return
        self._seen = seen
        with self._home.database.read() as connection:
            found = read_releases(connection, MODEL)
        self._open = any(release.ended is None for release in found)
        for release in reversed(found):
            self._tell(release)

    def _tell(self, release: Release) -> None:
        label = release.state.label
        if self._told.get(release.id) == label:
            return
        self._told[release.id] = label
        requests = release.findings.stable + release.findings.canary
        share = release.weights.get(release.reference, 0.0)
        reasons = " ".join(release.state.reasons)
        self._show.note(f"{release.reference}: {label}, {share:.0%} of traffic, after {requests:,} requests. {reasons}")
        self._report.release(release)
