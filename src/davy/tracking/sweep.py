"""Blobs that nothing points at are removed, while others go on storing blobs and pointing at them (see store/garbage.py)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from davy.core.clock import SystemClock
from davy.schema.tables import artifacts, model_versions
from davy.store import garbage, journal
from davy.tracking.purge import living_versions
from davy.tracking.uploads import Uploads

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from davy.home import Home
    from davy.store.shelves import Stored

BATCH = 500
KEEP_SECONDS = 86_400
_CLOCK = SystemClock()  # files are as old as the machine's clock says, whatever moment a driven clock shows


class Sweep(msgspec.Struct, frozen=True):
    """What lies there: blobs that nothing points at, their bytes, and how many of them are too young to go."""

    blobs: int
    bytes: int
    young: int


def survey(home: Home, going: Collection[str], grace: int) -> Sweep:
    """What a sweep would remove once the artifacts of the owners in `going` are no more.

    Args:
        grace: a blob that nothing has pointed at yet stays for so long (microseconds): it may be about to be pointed at.
    """
    with home.database.read() as connection:
        left, leaving = _pointed(home, connection, set(going))
    count = size = young = 0
    for blob in home.blobs.listed():
        key = _short(blob.digest)
        if key in left:
            continue
        if key in leaving or blob.modified <= _CLOCK.now() - grace:
            count, size = count + 1, size + blob.size
        else:
            young += 1
    return Sweep(count, size, young)


def sweep(home: Home, *, freed: Collection[str], grace: int, actor: str) -> Iterator[Sweep]:
    """Remove the blobs that nothing points at, batch after batch; tells of each.

    Args:
        freed: digests that something pointed at until now: they needn't be old to go.
    """
    _uploads(home).sweep()
    with home.database.begin() as connection:
        garbage.dig_out(connection, KEEP_SECONDS)
    with home.database.read() as connection:
        left, _ = _pointed(home, connection, set())
    known, batch, young = set(freed), [], 0
    for blob in home.blobs.listed():
        if _short(blob.digest) in left:
            continue
        if blob.digest not in known and blob.modified > _CLOCK.now() - grace:
            young += 1
            continue
        batch.append(blob)
        if len(batch) == BATCH:
            yield _remove(home, batch, actor)
            batch = []
    if batch:
        yield _remove(home, batch, actor)
    yield Sweep(0, 0, young)


def _remove(home: Home, batch: list[Stored], actor: str) -> Sweep:
    """Condemn, delete, bury: those of the batch at which still nothing points."""
    with home.database.begin() as connection:
        digests = [blob.digest for blob in batch]
        pointed = set(connection.scalars(sa.select(artifacts.c.digest).where(artifacts.c.digest.in_(digests)))) | _version_files(connection)
        pointed |= set(_uploads(home).digests())
        condemned = [blob for blob in batch if blob.digest not in pointed]
        garbage.condemn(connection, [blob.digest for blob in condemned])
    until = time.monotonic() + garbage.LEASE_SECONDS / 2
    gone = []
    for start in range(0, len(condemned), 50):
        if time.monotonic() > until:
            break  # whoever stores one of them has waited long enough, and takes it back
        some = condemned[start:start + 50]
        home.blobs.delete(*(blob.digest for blob in some))
        gone += some
    with home.database.begin() as connection:
        garbage.bury(connection, [blob.digest for blob in gone])
        found = Sweep(len(gone), sum(blob.size for blob in gone), 0)
        if gone:
            journal.append(connection, clock=home.clock, actor=actor, action="purge.blobs", subject="blobs",
                           details={"blobs": found.blobs, "bytes": found.bytes})
    return found


def _pointed(home: Home, connection: sa.Connection, going: set[str]) -> tuple[set[bytes], set[bytes]]:
    """The digests at which something points that stays, and those at which only owners in `going` point; each as 16 bytes."""
    left = {_short(digest) for digest in (*_version_files(connection), *_uploads(home).digests())}
    leaving: set[bytes] = set()
    for row in connection.execution_options(yield_per=10_000).execute(sa.select(artifacts.c.owner, artifacts.c.digest)):
        (leaving if row.owner in going else left).add(_short(row.digest))
    return left, leaving - left


def _version_files(connection: sa.Connection) -> set[str]:
    """The files of all versions that live, or that the traffic or a release names."""
    alive = living_versions(connection)
    query = sa.select(model_versions.c.name, model_versions.c.version, model_versions.c.files).where(model_versions.c.files.is_not(None))
    return {digest for row in connection.execute(query) if (row.name, row.version) in alive
            for digest in msgspec.json.decode(row.files, type=dict[str, str]).values()}


def _uploads(home: Home) -> Uploads:
    return Uploads(home.path / "uploads")


def _short(digest: str) -> bytes:
    return bytes.fromhex(digest[7:39])
