"""Digests of what moved into a stream's table, so that an event that was altered later can be found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import polars as pl
import sqlalchemy as sa

from davy.events.frames import OFFSET, ContentDigest, untyped
from davy.schema.tables import log_segments
from davy.store.database import insert

if TYPE_CHECKING:
    from collections.abc import Sequence

    from davy.features.definition import StreamSpec
    from davy.home import Home
    from davy.store.tables import Table

ROWS = 1_000_000


class Segment(msgspec.Struct, frozen=True):
    """Consecutive events of a stream and the digest of their content."""

    stream: str
    first_offset: int
    last_offset: int
    digest: str


def recorded(home: Home, stream: str) -> list[Segment]:
    """The stream's segments in order."""
    query = sa.select(log_segments).where(log_segments.c.stream == stream).order_by(log_segments.c.first_offset)
    with home.database.read() as connection:
        return [Segment(*row) for row in connection.execute(query)]


def segment_of(stream: str, stored: pl.DataFrame) -> Segment:
    """The segment that these events in stored form make up."""
    digest = ContentDigest()
    digest.update(stored)
    return Segment(stream, int(stored[OFFSET][0]), int(stored[OFFSET][-1]), f"sha256:{digest.hexdigest()}")


def record(home: Home, spec: StreamSpec, table: Table, segments: Sequence[Segment]) -> None:
    """Record these segments, and whatever the table holds before them that none covers because a crash came between."""
    with home.database.read() as connection:
        last = connection.execute(sa.select(sa.func.max(log_segments.c.last_offset)).where(log_segments.c.stream == spec.name)).scalar() or 0
    found = [segment for segment in segments if segment.first_offset > last]
    until = found[0].first_offset - 1 if found else last
    while last < until:
        end = min(last + ROWS, until)
        found.append(Segment(spec.name, last + 1, end, content(spec, table, last + 1, end)))
        last = end
    if found:
        with home.database.begin() as connection:
            connection.execute(insert(connection, log_segments).on_conflict_do_nothing(), [msgspec.structs.asdict(segment) for segment in found])


def content(spec: StreamSpec, table: Table, first: int, last: int) -> str:
    """The digest of these events as the table has them now."""
    found = table.collect(table.scan().filter(pl.col(OFFSET).is_between(first, last)).sort(OFFSET))
    return segment_of(spec.name, untyped(spec, found)).digest if found.height else ""


def altered(home: Home, spec: StreamSpec, table: Table) -> list[Segment]:
    """The segments whose events are no longer what was written. Reads the whole table: about half a second per million events."""
    found: list[Segment] = []
    group: list[Segment] = []
    for segment in recorded(home, spec.name):
        group.append(segment)
        if segment.last_offset - group[0].first_offset >= ROWS:
            found += _altered(spec, table, group)
            group = []
    return found + _altered(spec, table, group) if group else found


def _altered(spec: StreamSpec, table: Table, group: Sequence[Segment]) -> list[Segment]:
    """Of these consecutive segments, read at once."""
    between = pl.col(OFFSET).is_between(group[0].first_offset, group[-1].last_offset)
    stored = untyped(spec, table.collect(table.scan().filter(between).sort(OFFSET)))
    offsets, found = stored[OFFSET].to_numpy(), []
    for segment in group:
        start, end = offsets.searchsorted(segment.first_offset), offsets.searchsorted(segment.last_offset, side="right")
        if start == end or segment_of(spec.name, stored[start:end]) != segment:
            found.append(segment)
    return found
