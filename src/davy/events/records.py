"""What the log writes ahead, and what it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from davy.errors import Unavailable
from davy.features.definition import EventBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

Column = list[int | str | None]


class Held(Unavailable):
    """Another process holds the log."""


class Closed(Unavailable):
    """The log is closed, and took nothing of what was asked: another process may hold it now."""


class Receipt(msgspec.Struct, frozen=True):
    """What became of a push.

    Attributes:
        accepted: events that are in the log now, durable and readable.
        duplicates: events that were there before, by their id (or, for a whole history, by its content).
        set_aside: events further in the future than the stream's tolerance: durable, and in the log when their time has come.
        first_offset: of the first accepted event; 0 where none was.
        last_offset: of the last accepted event; 0 where none was.
        ingest_time: microseconds at which the last accepted event counts as arrived.
        clamped: accepted events of a history that had arrived, by their declaration, before what was in the log already. They count as
            arrived after it, so that `as_known="ingest"` does not see them at earlier moments.
    """

    stream: str
    accepted: int = 0
    duplicates: int = 0
    set_aside: int = 0
    first_offset: int = 0
    last_offset: int = 0
    ingest_time: int = 0
    clamped: int = 0


class Rows(msgspec.Struct, array_like=True):
    """Events in stored form that have no place in the log yet."""

    times: list[int]
    columns: dict[str, Column]
    ids: list[str] | None = None

    def __len__(self) -> int:
        return len(self.times)

    def pick(self, indexes: Sequence[int]) -> Rows:
        """The events at these indexes, in this order."""
        return Rows([self.times[i] for i in indexes],
                    {name: [values[i] for i in indexes] for name, values in self.columns.items()},
                    None if self.ids is None else [self.ids[i] for i in indexes])

    def extend(self, other: Rows) -> None:
        """Add the events of `other`, which has the same columns."""
        self.times += other.times
        for name, values in self.columns.items():
            values += other.columns[name]
        if self.ids is not None:
            self.ids += other.ids or []


class Taken(msgspec.Struct, array_like=True, tag="taken"):
    """Events that entered the log; `released` are the numbers of set-aside events that are among them."""

    batch: EventBatch
    released: list[int] = []


class Aside(msgspec.Struct, array_like=True, tag="aside"):
    """Events that wait for their time, each under a number of its own.

    With a `load`, they count only if the stream's table has committed that load of a history.
    """

    stream: str
    numbers: list[int]
    rows: Rows
    load: str = ""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Taken | Aside)


def encode(record: Taken | Aside) -> bytes:
    """The record as the write-ahead log holds it."""
    return _ENCODER.encode(record)


def decode(data: bytes) -> Taken | Aside:
    """The record that `encode` wrote."""
    found: Taken | Aside = _DECODER.decode(data)
    return found
