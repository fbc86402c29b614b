"""A blob is collected only while nothing points at it, and who points at it later hears that it has gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from davy.core.digest import digest_bytes
from davy.errors import Unavailable
from davy.schema.tables import collected_blobs
from davy.store.garbage import LEASE_SECONDS, bury, claim, condemn, dig_out

if TYPE_CHECKING:
    from davy.home import Home

GONE, OTHER = digest_bytes(b"gone"), digest_bytes(b"other")


def _sentences(home: Home) -> list[str]:
    with home.database.read() as connection:
        return [row.digest for row in connection.execute(collected_blobs.select())]


def test_a_claim_before_the_sentence_finds_nothing(home: Home) -> None:
    with home.database.begin() as connection:
        claim(connection, home.blobs, [GONE, OTHER])


def test_a_condemned_blob_can_not_be_claimed_until_it_is_buried_and_stored_again(home: Home) -> None:
    home.blobs.put(b"gone")
    with home.database.begin() as connection:
        condemn(connection, [GONE])
    with pytest.raises(Unavailable, match="collected"), home.database.begin() as connection:
        claim(connection, home.blobs, [OTHER, GONE])
    home.blobs.delete(GONE)
    with home.database.begin() as connection:
        bury(connection, [GONE])
    with pytest.raises(Unavailable, match="collected"), home.database.begin() as connection:
        claim(connection, home.blobs, [GONE])
    home.blobs.put(b"gone")
    with home.database.begin() as connection:
        claim(connection, home.blobs, [GONE])
    assert _sentences(home) == []


def test_a_sentence_whose_collector_has_died_ends_with_its_lease(home: Home) -> None:
    home.blobs.put(b"gone")
    with home.database.begin() as connection:
        condemn(connection, [GONE])
        connection.execute(collected_blobs.update().values(began=collected_blobs.c.began - LEASE_SECONDS - 1))
    with home.database.begin() as connection:
        claim(connection, home.blobs, [GONE])
    assert _sentences(home) == []


def test_old_graves_are_forgotten(home: Home) -> None:
    with home.database.begin() as connection:
        condemn(connection, [GONE, OTHER])
        bury(connection, [GONE])
        assert dig_out(connection, 1000) == 0
        connection.execute(collected_blobs.update().values(ended=collected_blobs.c.ended - 2000, began=collected_blobs.c.began - 2000))
        assert dig_out(connection, 1000) == 2
