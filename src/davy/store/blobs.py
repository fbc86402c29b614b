"""Content-addressed bytes: a blob's name is the SHA-256 of its content, and every read of a whole blob verifies it.

A blob appears whole or not at all. In a local folder it is written under another name, brought to the disk
(fsync) and renamed, all before its digest is returned, so that a committed row never points at bytes that a loss
of power took away. For an object store, which cannot rename, it is hashed on its way into a local file first and
sent once, to its final name; the store's answer stands for the fsync.
"""

from __future__ import annotations

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from davy.core.clock import SystemClock
from davy.core.digest import digest_bytes
from davy.errors import CorruptData, InvalidInput, NotFound
from davy.store.shelves import LocalShelf, ObjectShelf, Stored, explain, explained, key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from davy.store.incoming import Incoming
    from davy.store.shelves import Shelf

CHUNK = 1 << 20
COPIERS = 8
LARGEST_REREAD = 4 << 20
_AT_ONCE = 1000
_UNIQUE = SystemClock()
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Blobs:
    """The blobs under one URL.

    Args:
        url: `file:///folder` (made when absent), or an object store's, such as `s3://bucket/prefix`.
        options: what an object store needs beyond the environment (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...), by obstore's names, such as `endpoint`.
        spool: the local folder through which content goes to an object store (default: the system's folder of temporary files).
    """

    def __init__(self, url: str, *, options: Mapping[str, str] | None = None, spool: Path | None = None) -> None:
        self.url, self._local = url, url.startswith("file://")
        self._shelf: Shelf = LocalShelf(Path(url.removeprefix("file://"))) if self._local else ObjectShelf(url, options or {}, spool)

    def put(self, data: bytes | bytearray | memoryview) -> str:
        """Store these bytes; returns their digest.

        A blob that is there already is left. In a local folder it is read again first when it is small, and written again when it is not,
        so that damage is mended; an object store, which checks its own bytes, is asked for the size only.

        Raises:
            StorageFull: nothing was stored.
        """
        digest = digest_bytes(data)
        if not self._holds(digest, len(data)):
            self.put_stream((data,))  # which asks an object store itself
        return digest

    def put_file(self, path: Path) -> tuple[str, int]:
        """Store a file's content in pieces of a megabyte; returns digest and size.

        Raises:
            NotFound: there is no such file.
            StorageFull: nothing was stored.
        """
        try:
            with path.open("rb") as file:
                return self.put_stream(iter(lambda: file.read(CHUNK), b""))
        except OSError as error:
            raise NotFound(f"The file {path} can't be read: {error.strerror}.", "", "Correct the path, or its permissions.") from error

    def put_stream(self, pieces: Iterable[bytes | bytearray | memoryview]) -> tuple[str, int]:
        """Store bytes as they come, of any length; returns digest and size. What was taken is dropped when `pieces` raises."""
        with self.incoming() as incoming:
            for piece in pieces:
                incoming.write(piece)
            return incoming.finish()

    def incoming(self) -> Incoming:
        """A blob that is about to come, for who gets its bytes in turns. Use it as a context manager: what is not finished is dropped."""
        return self._shelf.incoming()

    def get(self, digest: str) -> bytes:
        """The content, verified.

        Raises:
            NotFound: there is no such blob.
            CorruptData: the stored bytes are not those that were put.
        """
        return b"".join(self.stream(digest))

    def stream(self, digest: str) -> Iterator[bytes]:
        """The content in pieces; `CorruptData` is raised before the last piece when they are not what was put."""
        hasher, held = hashlib.sha256(), b""
        with self._told(digest):
            for piece in self._shelf.pieces(_key(digest), 0, None):
                if held:
                    yield held
                hasher.update(piece)
                held = piece
        if f"sha256:{hasher.hexdigest()}" != digest:
            raise CorruptData(f"The blob {digest} is damaged: {self._shelf.where(_key(digest))} holds other bytes.",
                              "Its content must have the digest that names it.", "Restore that file from a backup, or store the content again.")
        if held:
            yield held

    def stream_range(self, digest: str, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to `end` in pieces, as they lie there: a part can't be verified."""
        with self._told(digest):
            yield from self._shelf.pieces(_key(digest), start, end)

    def download(self, digest: str, path: Path) -> Path:
        """Write the content to `path`, which appears whole and verified or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{_UNIQUE.token(4).hex()}")
        try:
            with partial.open("xb") as file:
                for piece in self.stream(digest):
                    file.write(piece)
            partial.replace(path)
        except OSError as error:
            raise explain(error, str(path)) from error
        finally:
            partial.unlink(missing_ok=True)
        return path

    def size(self, digest: str) -> int | None:
        """The stored number of bytes, or None where there is no such blob."""
        try:
            with self._told(digest):
                return self._shelf.size(_key(digest))
        except NotFound:
            return None

    def exists(self, digest: str) -> bool:
        """Whether there is such a blob, not whether it is intact."""
        return self.size(digest) is not None

    def delete(self, *digests: str) -> None:
        """Remove these blobs. One that does not exist is passed over."""
        with explained(self.url):
            self._shelf.delete([_key(digest) for digest in digests])

    def listed(self) -> Iterator[Stored]:
        """All blobs, in no order."""
        with explained(self.url):
            yield from self._shelf.listed()

    def sign(self, digest: str, seconds: int) -> str | None:
        """A URL by which anybody may read the blob for so long, or None where the blobs lie in no object store that can sign."""
        with explained(self.url):
            return self._shelf.sign(_key(digest), seconds)

    def _holds(self, digest: str, size: int) -> bool:
        """Whether this content lies in the local folder, intact."""
        if not self._local or size > LARGEST_REREAD:
            return False
        try:
            self.get(digest)
        except (NotFound, CorruptData):
            return False
        return True

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            with explained(self.url):
                yield
        except FileNotFoundError as error:
            raise NotFound(f"There is no blob {what} in {self.url}.", "", "Check the digest, or restore the blobs from a backup.") from error


def copy_blobs(source: Blobs, target: Blobs, *, told: Callable[[int], object] = lambda count: None) -> tuple[int, int]:
    """Copy every blob that the target lacks; returns how many of the source's it has then, and their bytes.

    Each is verified on its way. One that is there with its size is not sent again.

    Raises:
        CorruptData: a blob of the source is damaged; what was copied before stays.
    """
    def copy(blob: Stored) -> int:
        if target.size(blob.digest) != blob.size:
            target.put_stream(source.stream(blob.digest))
        told(1)
        return blob.size

    count, size, listed = 0, 0, source.listed()
    with ThreadPoolExecutor(COPIERS) as pool:
        while some := list(islice(listed, _AT_ONCE)):  # a pool takes all that it is given at once
            count, size = count + len(some), size + sum(pool.map(copy, some))
    return count, size


def _key(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise InvalidInput(f"{digest!r} is not a digest.", "A digest is sha256: and 64 hex digits.", "Check where it came from.")
    return key_of(digest)
