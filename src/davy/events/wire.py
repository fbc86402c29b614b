"""How processes talk to the one that holds the log: length-prefixed MessagePack over a socket in the home."""

from __future__ import annotations

import hashlib
import socket
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from davy import errors
from davy.errors import DavyError
from davy.events.records import Closed, Rows
from davy.features.definition import StreamSpec, ViewSpec

if TYPE_CHECKING:
    from davy.home import Home

LONGEST_PATH = 100
_LENGTH = struct.Struct("<I")


class Declare(msgspec.Struct, array_like=True, tag="declare"):
    """Make a stream known; with `keep`, one that is known only gains fields. Answer: its declaration."""

    spec: StreamSpec
    keep: bool = False


class Streams(msgspec.Struct, array_like=True, tag="streams"):
    """Answer: all declarations."""


class Append(msgspec.Struct, array_like=True, tag="append"):
    """Push rows. Answer: a receipt."""

    stream: str
    rows: Rows
    units: dict[str, str] | None = None


class History(msgspec.Struct, array_like=True, tag="history"):
    """Load the Parquet file at this path. Answer: a receipt."""

    stream: str
    path: str


class Ensure(msgspec.Struct, array_like=True, tag="ensure"):
    """Keep views up to date. Answer: null."""

    views: list[tuple[StreamSpec, ViewSpec]]


class Flush(msgspec.Struct, array_like=True, tag="flush"):
    """Move everything into tables. Answer: null."""


class Yield(msgspec.Struct, array_like=True, tag="yield"):
    """Let go of the log: a keeper wants it. Answer: null."""


Request = Declare | Streams | Append | History | Ensure | Flush | Yield


class Reply(msgspec.Struct, array_like=True):
    """The answer, or an error as (class name, came, allowed, fix)."""

    result: msgspec.Raw = msgspec.Raw(b"\xc0")
    error: tuple[str, str, str, str] | None = None


_REQUEST: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Request)
_REPLY = msgspec.msgpack.Decoder(Reply)


def read_request(data: bytes) -> Request:
    """The request in these bytes."""
    found: Request = _REQUEST.decode(data)
    return found


def write_result(result: Any) -> bytes:
    """A reply with this result."""
    return msgspec.msgpack.encode(Reply(msgspec.Raw(msgspec.msgpack.encode(result))))


def write_error(error: DavyError) -> bytes:
    """A reply with this error."""
    return msgspec.msgpack.encode(Reply(error=(error.code, error.came, error.allowed, error.fix)))


def read_reply(data: bytes, kind: Any) -> Any:
    """The result as this type.

    Raises:
        DavyError: what the holder of the log raised.
    """
    reply = _REPLY.decode(data)
    if reply.error is None:
        return msgspec.msgpack.decode(reply.result, type=kind)
    name, *parts = reply.error
    raised: type[DavyError] = Closed if name == Closed.__name__ else getattr(errors, name, errors.Unavailable)
    raise raised(*parts)


def socket_path(home: Home) -> Path:
    """Where the holder of this home's log listens. A home whose path is too long for a socket has it in the temporary folder."""
    path = home.place("run", "log.sock")
    if len(str(path).encode()) <= LONGEST_PATH:
        return path
    name = hashlib.sha256(str(path).encode()).hexdigest()[:24]
    return Path(tempfile.gettempdir()) / f"davy-{name}.sock"


def send(connection: socket.socket, data: bytes) -> None:
    """One message."""
    connection.sendall(_LENGTH.pack(len(data)) + data)


def receive(connection: socket.socket) -> bytes | None:
    """One message, or None when the other side has gone."""
    head = _exactly(connection, _LENGTH.size)
    return None if head is None else _exactly(connection, _LENGTH.unpack(head)[0])


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    data = bytearray(size)
    view, filled = memoryview(data), 0
    while filled < size:
        count = connection.recv_into(view[filled:])
        if count == 0:
            return None
        filled += count
    return bytes(data)
