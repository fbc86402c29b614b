"""The light client keeps its connections, reads answers that come in pieces, and survives a server that goes away."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from davy.demo.client import Client, Request, health
from davy.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOST = "127.0.0.1"


def reply(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d Fine\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


@contextmanager
def serving(answer: Callable[[int, bytes], list[bytes] | None], port: int = 0) -> Iterator[int]:
    """A server that asks `answer(number, body)` what to write, piece by piece; None closes the connection."""
    listener = socket.create_server((HOST, port))
    counter = iter(range(1_000_000))

    def talk(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            while True:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    line = stream.readline()
                    if not line:
                        return
                    head += line
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
                pieces = answer(next(counter), stream.read(length))
                if pieces is None:
                    return
                for piece in pieces:
                    connection.sendall(piece)
                    time.sleep(0.001)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def requests(count: int) -> list[Request]:
    return [Request("/predict/late", b'{"n":%d}' % number) for number in range(count)]


def test_answers_come_in_the_order_of_the_requests_over_few_connections() -> None:
    with serving(lambda _, body: [reply(200, body)]) as port:
        client = Client(HOST, port, connections=3)
        answers = client.send(requests(10))
        client.close()
    assert [(answer.status, answer.body, answer.retried) for answer in answers] == [(200, b'{"n":%d}' % number, False) for number in range(10)]


def test_an_answer_may_come_in_pieces() -> None:
    with serving(lambda _, body: [b"HTTP/1.1 200 OK\r\ncontent-", b"length: 7\r\n\r", b"\n", body[:3], body[3:]]) as port:
        client = Client(HOST, port)
        assert client.send(requests(1))[0].body == b'{"n":0}'
        client.close()


def test_a_closed_connection_and_a_busy_server_are_tried_again() -> None:
    said = {0: None, 1: [reply(503, b"{}")]}
    with serving(lambda number, body: said.get(number, [reply(200, body)])) as port:
        client = Client(HOST, port, connections=1)
        answers = client.send(requests(2))
        client.close()
    assert [(answer.status, answer.retried) for answer in answers] == [(200, True), (200, False)]


def test_a_refusal_is_final() -> None:
    with serving(lambda number, _: [reply(400, b'{"error":"InvalidInput"}')] if number == 0 else None) as port:
        client = Client(HOST, port, connections=1)
        assert client.send(requests(1))[0].status == 400
        client.close()


def test_a_server_that_comes_back_is_found_again() -> None:
    client: Client
    with serving(lambda _, body: [reply(200, body)]) as port:
        client = Client(HOST, port, connections=2)
        assert [answer.status for answer in client.send(requests(2))] == [200, 200]

    def return_later() -> None:
        time.sleep(0.1)
        with serving(lambda _, body: [reply(200, body)], port):
            done.wait(20)

    done = threading.Event()
    thread = threading.Thread(target=return_later)
    thread.start()
    answers = client.send(requests(2))
    done.set()
    client.close()
    thread.join()
    assert [answer.status for answer in answers] == [200, 200]


def test_nobody_there_counts_as_failed_after_the_patience() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
    client = Client(HOST, port, connections=1, patience=0.1)
    assert client.send(requests(1))[0].status == 0
    with pytest.raises(Unavailable, match="davy up"):
        health(HOST, port)


def test_health_is_an_answer_of_200() -> None:
    with serving(lambda number, _: [reply(503 if number == 0 else 200, b"{}")]) as port:
        with pytest.raises(Unavailable, match="not ready"):
            health(HOST, port)
        assert health(HOST, port) == b"{}"
