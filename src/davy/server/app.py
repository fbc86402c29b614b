"""The RSGI application: predictions, events, outcomes and health natively, everything else through the pages' ASGI application."""

from __future__ import annotations

import asyncio
import sys
import traceback
from typing import TYPE_CHECKING, Any

import msgspec

from davy.errors import DavyError, InvalidInput, NotFound, TooLarge, Unavailable
from davy.server.refusals import JSON, refusal
from davy.serving.requests import LARGEST_BODY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from davy.auth.permissions import Identity
    from davy.protocols.mlflow.api import Api
    from davy.server.adapter import Adapter
    from davy.server.door import Door
    from davy.server.events import EventsClient
    from davy.serving.gateway import Gateway

MLFLOW = ("/api/", "/ajax-api/", "/get-artifact", "/model-versions/get-artifact", "/v1/traces", "/version")
LARGEST_FORM = 64 << 10  # pages take forms alone, and the login's from anybody
_BUG = "Please report it with what .davy/run/up.log says."
_DECODER = msgspec.json.Decoder()


class App:
    """Answers requests.

    Args:
        gateway: what predicts, if this process does. events: what takes events, if this process does.
        door: who may come in.

    Attributes:
        pages: the ASGI application behind all other paths, once it is loaded.
    """

    def __init__(self, gateway: Gateway | None, events: EventsClient | None, door: Door) -> None:
        self._gateway, self._events = gateway, events
        self._origins, self._guard, self._local = door.origins, door.guard, door.local
        self.pages: Adapter | None = None
        self._mlflow: Api | None = None
        self._ready, self._tracking = asyncio.Event(), asyncio.Event()
        self._posts: dict[str, Callable[[list[str], Any, bytes], Awaitable[bytes]]] = {
            "predict": self._predict, "events": self._push, "outcomes": self._outcomes}

    @property
    def tracks_alone(self) -> bool:
        """Whether this process tracks runs and models, and does nothing else."""
        return self._gateway is None

    @property
    def ready(self) -> bool:
        """Whether every model with traffic has been started or has failed to."""
        return self._ready.is_set()

    def become_ready(self) -> None:
        """Everything is up that can be."""
        self._ready.set()

    async def until_ready(self) -> None:
        """Return when everything is up that can be."""
        await self._ready.wait()

    def track(self, api: Api) -> None:
        """Answer MLflow's clients from now on; those that have asked already have waited for this."""
        self._mlflow = api
        self._tracking.set()

    def close(self) -> None:
        """Finish what MLflow's clients have written."""
        if self._mlflow is not None:
            self._mlflow.close()

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """One request."""
        if scope.proto != "http":
            protocol.close(403)
            return
        try:
            self._origins.check(scope)
            identity = self._local if self._guard is None else await self._guard.admit(scope)
            parts = scope.path.split("/")
            answer = self._posts.get(parts[1]) if len(parts) > 1 else None
            if answer is None and scope.path.startswith(MLFLOW):
                await self._tracking.wait()
                assert self._mlflow is not None
                await self._mlflow(scope, protocol, identity)
            elif answer is not None:
                if scope.method != "POST":
                    raise InvalidInput(f"{scope.method} {scope.path} is not there.", "It is asked with POST and a JSON body.", f"curl -X POST … {scope.path}")
                body = await read_body(scope, protocol)
                protocol.response_bytes(200, JSON, await answer(parts[2:], scope, body))
            elif scope.path == "/health":
                self._health(protocol, identity)
            elif self.pages is not None:
                await self.pages(scope, protocol, await read_body(scope, protocol, LARGEST_FORM), identity)
            else:
                raise Unavailable("The pages are being loaded.", "", "Try again in a moment.")
        except DavyError as error:
            protocol.response_bytes(*refusal(scope, error))
        except Exception as error:  # noqa: BLE001 - the last line of defence: a bug becomes a 500 and a trace in the server's log
            traceback.print_exception(error, file=sys.stderr)
            protocol.response_bytes(500, JSON, msgspec.json.encode(
                {"error": "InternalError", "message": f"This is a bug in Davy: {type(error).__name__}: {error}", "allowed": "", "fix": _BUG, "retry": False}))

    async def _predict(self, names: list[str], scope: Any, body: bytes) -> bytes:
        version = None
        if len(names) == 3 and names[1] == "versions":
            if not (names[2].isascii() and names[2].isdigit() and len(names[2]) < 10):
                raise InvalidInput(f"{names[2]!r} is not a version.", "A version is a number.", f"POST /predict/{names[0]}/versions/1")
            version = int(names[2])
        elif len(names) != 1 or not names[0]:
            raise nowhere(scope.path)
        if self._gateway is None:
            raise _elsewhere("predicts")
        return await self._gateway.predict(names[0], body, version=version, routing_key=scope.headers.get("davy-routing-key"))

    async def _push(self, names: list[str], scope: Any, body: bytes) -> bytes:
        if len(names) != 1 or not names[0]:
            raise nowhere(scope.path)
        if self._events is None:
            raise _elsewhere("takes events")
        return msgspec.json.encode(await self._events.push(names[0], _rows(body)))

    async def _outcomes(self, names: list[str], scope: Any, body: bytes) -> bytes:
        if len(names) != 1 or not names[0]:
            raise nowhere(scope.path)
        if self._events is None:
            raise _elsewhere("takes outcomes")
        return msgspec.json.encode(await self._events.outcomes(names[0], _rows(body)))

    def _health(self, protocol: Any, identity: Identity | None) -> None:
        """200 once everything that can be up is; what can't be is named, to whom is known."""
        found: dict[str, Any] = {"status": "ok" if self.ready else "starting"}
        if self._gateway is not None and identity is not None:
            found |= self._served(self._gateway)
        protocol.response_bytes(200 if self.ready else 503, JSON, msgspec.json.encode(found))

    def _served(self, gateway: Gateway) -> dict[str, Any]:
        routes = gateway.routes
        return {
            "models": {name: {"revision": route.revision, "versions": sorted(route.versions)} for name, route in sorted(routes.models.items())},
            "shadow": {"asked": gateway.shadows.asked, "dropped": gateway.shadows.dropped},
            "problems": {name: problem.came for name, problem in sorted(routes.problems.items())},
        }


