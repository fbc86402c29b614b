"""Prediction records that can't go into a table: they are kept beside the logs, each once, so that they hold up no others."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FILE = "unreadable"
_LOG = logging.getLogger("davy.serving")


class Unreadable(msgspec.Struct):
    """A line of the file `unreadable`: a record, where it was, and why it is here. `record` is what the log held, in Base64.

    Attributes:
        id, model, version, feature_set: as the record says; empty, and 0, when it is no prediction at all.
    """

    gateway: str
    position: int
    id: str
    model: str
    version: int
    feature_set: str
    record: bytes
    why: str = ""


_LINE = msgspec.json.Decoder(Unreadable)


def set_aside(folder: Path, records: Sequence[Unreadable]) -> None:
    """Keep these records in the folder's file, and warn. One that is kept already, because a flush was killed after it, is passed over."""
    from davy.events.streams import replace_file

    path = folder / FILE
    lines = path.read_bytes().splitlines() if path.exists() else []
    kept = {(line.gateway, line.position) for line in map(_LINE.decode, lines)}
    fresh = [record for record in records if (record.gateway, record.position) not in kept]
    if fresh:
        replace_file(path, b"".join(line + b"\n" for line in (*lines, *map(msgspec.json.encode, fresh))))
    for why in dict.fromkeys(record.why for record in fresh):
        alike = [record for record in fresh if record.why == why]
        _LOG.warning("%d predictions of %s can't be moved into a table: %s. They are kept in %s.", len(alike), alike[0].model or "no known model", why, path)
