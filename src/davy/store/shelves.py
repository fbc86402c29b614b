"""Where blobs lie: in a local folder, or in an object store. A shelf knows keys and bytes; it raises FileNotFoundError for a key that is not there,
and otherwise what the disk or the store raises.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import msgspec
import obstore
from obstore.exceptions import BaseError, PermissionDeniedError
from obstore.store import S3Store, from_url

from davy.core.clock import SystemClock
from davy.errors import ConfigError, DavyError, StorageFull, Unavailable
from davy.store.incoming import Incoming, LocalIncoming, SpooledIncoming

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

PIECE = 1 << 20
INCOMING = "incoming"
ABANDONED_SECONDS = 86_400
_CLOCK = SystemClock()
_from_url: Callable[..., obstore.store.ObjectStore] = from_url  # whose types know each kind of store, but not that a setting may name any
_PART, _MOST_PARTS, _FETCH = 8 << 20, 9_000, 16 << 20
_HEX, _CODE = re.compile(r"[0-9a-f]{64}"), re.compile(r"<Code>(\w+)</Code>")
_REFUSED = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken", "InvalidToken", "403 Forbidden"}


class Stored(msgspec.Struct, frozen=True):
    """A blob as it lies there: when it was last put, in microseconds."""

    digest: str
    size: int
    modified: int


class Shelf(Protocol):
    """Bytes by key. A key is `sha256/` and the digest's hex digits below their first two."""

    def size(self, key: str) -> int:
        """How many bytes there are."""

    def pieces(self, key: str, start: int, end: int | None) -> Iterator[bytes]:
        """The bytes from `start` up to `end` (None: the last) in pieces."""

    def delete(self, keys: Sequence[str]) -> None:
        """Remove them. A key that is not there is passed over."""

    def listed(self) -> Iterator[Stored]:
        """All of them, in no order."""

    def incoming(self) -> Incoming:
        """Takes new bytes, which become visible under their key whole or not at all."""

    def where(self, key: str) -> str:
        """How messages call the place of a key."""

    def sign(self, key: str, seconds: int) -> str | None:
        """A URL by which anybody may read the bytes for so long, where there is such a thing."""


class LocalShelf:
    """Files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"The folder {folder} can't be made: {error.strerror}.", "It must be a folder that can be written.",
                              "Mend storage.blobs in davy.toml, or the folder.") from error
        _sweep(folder / INCOMING)

    def size(self, key: str) -> int:
        return (self._folder / key).stat().st_size

    def pieces(self, key: str, start: int, end: int | None) -> Iterator[bytes]:
        with (self._folder / key).open("rb") as file:
            file.seek(start)
            left = self.size(key) - start if end is None else end - start
            while left > 0 and (piece := file.read(min(PIECE, left))):
                left -= len(piece)
                yield piece

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            (self._folder / key).unlink(missing_ok=True)

    def listed(self) -> Iterator[Stored]:
        with suppress(FileNotFoundError):
            for shelf in sorted(entry.path for entry in os.scandir(self._folder / "sha256")):
                for entry in list(os.scandir(shelf)):
                    with suppress(FileNotFoundError):
                        found = entry.stat()
                        if _HEX.fullmatch(entry.name):
                            yield Stored(f"sha256:{entry.name}", found.st_size, found.st_mtime_ns // 1000)

    def incoming(self) -> Incoming:
        return LocalIncoming(self._folder / INCOMING, _CLOCK.token(16).hex(), self._arrive, lambda error: explain(error, f"file://{self._folder}"))

    def where(self, key: str) -> str:
        return str(self._folder / key)

    def sign(self, key: str, seconds: int) -> str | None:
        return None

    def _arrive(self, path: Path, digest: str) -> None:
        """Give a file that is on disk its name."""
        target = self._folder / key_of(digest)
        try:
            path.replace(target)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            _fsync(target.parent.parent)
            path.replace(target)
        _fsync(target.parent)


class ObjectShelf:
    """Objects in a store. They are fetched in ranges, each of which is tried again by itself.

    Args:
        spool: the folder of the temporary files through which bytes go there.
    """

    def __init__(self, url: str, options: Mapping[str, str], spool: Path | None) -> None:
        self._url, self._spool, self._store = url, spool, open_store(url, options, "storage.blobs")

    def size(self, key: str) -> int:
        with self._bucket():
            return self._size(key)

    def pieces(self, key: str, start: int, end: int | None) -> Iterator[bytes]:
        last = self.size(key) if end is None else end
        for begin in range(start, last, _FETCH):
            yield bytes(obstore.get_range(self._store, key, start=begin, end=min(begin + _FETCH, last)))

    def delete(self, keys: Sequence[str]) -> None:
        if keys:
            with suppress(FileNotFoundError):
                obstore.delete(self._store, list(keys))

    def listed(self) -> Iterator[Stored]:
        for chunk in obstore.list(self._store, "sha256", chunk_size=1000):
            for found in chunk:
                name = found["path"].rsplit("/", 1)[-1]
                if _HEX.fullmatch(name):
                    yield Stored(f"sha256:{name}", found["size"], int(found["last_modified"].timestamp() * 1e6))

    def incoming(self) -> Incoming:
        return SpooledIncoming(self._spool, self._send, lambda error: explain(error, self._url))

    def where(self, key: str) -> str:
        return f"{self._url}/{key}"

    def sign(self, key: str, seconds: int) -> str | None:
        return obstore.sign(self._store, "GET", key, timedelta(seconds=seconds)) if isinstance(self._store, S3Store) else None

    def _send(self, file: BinaryIO, size: int, digest: str) -> None:
        """Bring a spooled file to the store, unless it is there."""
        key = key_of(digest)
        with suppress(FileNotFoundError):  # where there is no bucket either, sending it tells so
            if self._size(key) == size:
                return
        file.seek(0)
        if size <= _PART:
            obstore.put(self._store, key, file.read(), use_multipart=False)
        else:
            obstore.put(self._store, key, file, chunk_size=max(_PART, size // _MOST_PARTS + 1), max_concurrency=4)

    def _size(self, key: str) -> int:
        return int(obstore.head(self._store, key)["size"])

    @contextmanager
    def _bucket(self) -> Iterator[None]:
        """Tell a missing bucket from a missing key, which the answer to HEAD does not."""
        try:
            yield
        except FileNotFoundError:
            next(iter(obstore.list(self._store, "sha256", chunk_size=1)), None)
            raise


def key_of(digest: str) -> str:
    """The key of a blob whose digest has been checked."""
    return f"sha256/{digest[7:9]}/{digest[7:]}"


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
        return _from_url(url, config=given, client_options={"allow_http": endpoint.startswith("http://"), "timeout": "120s", "connect_timeout": "5s"},
                        retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=60)})
    except (BaseError, ValueError, TypeError) as error:
        raise ConfigError(f"Blobs can't be kept at {url!r}: {str(error).splitlines()[0]}.", "It is file:///folder, or an object store such as s3://bucket/prefix.",
                          f"Mend {setting} in davy.toml.") from error


def explain(error: Exception, where: str) -> DavyError:
    """Our error for one of a disk or an object store."""
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


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Our errors for those of a disk or an object store; what is not there stays a FileNotFoundError."""
    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise explain(error, where) from error
        raise
    except (BaseError, OSError) as error:
        raise explain(error, where) from error


def _sweep(folder: Path) -> None:
    """Remove what killed processes left half-written a day ago and longer."""
    oldest = _CLOCK.now() / 1e6 - ABANDONED_SECONDS
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
