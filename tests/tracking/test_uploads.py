"""What becomes of uploads that nobody completes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from davy.errors import NotFound, TooLarge, Unavailable
from davy.store.garbage import bury, claim, condemn
from davy.tracking.sweep import sweep
from davy.tracking.uploads import ABANDONED_SECONDS, Uploads

if TYPE_CHECKING:
    from davy.home import Home


def _part(uploads: Uploads, upload_id: str, number: int, data: bytes) -> tuple[int, str]:
    with uploads.part(upload_id, number) as part:
        part.write(data)
        return number, part.finish()[0]


def test_parts_together_may_not_be_too_large(home: Home, tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    upload_id = uploads.create("a/b")
    parts = [_part(uploads, upload_id, number, b"x" * 100) for number in (1, 2, 3)]
    with pytest.raises(TooLarge, match="300 bytes"):
        uploads.complete(upload_id, parts, home.blobs, 299)
    digest, size = uploads.complete(upload_id, parts, home.blobs, 300)
    assert (home.blobs.get(digest), size) == (b"x" * 300, 300)
    assert list(uploads.digests()) == [digest]


def test_what_was_abandoned_is_removed_a_week_later(home: Home) -> None:
    uploads = Uploads(home.path / "uploads")
    old, new = uploads.create("old"), uploads.create("new")
    for upload_id in (old, new):
        _part(uploads, upload_id, 1, b"part")
    folder = home.path / "uploads" / old
    then = folder.stat().st_mtime - ABANDONED_SECONDS - 1
    os.utime(folder, (then, then))
    list(sweep(home, freed=(), grace=0, actor="ada"))
    with pytest.raises(NotFound):
        uploads.get(old)
    assert uploads.get(new).path == "new"


def test_a_complete_upload_whose_file_is_not_indexed_yet_is_not_collected(home: Home) -> None:
    uploads = Uploads(home.path / "uploads")
    upload_id = uploads.create("x")
    digest, _ = uploads.complete(upload_id, [_part(uploads, upload_id, 1, b"part")], home.blobs, 10)
    list(sweep(home, freed=(), grace=0, actor="ada"))
    assert home.blobs.exists(digest)
    uploads.indexed(upload_id)
    assert uploads.complete(upload_id, [], home.blobs, 10) == (digest, 4)
    list(sweep(home, freed=(), grace=0, actor="ada"))
    assert not home.blobs.exists(digest)


def test_a_blob_that_was_collected_before_it_was_indexed_is_made_again_of_its_parts(home: Home) -> None:
    uploads = Uploads(home.path / "uploads")
    upload_id = uploads.create("x")
    parts = [_part(uploads, upload_id, 1, b"part")]
    digest, _ = uploads.complete(upload_id, parts, home.blobs, 10)
    with home.database.begin() as connection:  # a collector that looked just before
        condemn(connection, [digest])
    home.blobs.delete(digest)
    with home.database.begin() as connection:
        bury(connection, [digest])
    with pytest.raises(Unavailable), home.database.begin() as connection:
        claim(connection, home.blobs, [digest])
    assert uploads.complete(upload_id, parts, home.blobs, 10) == (digest, 4)
    with home.database.begin() as connection:
        claim(connection, home.blobs, [digest])
    uploads.indexed(upload_id)
    assert [path.name for path in (home.path / "uploads" / upload_id).iterdir()] == ["upload.json"]
