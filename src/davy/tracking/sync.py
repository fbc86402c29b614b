"""Sending what spools of ended processes hold: what `davy sync` does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from davy.errors import CorruptData, DavyError, NotFound, Unavailable
from davy.tracking.sending import HomeReceiver, Receiver, send_all
from davy.tracking.sinks import cache_folder
from davy.tracking.spool import FOLDER, Backlog, Head, spools

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from davy.home import Home

State = Literal["sent", "in use", "away", "refused"]


class Outcome(msgspec.Struct, frozen=True):
    """What became of a spool.

    Attributes:
        to: the server, or the home that it belongs to.
        state: sent (the spool is gone), in use (its own process sends it), away (it is sent next time), refused (a part is kept).
        reasons: why not all of it was sent.
    """

    run: str
    name: str
    to: str
    state: State
    path: str
    reasons: tuple[str, ...] = ()


class Waiting(msgspec.Struct, frozen=True):
    """A spool that waits, and how many records it holds, or why it can't be read."""

    path: Path
    head: Head
    home: Home | None
    records: int
    damage: str = ""


def waiting(home: Home | None) -> list[Waiting]:
    """The spools of a home, and those that belong to none."""
    found = [(home, path) for path in (spools(home.path / FOLDER) if home is not None else [])] + [(None, path) for path in spools(cache_folder())]
    items: list[Waiting] = []
    for place, path in found:
        try:
            backlog = Backlog(path)
            items.append(Waiting(path, backlog.head, place, backlog.count()))
        except NotFound:
            continue
        except CorruptData as error:
            items.append(Waiting(path, Head(path.name.partition("-")[0], path.name), place, 0, str(error)))
    return items


def sync(found: list[Waiting], *, server: str | None = None, told: Callable[[int], object] = lambda count: None) -> Iterator[Outcome]:
    """Send these spools, one after the other; what a server that is away should get is not tried again.

    Args:
        server: send those of servers to this one, whose address has changed.
        told: called with the number of records that were dealt with.
    """
    from davy.tracking.remote import without_user

    receivers: dict[str, Receiver] = {}
    away: dict[str, str] = {}
    for item in found:
        head = item.head
        to = (without_user(server) if server else head.server) if head.server else str(item.home.path if item.home is not None else item.path.parent.parent)

        def outcome(state: State, *reasons: str, to: str = to, item: Waiting = item) -> Outcome:
            return Outcome(item.head.run_id, item.head.name, to, state, str(item.path), reasons)

        if item.damage:
            yield outcome("refused", item.damage)
            continue
        if to in away:
            yield outcome("away", away[to])
            continue
        try:
            if to not in receivers:
                receivers[to] = _receiver(server or head.server) if head.server else _home_receiver(item)
            errors = send_all(item.path, receivers[to], told=told)
        except Unavailable as error:
            away[to] = error.came
            yield outcome("away", error.came)
        except DavyError as error:
            yield outcome("refused", str(error))
        else:
            yield outcome("in use") if errors is None else outcome("refused", *(str(error) for error in errors)) if errors else outcome("sent")
    for receiver in receivers.values():
        receiver.close()
    for home in {id(item.home): item.home for item in found if item.home is not None}.values():
        home.close()


def _home_receiver(item: Waiting) -> Receiver:
    if item.home is None:
        raise NotFound(f"{item.path} belongs to a project, and lies in no project's folder.", "", "Move it back into .davy/spool of its project.")
    return HomeReceiver(item.home)


def _receiver(url: str) -> Receiver:
    from davy.tracking.remote import Server, ServerReceiver, known_url

    return ServerReceiver(Server(known_url(url)))
