"""Takes messages to their webhooks: each until it was taken, in the order of its alert, and none waits for a webhook that hangs."""

from __future__ import annotations

import http.client
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import sqlalchemy as sa

from davy.core.clock import SystemClock
from davy.schema.tables import alert_deliveries as deliveries

if TYPE_CHECKING:
    from davy.home import Home

PATIENCE_SECONDS = 10.0
FIRST_PAUSE, LONGEST_PAUSE = 1_000_000, 600_000_000
MOST_ATTEMPTS = 50
AT_ONCE = 8


class _Delivery(NamedTuple):
    id: str
    rule: str
    subject: str
    url: str
    body: str
    attempts: int


class Sent(NamedTuple):
    """The newest message of an alert. It was taken when it `ended` (microseconds) without a problem, and given up when with one."""

    attempts: int
    ended: int | None
    problem: str | None

    @property
    def state(self) -> str:
        """As people read it."""
        if self.ended is not None:
            return "delivered" if self.problem is None else "given up"
        return "being sent" if self.problem is None else "tried again"


def deliveries_of(home: Home) -> dict[tuple[str, str], Sent]:
    """Per rule and subject, the newest message; an alert whose rule has no webhook has none."""
    columns = (deliveries.c.rule, deliveries.c.subject, deliveries.c.attempts, deliveries.c.ended, deliveries.c.problem)
    newest = sa.select(sa.func.max(deliveries.c.id)).group_by(deliveries.c.rule, deliveries.c.subject)
    with home.database.read() as connection:
        rows = connection.execute(sa.select(*columns).where(deliveries.c.id.in_(newest))).all()
    return {(row.rule, row.subject): Sent(row.attempts, row.ended, row.problem) for row in rows}


class Courier:
    """Sends what is due. `send` returns at once; the sending is done by threads, one at a time for each address.

    Args:
        patience: seconds that one attempt may take in all.
    """

    def __init__(self, home: Home, *, patience: float = PATIENCE_SECONDS) -> None:
        self._home, self._patience = home, patience
        self._under_way: dict[str, threading.Thread] = {}

    def send(self) -> int:
        """Start the attempts that are due; returns how many."""
        self._under_way = {url: thread for url, thread in self._under_way.items() if thread.is_alive()}
        started = 0
        for delivery in self._due():
            if delivery.url not in self._under_way and len(self._under_way) < AT_ONCE:
                thread = threading.Thread(target=self._attempt, args=(delivery,), name="courier", daemon=True)
                self._under_way[delivery.url] = thread
                thread.start()
                started += 1
        return started

    def wait(self) -> None:
        """Return when nothing is under way."""
        for thread in list(self._under_way.values()):
            thread.join()

    def _due(self) -> list[_Delivery]:
        """Of each alert and subject the oldest message that was not taken yet, if its time has come."""
        columns = (deliveries.c.id, deliveries.c.rule, deliveries.c.subject, deliveries.c.url, deliveries.c.body, deliveries.c.attempts, deliveries.c.due)
        with self._home.database.read() as connection:
            rows = connection.execute(sa.select(*columns).where(deliveries.c.ended.is_(None)).order_by(deliveries.c.id)).all()
        first: dict[tuple[str, str, str], Any] = {}
        for row in rows:
            first.setdefault((row.rule, row.subject, row.url), row)
        now = SystemClock().now()
        return [_Delivery(row.id, row.rule, row.subject, row.url, row.body, row.attempts) for row in first.values() if row.due <= now]

    def _attempt(self, delivery: _Delivery) -> None:
        problem = post(delivery.url, delivery.body.encode(), delivery.id, self._patience)
        now, attempts = SystemClock().now(), delivery.attempts + 1
        pause = min(FIRST_PAUSE << min(attempts - 1, 20), LONGEST_PAUSE)
        ended = now if problem is None or attempts >= MOST_ATTEMPTS else None
        with self._home.database.begin() as connection:
            changed = {"attempts": attempts, "due": now + pause, "ended": ended, "problem": problem}
            connection.execute(sa.update(deliveries).where(deliveries.c.id == delivery.id).values(changed))


def post(url: str, body: bytes, id: str, patience: float) -> str | None:
    """POST a JSON body; None when it was taken (any 2xx), otherwise what went wrong. `Davy-Delivery` is the same in every attempt."""
    parts = urlsplit(url)
    made = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = made(parts.netloc, timeout=patience)
    late = threading.Event()
    end = threading.Timer(patience, _cut, [connection, late])  # a webhook that sends a byte now and then never runs into a socket's own limit
    end.daemon = True
    end.start()
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, body, {"content-type": "application/json", "davy-delivery": id, "user-agent": "davy"})
        status = connection.getresponse().status
        return None if 200 <= status < 300 else f"answered with {status}"
    except TimeoutError:
        return f"no answer within {patience:g} s"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"no answer within {patience:g} s" if late.is_set() else f"{type(error).__name__}: {error}"
    finally:
        end.cancel()
        connection.close()


def _cut(connection: http.client.HTTPConnection, late: threading.Event) -> None:
    late.set()
    with suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)
