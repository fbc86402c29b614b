"""An ASGI application (the pages) behind our RSGI one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from davy.auth.permissions import Identity

    Message = MutableMapping[str, Any]
    AsgiApp = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


class Adapter:
    """Translates one request at a time; no lifespan, no websockets."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def __call__(self, scope: Any, protocol: Any, body: bytes, identity: Identity | None) -> None:
        """Let the application answer; it finds who asks in `request.state.identity`, and RSGI's own scope in `request.state.exchange`."""
        exchange = _Exchange(protocol, body)
        try:
            await self._app(_scope(scope, identity), exchange.receive, exchange.send)
        finally:
            exchange.close()


class _Exchange:
    def __init__(self, protocol: Any, body: bytes) -> None:
        self._protocol = protocol
        self._body: bytes | None = body
        self._status, self._headers = 500, [("content-type", "text/plain")]
        self._stream: Any = None
        self._gone: asyncio.Future[None] | None = None

    async def receive(self) -> Message:
        """The whole body first, then the client's going away."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        if self._gone is None:
            self._gone = asyncio.ensure_future(self._protocol.client_disconnect())
        await asyncio.shield(self._gone)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """The head is kept until the first piece of the body says whether there will be more."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message.get("headers", ())]
            return
        body, more = bytes(message.get("body", b"")), message.get("more_body", False)
        if self._stream is None and not more:
            if body:
                self._protocol.response_bytes(self._status, self._headers, body)
            else:
                self._protocol.response_empty(self._status, self._headers)
            return
        if self._stream is None:
            self._stream = self._protocol.response_stream(self._status, self._headers)
        if body:
            await self._stream.send_bytes(body)

    def close(self) -> None:
        if self._gone is not None:
            self._gone.cancel()


def _scope(scope: Any, identity: Identity | None) -> Message:
    client, _, client_port = scope.client.rpartition(":")
    server, _, server_port = scope.server.rpartition(":")
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": scope.http_version, "method": scope.method, "scheme": scope.scheme,
        "path": scope.path, "raw_path": quote(scope.path).encode(), "query_string": scope.query_string.encode(), "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in scope.headers.items()],
        "client": (client, int(client_port or 0)), "server": (server, int(server_port or 0)),
        "state": {"identity": identity, "exchange": scope}, "extensions": {},
    }
