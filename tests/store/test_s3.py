"""Blobs in an object store that speaks S3."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from davy.core.digest import digest_bytes
from davy.errors import InvalidInput, NotFound, Unavailable
from davy.store.blobs import Blobs
from davy.tracking.roots import open_root
from s3_kit import BUCKET, S3Server

if TYPE_CHECKING:
    from collections.abc import Iterator

MB = 1 << 20


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def _environment(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return Blobs(f"s3://{BUCKET}/{request.node.name}", spool=tmp_path / "spool")


def _left(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("size", [0, 1, MB, 9 * MB + 5])
def test_what_is_put_is_what_is_got(tmp_path: Path, blobs: Blobs, size: int) -> None:
    content = hashlib.shake_128(b"seed").digest(size)
    digest = blobs.put(content)
    assert digest == digest_bytes(content)
    assert blobs.put_stream([content[:size // 2], content[size // 2:]]) == (digest, size)
    assert blobs.get(digest) == content
    assert blobs.size(digest) == size
    assert blobs.download(digest, tmp_path / "copy").read_bytes() == content
    assert [(stored.digest, stored.size) for stored in blobs.listed()] == [(digest, size)]
    assert b"".join(blobs.stream_range(digest, size // 3, size // 2)) == content[size // 3:size // 2]
    assert not _left(tmp_path / "spool")


def test_what_is_there_is_not_sent_again(blobs: Blobs) -> None:
    digest = blobs.put(b"same")
    before = next(blobs.listed()).modified
    assert blobs.put(b"same") == blobs.put_stream([b"sa", b"me"])[0] == digest
    assert [stored.modified for stored in blobs.listed()] == [before]


def test_a_new_blob_costs_two_requests_and_a_known_one_costs_one(s3: S3Server, blobs: Blobs, request: pytest.FixtureRequest) -> None:
    blobs.put(b"new")
    assert s3.asked(request.node.name) == ["HEAD", "PUT"]
    blobs.put(b"new")
    blobs.put_stream([b"new"])
    assert s3.asked(request.node.name) == ["HEAD", "PUT", "HEAD", "HEAD"]


def test_what_is_not_there_is_told(blobs: Blobs) -> None:
    digest = digest_bytes(b"never put")
    assert blobs.size(digest) is None
    assert not blobs.exists(digest)
    assert list(blobs.listed()) == []
    with pytest.raises(NotFound, match=digest[7:]):
        blobs.get(digest)
    blobs.delete(digest)
    with pytest.raises(InvalidInput):
        blobs.get("sha256:../../etc")


def test_blobs_are_deleted_together(blobs: Blobs) -> None:
    digests = [blobs.put(str(number).encode()) for number in range(5)]
    blobs.delete(*digests[:3], digest_bytes(b"never put"))
    assert {stored.digest for stored in blobs.listed()} == set(digests[3:])


def test_a_stream_that_breaks_off_leaves_nothing(tmp_path: Path, blobs: Blobs) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"x" * 20 * MB
        raise ConnectionResetError("the sender has gone")

    with pytest.raises(ConnectionResetError):
        blobs.put_stream(pieces())
    assert list(blobs.listed()) == []
    assert not _left(tmp_path / "spool")


def test_anybody_may_read_by_a_signed_url(s3: S3Server, blobs: Blobs, tmp_path: Path) -> None:
    digest = blobs.put(b"shared")
    url = blobs.sign(digest, 60)
    assert url is not None
    s3.guard(False)
    try:
        with urllib.request.urlopen(url) as answer:
            assert answer.read() == b"shared"
    finally:
        s3.guard(True)
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(url.partition("?")[0])
    assert Blobs(f"file://{tmp_path}").sign(digest, 60) is None


@pytest.mark.parametrize("options", [{"secret_access_key": "wrong"}, {"access_key_id": "AKIAUNKNOWN"}])
def test_wrong_credentials_are_told(options: dict[str, str]) -> None:
    blobs = Blobs(f"s3://{BUCKET}/refused", options=options)
    for ask in (lambda: blobs.put(b"x"), lambda: blobs.get(digest_bytes(b"x")), lambda: list(blobs.listed()), lambda: blobs.delete(digest_bytes(b"x"))):
        with pytest.raises(Unavailable, match="refuses the credentials"):
            ask()


def test_a_missing_bucket_is_told() -> None:
    blobs = Blobs("s3://nowhere/prefix")
    for ask in (lambda: blobs.put(b"x"), lambda: blobs.get(digest_bytes(b"x")), lambda: blobs.size(digest_bytes(b"x")), lambda: list(blobs.listed())):
        with pytest.raises(Unavailable, match="no bucket"):
            ask()


def test_a_store_that_is_away_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    blobs = Blobs(f"s3://{BUCKET}/away", options={"endpoint": "http://127.0.0.1:9"}, spool=tmp_path)
    with pytest.raises(Unavailable, match="try again") as found:
        blobs.put(b"x" * 2 * MB)
    assert found.value.retry
    assert not _left(tmp_path)


def test_a_bucket_that_is_an_experiments_own_root(s3: S3Server) -> None:
    import obstore

    from davy.store.shelves import open_store

    uri = f"s3://{BUCKET}/own"
    store = open_store(uri, {}, "x")
    for path in ("a.txt", "model/MLmodel", "model/code/x.py"):
        obstore.put(store, path, path.encode())
    root = open_root(uri, [f"s3://{BUCKET}/own"], {})
    assert [(item.path, item.is_dir, item.size) for item in root.files("")] == [("a.txt", False, 5), ("model", True, None)]
    assert [item.path for item in root.files("model")] == ["MLmodel", "code"]
    assert root.files("nowhere") == root.files("a.txt") == []
    assert (root.size("a.txt"), root.size("model"), root.size("b")) == (5, None, None)
    assert b"".join(root.pieces("a.txt", 1, 5)) == b".txt"
