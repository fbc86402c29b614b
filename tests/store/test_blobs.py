"""Content-addressed bytes on a real folder: whole, verified, or not there."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from davy.core.digest import digest_bytes
from davy.errors import ConfigError, CorruptData, InvalidInput, NotFound, StorageFull
from davy.store.blobs import CHUNK, Blobs, copy_blobs
from store.disk import small_disk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from davy.store.shelves import Stored


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
def blobs(folder: Path) -> Blobs:
    return Blobs(f"file://{folder}")


def _file(folder: Path, digest: str) -> Path:
    return folder / "sha256" / digest[7:9] / digest[7:]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@settings(max_examples=30, deadline=None)
@given(pieces=st.lists(st.binary(max_size=300)))
def test_what_is_put_is_what_is_got(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
    blobs = Blobs(f"file://{tmp_path_factory.mktemp('blobs')}")
    whole = b"".join(pieces)
    digest = blobs.put(whole)
    assert digest == f"sha256:{hashlib.sha256(whole).hexdigest()}"
    assert blobs.put_stream(pieces) == (digest, len(whole))
    assert blobs.get(digest) == b"".join(blobs.stream(digest)) == whole
    assert blobs.size(digest) == len(whole)


def test_a_large_file_goes_through_in_pieces(tmp_path: Path, blobs: Blobs) -> None:
    source = tmp_path / "source"
    content = bytes(range(256)) * (5 * CHUNK // 256) + b"end"
    source.write_bytes(content)
    digest, size = blobs.put_file(source)
    assert (digest, size) == (digest_bytes(content), len(content))
    assert blobs.download(digest, tmp_path / "far" / "copy").read_bytes() == content


def test_the_same_content_is_kept_once(folder: Path, blobs: Blobs) -> None:
    assert blobs.put(b"same") == blobs.put(bytearray(b"same")) == blobs.put_stream([b"sa", b"me"])[0]
    assert len(_files(folder)) == 1


def test_threads_that_put_the_same_content_agree(folder: Path, blobs: Blobs) -> None:
    content, digests = b"x" * 3_000_000, []
    threads = [threading.Thread(target=lambda: digests.append(blobs.put(content))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert digests == [digest_bytes(content)] * 6
    assert blobs.get(digests[0]) == content
    assert len(_files(folder)) == 1


@pytest.mark.parametrize("damage", [lambda data: b"X" + data[1:], lambda data: data[:-1], lambda data: data + b"!", lambda data: b""])
def test_a_damaged_blob_is_never_returned_and_is_mended_by_putting_it_again(tmp_path: Path, folder: Path, blobs: Blobs, damage: object) -> None:
    digest = blobs.put(b"content")
    _file(folder, digest).write_bytes(damage(b"content"))  # type: ignore[operator]
    with pytest.raises(CorruptData, match=digest[7:]):
        blobs.get(digest)
    with pytest.raises(CorruptData):
        list(blobs.stream(digest))
    with pytest.raises(CorruptData):
        blobs.download(digest, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    blobs.put(b"content")
    assert blobs.get(digest) == b"content"


def test_what_is_not_there_is_told(tmp_path: Path, blobs: Blobs) -> None:
    digest = digest_bytes(b"never put")
    assert not blobs.exists(digest)
    assert blobs.size(digest) is None
    for ask in (blobs.get, lambda name: list(blobs.stream(name)), lambda name: blobs.download(name, tmp_path / "copy")):
        with pytest.raises(NotFound, match=digest[7:]):
            ask(digest)
    with pytest.raises(NotFound, match="can't be read"):
        blobs.put_file(tmp_path / "absent")
    blobs.delete(digest)


@pytest.mark.parametrize("digest", ["", "sha256:", "../../etc/passwd", "sha256:" + "../" * 21 + "x", "sha256:" + "A" * 64, "md5:" + "0" * 64])
def test_only_a_digest_names_a_blob(blobs: Blobs, digest: str) -> None:
    with pytest.raises(InvalidInput, match="not a digest"):
        blobs.get(digest)


def test_a_stream_that_breaks_off_leaves_nothing(folder: Path, blobs: Blobs) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"x" * 20_000_000
        raise ConnectionResetError("the sender has gone")

    with pytest.raises(ConnectionResetError):
        blobs.put_stream(pieces())
    assert _files(folder) == []


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small") as disk:
        blobs = Blobs(f"file://{disk.folder / 'blobs'}")
        first = blobs.put(b"first" * 1000)
        with disk.full():
            with pytest.raises(StorageFull):
                blobs.put(b"second" * 100_000)
            with pytest.raises(StorageFull):
                blobs.put_stream([b"third" * 100_000] * 10)
            assert len(_files(disk.folder / "blobs")) == 1
            assert blobs.get(first) == b"first" * 1000
        second = blobs.put(b"second" * 100_000)
        with disk.full(), pytest.raises(StorageFull):
            blobs.download(second, disk.folder / "copy")
        assert blobs.get(second) == b"second" * 100_000


def test_kill_while_storing_leaves_no_blob_that_is_not_whole(folder: Path, blobs: Blobs) -> None:
    program = """
import sys
from davy.store.blobs import Blobs
blobs = Blobs(sys.argv[1])
number = 0
while True:
    number += 1
    blobs.put(str(number).encode() * 200_000)
    if number == 3:
        print("going", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", program, f"file://{folder}"], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "going\n"
        child.kill()
    found = _files(folder / "sha256")
    assert len(found) >= 3
    for path in found:
        assert blobs.get(f"sha256:{path.name}")


def test_what_a_kill_left_behind_is_swept_a_day_later(folder: Path, blobs: Blobs) -> None:
    digest = blobs.put(b"kept")
    for name, days in (("old", 2), ("new", 0)):
        (folder / "incoming" / name).write_bytes(b"half")
        then = time.time() - days * 86_400
        os.utime(folder / "incoming" / name, (then, then))
    os.utime(_file(folder, digest), (0, 0))
    again = Blobs(blobs.url)
    assert [path.name for path in (folder / "incoming").iterdir()] == ["new"]
    assert again.get(digest) == b"kept"


def test_a_place_that_can_not_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError):
        Blobs(f"file://{tmp_path / 'file' / 'blobs'}")
    with pytest.raises(ConfigError):
        Blobs("gopher://somewhere")


def test_a_copy_does_not_hold_the_names_of_all_blobs_at_once(tmp_path: Path) -> None:
    class Large(Blobs):
        """As if there were twenty thousand blobs."""

        named = told = ahead = 0

        def listed(self) -> Iterator[Stored]:
            one = next(iter(super().listed()))
            for self.named in range(1, 20_001):
                yield one

        def tell(self, count: int) -> None:
            self.told += count
            self.ahead = max(self.ahead, self.named - self.told)

    source, target = Large(f"file://{tmp_path / 'source'}"), Blobs(f"file://{tmp_path / 'target'}")
    source.put(b"x")
    assert copy_blobs(source, target, told=source.tell) == (20_000, 20_000)
    assert source.ahead < 2000
