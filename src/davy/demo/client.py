"""A client light enough to measure a server that shares its two cores: HTTP/1.1 over a few kept connections.

No event loop and no threads: a round of requests is written, one to a connection, and then the answers are read.
A connection that breaks is made again and its request sent again, so the server may be restarted meanwhile.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from typing import NamedTuple

from davy.errors import Unavailable

_BUFFER = 65_536
_PAUSES = (0.02, 0.05, 0.1, 0.2, 0.5)
_TRY_AGAIN = (429, 503, 507)


class Answer(NamedTuple):
    """What came back. `retried` says that it took more than one attempt."""

    status: int
    body: bytes
    retried: bool = False


class Request(NamedTuple):
    """A POST with a JSON body, ready to be written."""

    path: str
    body: bytes


class _Gone(Exception):
    """The other side closed, refused, or spoke no HTTP."""


class Client:
    """Sends rounds of requests.

    Args:
        connections: how many are under way at once.
        patience: seconds in which a request is tried again before it counts as failed.
    """

    def __init__(self, host: str, port: int, *, connections: int = 8, patience: float = 30.0, timeout: float = 10.0) -> None:
        self._address, self._patience, self._timeout = (host, port), patience, timeout
        self._sockets: list[socket.socket | None] = [None] * connections
        self._host = f"{host}:{port}".encode()

    def send(self, requests: Sequence[Request]) -> list[Answer]:
        """The answers in the order of the requests; a failed one has the last status seen, or 0 when nothing answered."""
        answers: list[Answer] = []
        width = len(self._sockets)
        for start in range(0, len(requests), width):
            wave = requests[start:start + width]
            written = [self._write(slot, request) for slot, request in enumerate(wave)]
            deadline = time.perf_counter() + self._patience
            answers += [self._finish(slot, request, sent, deadline) for slot, (request, sent) in enumerate(zip(wave, written, strict=True))]
        return answers

    def close(self) -> None:
        """Close the connections."""
        for slot in range(len(self._sockets)):
            self._drop(slot)

    def _write(self, slot: int, request: Request) -> bool:
        try:
            connection = self._sockets[slot] or self._connect(slot)
            connection.sendall(b"POST %b HTTP/1.1\r\nhost: %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                               % (request.path.encode(), self._host, len(request.body), request.body))
        except OSError:
            self._drop(slot)
            return False
        return True

    def _finish(self, slot: int, request: Request, sent: bool, deadline: float) -> Answer:
        answer = self._read(slot) if sent else None
        if answer is not None and answer.status not in _TRY_AGAIN:
            return answer
        attempt = 0
        while time.perf_counter() < deadline:
            time.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
            attempt += 1
            found = self._read(slot) if self._write(slot, request) else None
            answer = found or answer
            if found is not None and found.status not in _TRY_AGAIN:
                return found._replace(retried=True)
        return answer._replace(retried=True) if answer is not None else Answer(0, b"", retried=True)

    def _read(self, slot: int) -> Answer | None:
        connection = self._sockets[slot]
        if connection is None:
            return None
        try:
            return _read_answer(connection)
        except (OSError, ValueError, _Gone):
            self._drop(slot)
            return None

    def _connect(self, slot: int) -> socket.socket:
        connection = socket.create_connection(self._address, timeout=self._timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets[slot] = connection
        return connection

    def _drop(self, slot: int) -> None:
        connection = self._sockets[slot]
        if connection is not None:
            connection.close()
            self._sockets[slot] = None


def _read_answer(connection: socket.socket) -> Answer:
    data = _more(connection)
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += _more(connection)
    head = data[:end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        raise _Gone("an answer without a length")
    length = int(head[at + 17:].split(b"\r\n", 1)[0])
    body = data[end + 4:]
    while len(body) < length:
        body += _more(connection)
    return Answer(int(head[9:12]), body)


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(_BUFFER)
    if not data:
        raise _Gone("closed before the whole answer")
    return data


def health(host: str, port: int, *, timeout: float = 10.0) -> bytes:
    """What `GET /health` says.

    Raises:
        Unavailable: it does not answer 200.
    """
    try:
        with socket.create_connection((host, port), timeout=timeout) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: %b\r\nconnection: close\r\n\r\n" % host.encode())
            answer = _read_answer(connection)
    except (OSError, ValueError, _Gone) as error:
        raise Unavailable(f"The server at {host}:{port} does not answer: {error}.", "", "Start it again: davy up") from error
    if answer.status != 200:
        raise Unavailable(f"The server at {host}:{port} is not ready: {answer.body.decode(errors='replace')}", "", "Try again in a moment.")
    return answer.body
