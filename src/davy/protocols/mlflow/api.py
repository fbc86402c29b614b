"""MLflow's REST API as a table of endpoints, and what carries a request to one and its answer back.

An endpoint that writes runs in the group writer, one that reads in a snapshot on a thread; what moves files is
`streaming` and has the whole exchange in its hands.
"""

from __future__ import annotations

import asyncio
import re
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

import msgspec

from davy.errors import DavyError
from davy.protocols.mlflow.wire import Message, MlflowError, error_body, invalid, read_json, read_query, translated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    import sqlalchemy as sa

    from davy.auth.permissions import Identity
    from davy.core.clock import Clock
    from davy.home import Home
    from davy.store.writer import GroupWriter

T = TypeVar("T")
LARGEST_BODY, SHORT_BODY = 32 << 20, 1 << 20
READERS = 4
JSON = [("content-type", "application/json"), ("x-content-type-options", "nosniff")]
_encoder = msgspec.json.Encoder()


class Call(msgspec.Struct):
    """What an endpoint may use: the home, the transaction or snapshot that it runs in, and who asks."""

    home: Home
    connection: sa.Connection
    actor: str
    identity: Identity | None = None

    @property
    def clock(self) -> Clock:
        """The home's clock."""
        return self.home.clock

    def owner(self, claimed: str | None) -> str:
        """Whose a run is: of who is logged in, or, where nobody is asked, of whom the client names."""
        asked = self.identity is not None and self.identity.means != "local"
        return self.actor if asked or not claimed else claimed


class Endpoint(msgspec.Struct, frozen=True):
    """One method of one path."""

    method: str
    path: str
    handler: Callable[..., Any]
    request: type[Message] | None = None
    required: tuple[str, ...] = ()
    write: bool = False


