"""Content-addressed bytes: a blob's name is the SHA-256 of its content, and every read of a whole blob verifies it.

A blob appears whole or not at all. In a local folder it is written under another name, brought to the disk
(fsync) and renamed, all before its digest is returned, so that a committed row never points at bytes that a loss
of power took away. For an object store, which cannot rename, it is hashed on its way into a local file first and
sent once, to its final name; the store's answer stands for the fsync.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import obstore
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError
from obstore.store import LocalStore, S3Store, from_url

from davy.core.clock import SystemClock
from davy.core.digest import digest_bytes
from davy.errors import ConfigError, CorruptData, DavyError, InvalidInput, NotFound, StorageFull, Unavailable
from davy.store.incoming import Incoming, LocalIncoming, SpooledIncoming

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import BinaryIO

CHUNK = 1 << 20
INCOMING = "incoming"
ABANDONED_SECONDS = 86_400
LARGEST_REREAD = 4 << 20
_UNIQUE = SystemClock()
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PART, _MOST_PARTS, _FETCH = 8 << 20, 9_000, 16 << 20
_CODE = re.compile(r"<Code>(\w+)</Code>")
_REFUSED = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken", "InvalidToken", "403 Forbidden"}


class Stored(msgspec.Struct, frozen=True):
    """A blob as it lies there: when it was last put, in microseconds."""

    digest: str
    size: int
    modified: int


class Blobs:
    """The blobs under one URL.

    Args:
        url: `file:///folder` (made when absent), or an object store's, such as `s3://bucket/prefix`.
        options: what an object store needs beyond the environment (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...), by obstore's names, such as `endpoint`.
        spool: the local folder through which content goes to an object store (default: the system's folder of temporary files).
    """

    def __init__(self, url: str, *, options: Mapping[str, str] | None = None, spool: Path | None = None) -> None:
        self.url = url
        self._spool = spool
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
            self._store = open_store(url, options or {}, "storage.blobs")

    def put(self, data: bytes | bytearray | memoryview) -> str:
        """Store these bytes; returns their digest.

        A blob that is there already is left. In a local folder it is read again first when it is small, and written again when it is not,
        so that damage is mended; an object store, which checks its own bytes, is asked for the size only.

        Raises:
            StorageFull: nothing was stored.
        """
        digest = digest_bytes(data)
        if not self._holds(digest, len(data)):
            incoming = self.incoming()
            with incoming:
                incoming.write(data)
                incoming.finish()
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
        with self.incoming() as incoming:
            for piece in pieces:
                incoming.write(piece)
            return incoming.finish()

    def incoming(self) -> Incoming:
        """A blob that is about to come, for who gets its bytes in turns. Use it as a context manager: what is not finished is dropped."""
        if self._folder is not None:
            return LocalIncoming(self._folder / INCOMING, _UNIQUE.token(16).hex(), self._arrive, self.explain)
        return SpooledIncoming(self._spool, self._send, self.explain)

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
            for piece in self._pieces(_key(digest)):
                if held:
                    yield held
                hasher.update(piece)
                held = piece
        if f"sha256:{hasher.hexdigest()}" != digest:
            raise self._damaged(digest)
        if held:
            yield held

    def stream_range(self, digest: str, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to `end` in pieces, as they lie there: a part can't be verified."""
        with self._told(digest):
            yield from self._pieces(_key(digest), start, end)

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
                return self._size(_key(digest))
        except NotFound:
            return None

    def exists(self, digest: str) -> bool:
        """Whether there is such a blob, not whether it is intact."""
        return self.size(digest) is not None

    def delete(self, *digests: str) -> None:
        """Remove these blobs. One that does not exist is passed over."""
        keys = [_key(digest) for digest in digests]
        if self._folder is None:
            if keys:
                with suppress(NotFound), self._told(digests[0]):
                    obstore.delete(self._store, keys)
            return
        for key in keys:
            with suppress(NotFound), self._told(key):
                (self._folder / key).unlink()

    def listed(self) -> Iterator[Stored]:
        """All blobs, in no order."""
        with self._told("sha256:*"):
            if self._folder is not None:
                yield from _scan(self._folder / "sha256")
                return
            for chunk in obstore.list(self._store, "sha256", chunk_size=1000):
                for found in chunk:
                    digest = f"sha256:{found['path'].rsplit('/', 1)[-1]}"
                    if _DIGEST.fullmatch(digest):
                        yield Stored(digest, found["size"], int(found["last_modified"].timestamp() * 1e6))

    def sign(self, digest: str, seconds: int) -> str | None:
        """A URL by which anybody may read the blob for so long, or None where the blobs lie in no object store that can sign."""
        if not isinstance(self._store, S3Store):
            return None
        with self._told(digest):
            return obstore.sign(self._store, "GET", _key(digest), timedelta(seconds=seconds))

    def explain(self, error: Exception) -> DavyError:
        """Our error for one of the disk or the object store."""
        return _explain(error, self.url)

    def _size(self, key: str) -> int:
        if self._folder is not None:
            return (self._folder / key).stat().st_size
        return int(obstore.head(self._store, key)["size"])

    def _pieces(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The stored bytes as they are. A local file is read by this thread alone; an object is fetched in ranges, each of which is tried again by itself."""
        if self._folder is not None:
            with (self._folder / key).open("rb") as file:
                file.seek(start)
                left = None if end is None else end - start
                while piece := file.read(CHUNK if left is None else min(CHUNK, left)):
                    left = None if left is None else left - len(piece)
                    yield piece
            return
        end = self._size(key) if end is None else end
        for begin in range(start, end, _FETCH):
            yield bytes(obstore.get_range(self._store, key, start=begin, end=min(begin + _FETCH, end)))

    def _holds(self, digest: str, size: int) -> bool:
        """Whether this content need not be stored again."""
        if self._folder is None:
            return self.size(digest) == size
        if size > LARGEST_REREAD:
            return False
        try:
            self.get(digest)
        except (NotFound, CorruptData):
            return False
        return True

    def _arrive(self, path: Path, digest: str) -> None:
        """Give a file that is on disk its name."""
        assert self._folder is not None
        target = self._folder / _key(digest)
        try:
            path.replace(target)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            _fsync(target.parent.parent)
            path.replace(target)
        _fsync(target.parent)

    def _send(self, file: BinaryIO, size: int, digest: str) -> None:
        """Bring a spooled file to the object store, unless it is there."""
        if self.size(digest) == size:
            return
        with self._told(digest):
            file.seek(0)
            if size <= _PART:
                obstore.put(self._store, _key(digest), file.read(), use_multipart=False)
            else:
                obstore.put(self._store, _key(digest), file, chunk_size=max(_PART, size // _MOST_PARTS + 1), max_concurrency=4)

    def _damaged(self, digest: str) -> CorruptData:
        where = self._folder / _key(digest) if self._folder is not None else f"{self.url}/{_key(digest)}"
        return CorruptData(f"The blob {digest} is damaged: {where} holds other bytes.", "Its content must have the digest that names it.",
                           "Restore that file from a backup, or store the content again.")

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except (NotFoundError, FileNotFoundError) as error:
            if "NoSuchBucket" in str(error) or not self._bucket_there():
                raise _explain(Exception("<Code>NoSuchBucket</Code>"), self.url) from error
            raise NotFound(f"There is no blob {what} in {self.url}.", "", "Check the digest, or restore the blobs from a backup.") from error
        except (BaseError, OSError) as error:
            raise _explain(error, self.url) from error

    def _bucket_there(self) -> bool:
        """False when it is the bucket that is missing, which the answer to HEAD does not tell."""
        if self._folder is not None:
            return True
        try:
            next(iter(obstore.list(self._store, "sha256", chunk_size=1)), None)
        except BaseError as error:
            return "NoSuchBucket" not in str(error)
        return True


def open_store(url: str, options: Mapping[str, Any], setting: str) -> obstore.store.ObjectStore:
    """The object store at this URL, opened with what the environment says (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...) and `options`.

    Raises:
        ConfigError: there is no such kind of store; names the setting.
    """
    given: dict[str, Any] = dict(options)
    endpoint = given.get("endpoint") or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT") or ""
    if url.startswith("s3://"):
        given.setdefault("region", os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1")
        if endpoint:
            given["endpoint"] = endpoint
    try:
        return from_url(url, config=given, client_options={"allow_http": endpoint.startswith("http://"), "timeout": "120s", "connect_timeout": "5s"},
                        retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=60)})
    except (BaseError, ValueError, TypeError) as error:
        raise ConfigError(f"Blobs can't be kept at {url!r}: {str(error).splitlines()[0]}.", "It is file:///folder, or an object store such as s3://bucket/prefix.",
                          f"Mend {setting} in davy.toml.") from error


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Our errors for an object store's; what is not there stays a FileNotFoundError."""
    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise _explain(error, where) from error
        raise
    except (BaseError, OSError) as error:
        raise _explain(error, where) from error


def _key(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise InvalidInput(f"{digest!r} is not a digest.", "A digest is sha256: and 64 hex digits.", "Check where it came from.")
    return f"sha256/{digest[7:9]}/{digest[7:]}"


def _scan(folder: Path) -> Iterator[Stored]:
    with suppress(FileNotFoundError):
        for shelf in sorted(entry.path for entry in os.scandir(folder)):
            for entry in list(os.scandir(shelf)):
                with suppress(FileNotFoundError):
                    found = entry.stat()
                    if _DIGEST.fullmatch(f"sha256:{entry.name}"):
                        yield Stored(f"sha256:{entry.name}", found.st_size, found.st_mtime_ns // 1000)


def _sweep(folder: Path) -> None:
    """Remove what killed processes left half-written a day ago and longer."""
    oldest = _UNIQUE.now() / 1e6 - ABANDONED_SECONDS
    with suppress(FileNotFoundError):
        for entry in list(os.scandir(folder)):
            with suppress(FileNotFoundError):
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
    found = _CODE.search(text)
    code = found[1] if found else "403 Forbidden" if isinstance(error, PermissionDeniedError) or "403 Forbidden" in text else ""
    if code == "NoSuchBucket":
        return Unavailable(f"There is no bucket for {where}.", "The bucket must exist before Davy starts.", "Make it, or mend storage.blobs in davy.toml.")
    if code in _REFUSED:
        return Unavailable(f"{where} refuses the credentials: {code}.", "They come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or storage.options.",
                           "Correct them, or what they are allowed to do.")
    return Unavailable(f"{where} failed: {text.splitlines()[0][:300] if text else type(error).__name__}.", "",
                       "Check that it can be reached and written, then try again.")