async def read_body(scope: Any, protocol: Any, most: int = LARGEST_BODY) -> bytes:
    """The whole body, of at most so many bytes.

    Raises:
        TooLarge: more than is taken at once. The rest is read and dropped, so that the client hears of it, unless it is far too much.
    """
    length = scope.headers.get("content-length")
    if length is not None and length.isdigit() and int(length) <= most:
        found: bytes = await protocol()
        return found
    parts, size = [], 0
    async for part in protocol:
        size += len(part)
        if size <= most:
            parts.append(part)
        elif size > 8 * most:
            break
    if size > most:
        raise TooLarge(f"The body has {length or f'more than {most}'} bytes.", f"At most {most} are taken at once.", "Send it in parts.")
    return b"".join(parts)


def _rows(body: bytes) -> list[dict[str, Any]]:
    """The rows of a push: an array of objects, or one object."""
    try:
        found = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"The body is not JSON: {error}.", "JSON has no NaN and no Infinity; what is missing is null.",
                           "Send an array of objects, as application/json.") from None
    rows = found if isinstance(found, list) else [found]
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InvalidInput(f"Row {index} is {row!r}.", "A row is an object of fields.", "Send an array of objects, as application/json.")
    return rows


def _elsewhere(what: str) -> NotFound:
    return NotFound(f"This server tracks runs and models alone; another {what}.", "It was started with --only tracking.", "Start everything: davy up")


def nowhere(path: str) -> NotFound:
    """What is said of a path that leads to nothing."""
    return NotFound(f"There is nothing at {path}.", "Known are POST /predict/MODEL[/versions/V], /events/STREAM and /outcomes/MODEL, and GET /health.",
                    "Correct the path.")
