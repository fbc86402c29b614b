"""Content-addressed bytes: a blob's name is the SHA-256 of its content, and every read verifies it.

A blob appears whole or not at all: it is written under another name and renamed. In a local folder it is also
on disk (fsync) before its digest is returned, so that a committed row never points at bytes that a loss of
power took away.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, from_url

from davy.core.clock import SystemClock
from davy.core.digest import digest_bytes
from davy.errors import ConfigError, CorruptData, DavyError, InvalidInput, NotFound, StorageFull, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CHUNK = 1 << 20
INCOMING = "incoming"
ABANDONED_SECONDS = 86_400
_UNIQUE = SystemClock()
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Blobs:
    """The blobs under one URL.

    Args:
        url: `file:///folder` (made when absent), or an object store's, such as `s3://bucket/prefix`.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._folder: Path | None = None
        if url.startswith("file://"):
            self._folder = Path(url.removeprefix("file://"))
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"The folder {self._folder} can't be made: {error.strerror}.", "It must be a folder that can be written.",
                                  "Mend storage.blobs in davy.toml, or the folder.") from error
            self._store: obstore.store.ObjectStore = LocalStore(self._folder)
            _sweep(self._folder / INCOMING)
        else:
            try:
                self._store = from_url(url)
            except (BaseError, ValueError) as error:
                raise ConfigError(f"Blobs can't be kept at {url!r}: {error}.", "It is file:///folder, or an object store such as s3://bucket/prefix.",
                                  "Mend storage.blobs in davy.toml.") from error

    def put(self, data: bytes | bytearray | memoryview) -> str:
        """Store these bytes; returns their digest. A blob that is there already is left, unless it is damaged: then it is replaced.

        Raises:
            StorageFull: nothing was stored.
        """
        digest = digest_bytes(data)
        if not self._intact(digest):
            self._place(digest, bytes(data))
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

    def put_stream(self, pieces: Iterable[bytes]) -> tuple[str, int]:
        """Store bytes as they come, of any length; returns digest and size. What was taken is dropped when `pieces` raises."""
        hasher, size = hashlib.sha256(), 0
        broken: Exception | None = None

        def counted() -> Iterator[bytes]:
            nonlocal size, broken
            try:
                for piece in pieces:
                    hasher.update(piece)
                    size += len(piece)
                    yield piece
            except Exception as error:
                broken = error
                raise

        incoming = f"{INCOMING}/{_UNIQUE.token(16).hex()}"
        try:
            with self._told(incoming):
                obstore.put(self._store, incoming, counted())
                digest = f"sha256:{hasher.hexdigest()}"
                self._sync(incoming)
                obstore.rename(self._store, incoming, _key(digest))
                self._sync_folder(digest)
        except BaseException:
            with suppress(BaseError, OSError):
                obstore.delete(self._store, incoming)
            if broken is not None:
                raise broken from None
            raise
        return digest, size

    def get(self, digest: str) -> bytes:
        """The content, verified.

        Raises:
            NotFound: there is no such blob.
            CorruptData: the stored bytes are not those that were put.
        """
        return b"".join(self.stream(digest))

    def stream(self, digest: str) -> Iterator[bytes]:
        """The content in pieces; `CorruptData` is raised after the last piece when they were not what was put."""
        hasher = hashlib.sha256()
        with self._told(digest):
            for piece in self._pieces(_key(digest)):
                hasher.update(piece)
                yield piece
        if f"sha256:{hasher.hexdigest()}" != digest:
            raise self._damaged(digest)

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
            raise _explain(error, str(path)) from error
        finally:
            partial.unlink(missing_ok=True)
        return path

    def size(self, digest: str) -> int | None:
        """The stored number of bytes, or None where there is no such blob."""
        try:
            with self._told(digest):
                return int(obstore.head(self._store, _key(digest))["size"])
        except NotFound:
            return None

    def exists(self, digest: str) -> bool:
        """Whether there is such a blob, not whether it is intact."""
        return self.size(digest) is not None

    def delete(self, digest: str) -> None:
        """Remove the blob. If no such blob exists, this is a no-op."""
        with suppress(NotFound), self._told(digest):
            obstore.delete(self._store, _key(digest))

    def _pieces(self, key: str) -> Iterator[bytes]:
        """The stored bytes as they are; a local file is read by this thread alone."""
        if self._folder is not None:
            with (self._folder / key).open("rb") as file:
                yield from iter(lambda: file.read(CHUNK), b"")
            return
        for piece in obstore.get(self._store, key).stream(min_chunk_size=CHUNK):
            yield bytes(piece)

    def _intact(self, digest: str) -> bool:
        try:
            self.get(digest)
        except (NotFound, CorruptData):
            return False
        return True

    def _place(self, digest: str, data: bytes) -> None:
        incoming = f"{INCOMING}/{_UNIQUE.token(16).hex()}"
        with self._told(digest):
            if self._folder is None:
                obstore.put(self._store, _key(digest), data)
                return
            try:
                obstore.put(self._store, incoming, data, use_multipart=False)
                self._sync(incoming)
                obstore.rename(self._store, incoming, _key(digest))
            except BaseException:
                with suppress(BaseError, OSError):
                    obstore.delete(self._store, incoming)
                raise
            self._sync_folder(digest)

    def _sync(self, key: str) -> None:
        if self._folder is not None:
            _fsync(self._folder / key)

    def _sync_folder(self, digest: str) -> None:
        if self._folder is not None:
            folder = (self._folder / _key(digest)).parent
            _fsync(folder)
            _fsync(folder.parent)

    def _damaged(self, digest: str) -> CorruptData:
        where = self._folder / _key(digest) if self._folder is not None else f"{self.url}/{_key(digest)}"
        return CorruptData(f"The blob {digest} is damaged: {where} holds other bytes.", "Its content must have the digest that names it.",
                           "Restore that file from a backup, or store the content again.")

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except (NotFoundError, FileNotFoundError) as error:
            raise NotFound(f"There is no blob {what} in {self.url}.", "", "Check the digest, or restore the blobs from a backup.") from error
        except (BaseError, OSError) as error:
            raise _explain(error, self.url) from error


def _key(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise InvalidInput(f"{digest!r} is not a digest.", "A digest is sha256: and 64 hex digits.", "Check where it came from.")
    return f"sha256/{digest[7:9]}/{digest[7:]}"


def _sweep(folder: Path) -> None:
    """Remove what killed processes left half-written a day ago and longer."""
    oldest = _UNIQUE.now() / 1e6 - ABANDONED_SECONDS
    with suppress(FileNotFoundError):
        for entry in list(os.scandir(folder)):
            if entry.stat().st_mtime < oldest:
                os.unlink(entry)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explain(error: Exception, where: str) -> DavyError:
    text = str(error)
    if "os error 28" in text or "os error 27" in text or "os error 122" in text or getattr(error, "errno", 0) in (27, 28, 122):
        return StorageFull(f"No space is left for {where}.", "Nothing was stored.", "Free space, then try again.")
    return Unavailable(f"{where} failed: {text.splitlines()[0] if text else type(error).__name__}.", "",
                       "Check that it can be reached and written, then try again.")
