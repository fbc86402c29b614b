"""Takes a month through a live gateway: each question at its moment, after everything that had arrived before."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from davy.demo.client import Answer, Client, Request
from davy.demo.feed import MODEL
from davy.errors import DavyError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from davy.core.clock import DrivenClock
    from davy.demo.feed import Month, Step

LATE_MINUTES = 15
MOST_FAILED = 20


class _Answered(msgspec.Struct):
    prediction_id: str
    prediction: float
    version: int


class _Receipt(msgspec.Struct):
    accepted: int
    duplicates: int = 0
    set_aside: int = 0


@dataclass(slots=True)
class Tally:
    """What happened.

    Attributes:
        requests: predictions asked for; `failed` of them were never answered with 200, `retried` took more than one attempt.
        pushes: requests with events or outcomes; `accepted` rows of them were taken, `duplicates` had been there before.
        scored: per version the answers whose outcome is known: (probability, was late).
        waits: microseconds per prediction where nothing else was sent, seen from here.
        last: the last prediction's id.
    """

    requests: int = 0
    failed: int = 0
    retried: int = 0
    pushes: int = 0
    accepted: int = 0
    duplicates: int = 0
    outcomes: int = 0
    scored: dict[int, list[tuple[float, bool]]] = field(default_factory=lambda: defaultdict(list))
    waits: list[float] = field(default_factory=list)
    last: str = ""


class Replay:
    """One month under way.

    Args:
        advance: told how many predictions were asked for.
        before: told each moment, before anything happens at it.
    """

    def __init__(self, client: Client, clock: DrivenClock, advance: Callable[[int], None] = lambda count: None,
                 before: Callable[[int], None] = lambda at: None) -> None:
        self._client, self._clock, self._advance, self._before = client, clock, advance, before
        self._answered: dict[str, _Answered] = {}
        self._decode = msgspec.json.Decoder(_Answered).decode
        self._receipt = msgspec.json.Decoder(_Receipt).decode
        self._encode = msgspec.json.Encoder().encode
        self.tally = Tally()

    def run(self, month: Month) -> Tally:
        """Take every step in order.

        Raises:
            DavyError: events were refused, or could not be delivered, or too many predictions failed; a single one is counted.
        """
        for step in month.steps:
            self._clock.set(step.at)
            self._before(step.at)
            self._take(step)
        return self.tally

    def _take(self, step: Step) -> None:
        """Everything of one moment at once, as it would be: a question may or may not see what arrives at that very moment."""
        pushes = step.requests()
        known = [(self._answered.pop(flight), minutes, arrived) for flight, minutes, arrived in step.outcomes if flight in self._answered]
        if known:
            rows = [{"prediction": answered.prediction_id, "arr_delay": minutes, "time": arrived} for answered, minutes, arrived in known]
            pushes.append(Request(f"/outcomes/{MODEL}", self._encode(rows)))
        began = time.perf_counter()
        answers = self._client.send([*pushes, *(request for _, request in step.asked)])
        if step.asked and not pushes:
            self.tally.waits.append((time.perf_counter() - began) * 1e6 / len(answers))
        for request, answer in zip(pushes, answers, strict=False):
            self._pushed(request, answer)
        self._asked(step, answers[len(pushes):])
        self.tally.outcomes += len(known)
        for answered, minutes, _ in known:
            self.tally.scored[answered.version].append((answered.prediction, minutes > LATE_MINUTES))

    def _pushed(self, request: Request, answer: Answer) -> None:
        receipt = self._taken(request, answer)
        self.tally.pushes += 1
        if not request.path.startswith("/outcomes"):
            self.tally.accepted += receipt.accepted
            self.tally.duplicates += receipt.duplicates

    def _taken(self, request: Request, answer: Answer) -> _Receipt:
        if answer.status == 200:
            return self._receipt(answer.body)
        if answer.status == 0:
            raise Unavailable(f"The server did not take POST {request.path}.", "", "Look at what it printed, and run the demo again.")
        said: dict[str, Any] = msgspec.json.decode(answer.body)
        raise DavyError(f"POST {request.path} was answered with {answer.status}: {said.get('message', '')}", said.get("allowed", ""), said.get("fix", ""))

    def _asked(self, step: Step, answers: list[Answer]) -> None:
        for (flight, _), answer in zip(step.asked, answers, strict=True):
            self.tally.requests += 1
            self.tally.retried += answer.retried
            if answer.status != 200:
                self._failed(answer)
                continue
            answered = self._answered[flight] = self._decode(answer.body)
            self.tally.last = answered.prediction_id
        if answers:
            self._advance(len(answers))

    def _failed(self, answer: Answer) -> None:
        self.tally.failed += 1
        if self.tally.failed >= MOST_FAILED:
            raise Unavailable(f"{self.tally.failed} predictions failed; the last was answered with {answer.status}: {answer.body.decode(errors='replace')}", "",
                              "Look at .davy/run/up.log in the demo's folder, and run the demo again.")
