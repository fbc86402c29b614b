"""Takes a month through a live gateway: each question at its moment, after everything that had arrived by then."""

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
        waits: microseconds per prediction, seen from here.
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
    """One month under way."""

    def __init__(self, client: Client, clock: DrivenClock, advance: Callable[[int], None] = lambda count: None) -> None:
        self._client, self._clock, self._advance = client, clock, advance
        self._answered: dict[str, _Answered] = {}
        self._decode = msgspec.json.Decoder(_Answered).decode
        self._receipt = msgspec.json.Decoder(_Receipt).decode
        self._encode = msgspec.json.Encoder().encode
        self.tally = Tally()

    def run(self, month: Month) -> Tally:
        """Take every step in order.

        Raises:
            DavyError: events were refused, or could not be delivered; a prediction that fails is counted instead.
        """
        for step in month.steps:
            self._clock.set(step.at)
            self._push(step)
            if step.asked:
                self._ask(step)
        return self.tally

    def _push(self, step: Step) -> None:
        requests = step.requests()
        known = [(self._answered.pop(flight), minutes, arrived) for flight, minutes, arrived in step.outcomes if flight in self._answered]
        if known:
            rows = [{"prediction": answered.prediction_id, "arr_delay": minutes, "time": arrived} for answered, minutes, arrived in known]
            requests.append(Request(f"/outcomes/{MODEL}", self._encode(rows)))
        if not requests:
            return
        for request, answer in zip(requests, self._client.send(requests), strict=True):
            receipt = self._taken(request, answer)
            self.tally.pushes += 1
            if not request.path.startswith("/outcomes"):
                self.tally.accepted += receipt.accepted
                self.tally.duplicates += receipt.duplicates
        self.tally.outcomes += len(known)
        for answered, minutes, _ in known:
            self.tally.scored[answered.version].append((answered.prediction, minutes > LATE_MINUTES))

    def _taken(self, request: Request, answer: Answer) -> _Receipt:
        if answer.status == 200:
            return self._receipt(answer.body)
        if answer.status == 0:
            raise Unavailable(f"The server did not take POST {request.path}.", "", "Look at what it printed, and run the demo again.")
        said: dict[str, Any] = msgspec.json.decode(answer.body)
        raise DavyError(f"POST {request.path} was answered with {answer.status}: {said.get('message', '')}", said.get("allowed", ""), said.get("fix", ""))

    def _ask(self, step: Step) -> None:
        began = time.perf_counter()
        answers = self._client.send([request for _, request in step.asked])
        self.tally.waits.append((time.perf_counter() - began) * 1e6 / len(answers))
        for (flight, _), answer in zip(step.asked, answers, strict=True):
            self.tally.requests += 1
            self.tally.retried += answer.retried
            if answer.status != 200:
                self.tally.failed += 1
                continue
            answered = self._answered[flight] = self._decode(answer.body)
            self.tally.last = answered.prediction_id
        self._advance(len(answers))