class Exchange:
    """One request whose body or answer is streamed.

    Attributes:
        scope: RSGI's scope. protocol: RSGI's protocol: iterate it for the body, answer through it for a streamed answer.
    """

    def __init__(self, api: Api, scope: Any, protocol: Any, actor: str, identity: Any) -> None:
        self.scope, self.protocol, self.home, self.actor, self.identity = scope, protocol, api.home, actor, identity
        self._api = api

    async def write(self, work: Callable[[sa.Connection], T]) -> T:
        """What `work` returns, once its transaction is committed."""
        return await asyncio.wrap_future(self._api.writer.submit(work))

    async def read(self, work: Callable[[sa.Connection], T]) -> T:
        """What `work` finds in a snapshot."""
        return await self.thread(lambda: self._api.snapshot(work))

    async def thread(self, work: Callable[[], T]) -> T:
        """What `work` returns, done on a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._api.pool, work)

    @cached_property
    def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes, by `anext`: Granian gives one iterator of it, once, and `async for` would ask again."""
        found: AsyncIterator[bytes] = aiter(self.protocol)
        return found

    async def body(self, most: int = LARGEST_BODY) -> bytes:
        """The whole body of a small request."""
        return await read_whole(self.protocol, most)

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Answer with these bytes."""
        self.protocol.response_bytes(status, headers, body)


ENDPOINTS: dict[tuple[str, str], Endpoint] = {}
PATTERNS: list[tuple[str, re.Pattern[str], Endpoint]] = []


def endpoint(method: str, path: str, request: type[Message], *, required: tuple[str, ...] = (), write: bool = False,
             api: str = "2.0") -> Callable[[Callable[[Call, Any], Any]], Callable[[Call, Any], Any]]:
    """Register a function of (call, request) as an endpoint under `/api/<api>/mlflow/` and the browser's `/ajax-api/`.

    Args:
        path: `runs/create`, or with parts in braces that become fields of the request: `logged-models/{model_id}`.
        required: fields that must be set, in the order in which they are asked for.
        write: it changes something, so that it runs in a write transaction.
    """
    def register(handler: Callable[[Call, Any], Any]) -> Callable[[Call, Any], Any]:
        for prefix in ("api", "ajax-api"):
            _register(Endpoint(method, f"/{prefix}/{api}/mlflow/{path}", handler, request, required, write))
        return handler
    return register


def streaming(method: str, path: str) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., Awaitable[None]]]:
    """Register a coroutine function of (exchange, *path parts) for a whole path, such as `/get-artifact` or `/x/{path:path}`."""
    def register(handler: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        _register(Endpoint(method, path, handler))
        return handler
    return register


def _register(found: Endpoint) -> None:
    if "{" not in found.path:
        ENDPOINTS[found.method, found.path] = found
        return
    pattern = re.sub(r"\\{(\w+):path\\}", r"(?P<\1>.*)", re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(found.path)))
    PATTERNS.append((found.method, re.compile(pattern, re.DOTALL), found))


class Api:
    """Answers requests of MLflow's clients.

    Attributes:
        pool: threads for reading and for files.
    """

    def __init__(self, home: Home, writer: GroupWriter) -> None:
        self.home, self.writer = home, writer
        self.pool = ThreadPoolExecutor(READERS, thread_name_prefix="reader")
        package = import_module("davy.protocols.mlflow")
        for module in iter_modules(package.__path__):
            import_module(f"{package.__name__}.{module.name}")

    def close(self) -> None:
        """Finish what is being written."""
        self.pool.shutdown()
        self.writer.close()

    def snapshot(self, work: Callable[[sa.Connection], T]) -> T:
        """What `work` finds in one snapshot."""
        with self.home.database.read() as connection:
            return work(connection)

    async def __call__(self, scope: Any, protocol: Any, identity: Any = None) -> None:
        """Answer one request."""
        try:
            await self._answer(scope, protocol, identity)
        except MlflowError as error:
            self._complain(protocol, error)
        except DavyError as error:
            self._complain(protocol, translated(error))
        except Exception as error:  # noqa: BLE001 - the last line of defence: a bug becomes a 500 and a trace in the server's log
            traceback.print_exception(error, file=sys.stderr)
            self._complain(protocol, MlflowError("INTERNAL_ERROR", f"This is a bug in Davy: {type(error).__name__}: {error}"))

    async def _answer(self, scope: Any, protocol: Any, identity: Any) -> None:
        found, parts = find(scope.method, scope.path)
        actor = self.home.actor if identity is None else identity.name
        if found.request is None:
            await found.handler(Exchange(self, scope, protocol, actor, identity), **parts)
            return
        asked = await _read(found, parts, scope, protocol, self.pool)

        def work(connection: sa.Connection) -> bytes:
            return _encoder.encode(found.handler(Call(self.home, connection, actor, identity), asked))

        if found.write:
            answer = await asyncio.wrap_future(self.writer.submit(work))
        else:
            answer = await asyncio.get_running_loop().run_in_executor(self.pool, self.snapshot, work)
        protocol.response_bytes(200, JSON, answer)

    def _complain(self, protocol: Any, error: MlflowError) -> None:
        headers = [*JSON, ("retry-after", "1")] if error.status in (429, 503) else JSON
        protocol.response_bytes(error.status, headers, error_body(error.code, error.message))


def find(method: str, path: str) -> tuple[Endpoint, Mapping[str, str]]:
    """The endpoint of a request and the parts of its path.

    Raises:
        MlflowError: ENDPOINT_NOT_FOUND.
    """
    found = ENDPOINTS.get((method, path))
    if found is not None:
        return found, {}
    for verb, pattern, candidate in PATTERNS:
        match = pattern.fullmatch(path) if verb == method else None
        if match is not None:
            return candidate, match.groupdict()
    known = sorted({verb for verb, where in ENDPOINTS if where == path} | {verb for verb, pattern, _ in PATTERNS if pattern.fullmatch(path)})
    raise MlflowError("ENDPOINT_NOT_FOUND", f"{method} is not there for {path}; it takes {', '.join(known)}." if known else
                      f"No endpoint of MLflow's API that Davy serves is at {path}.")


async def _read(found: Endpoint, parts: Mapping[str, str], scope: Any, protocol: Any, pool: ThreadPoolExecutor) -> Message:
    assert found.request is not None
    required = tuple(name for name in found.required if name not in parts)
    if scope.method == "GET":
        asked = read_query(found.request, scope.query_string, required)
    else:
        kind = (scope.headers.get("content-type") or "").partition(";")[0].strip().lower()
        length = scope.headers.get("content-length") or ""
        small = length.isdigit() and int(length) <= LARGEST_BODY
        body = bytes(await protocol()) if small else await read_whole(protocol, LARGEST_BODY)
        if kind != "application/json" and (body or kind):
            raise invalid("Bad Request. Content-Type must be one of ['application/json']." if kind else "Bad Request. Content-Type header is missing.")
        if len(body) <= SHORT_BODY:
            asked = read_json(found.request, body, required)
        else:  # reading it takes long enough to keep others waiting
            asked = await asyncio.get_running_loop().run_in_executor(pool, read_json, found.request, body, required)
    for name, value in parts.items():
        setattr(asked, name, unquote(value))
    return asked


async def read_whole(protocol: Any, most: int) -> bytes:
    """The body, if it has at most so many bytes."""
    pieces, size = [], 0
    async for piece in protocol:
        size += len(piece)
        if size <= most:
            pieces.append(bytes(piece))
        elif size > 8 * most:
            break
    if size > most:
        raise invalid(f"The request body has more than {most} bytes, which is the most that is taken at once. Send it in parts.")
    return b"".join(pieces)
