"""Files over HTTP: safe paths, the headers of a download, parts of files, and bytes that stream in and out without filling memory."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import mimetypes
import os
import posixpath
import re
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, unquote, urlparse, urlunparse

import msgspec

from davy.core.clock import SystemClock
from davy.errors import DavyError, InvalidInput
from davy.protocols.mlflow.wire import MlflowError, invalid
from davy.tracking.records import check_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from davy.protocols.mlflow.api import Exchange
    from davy.store.blobs import Blobs
    from davy.store.incoming import Incoming

T = TypeVar("T")
BATCH = 1 << 20
WORKERS, MOST_DOWNLOADS = 8, 256
_UNIQUE = SystemClock()
_DRAIN = 256 << 20
_MOST_DECODINGS = 10
_TURNS = 200
_PATIENCE_SECONDS = 5.0
_SENDING = threading.BoundedSemaphore(MOST_DOWNLOADS)
_STALE_SECONDS = 3600
_TEXTS = frozenset(("txt", "log", "err", "cfg", "conf", "cnf", "cf", "ini", "properties", "prop", "hocon", "toml", "yaml", "yml", "xml", "json", "js", "py",
                    "py3", "csv", "tsv", "md", "rst", "ipynb", "MLmodel", "MLproject"))
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def safe_path(path: str) -> str:
    """The path that a request names, in normal form, empty for the root: percent-decoded until nothing changes, relative, inside.

    Control characters but NUL are written as %xx again, as MLflow's server does: names such as `loss%step%100%` mean themselves.
    """
    try:
        for _ in range(_MOST_DECODINGS):
            before, path = path, unquote(path)
            if "\0" in path:
                raise invalid("Invalid path")
            path = urlunparse(urlparse(path))
            if path == before:
                break
        else:
            raise invalid("Invalid path")
    except ValueError:
        raise invalid("Invalid path") from None
    path = "".join(f"%{ord(letter):02x}" if 0 < ord(letter) < 32 or ord(letter) == 127 else letter for letter in path)
    if "#" in path or ".." in path.split("/") or urlparse(path).scheme == "file":
        raise invalid("Invalid path")
    found = posixpath.normpath(path) if path else ""
    if found in ("", "."):
        return ""
    try:
        found.encode()
        return check_path(found)
    except (InvalidInput, UnicodeEncodeError):
        raise invalid("Invalid path") from None


def missing_artifact(path: str) -> MlflowError:
    """What is said of a file that is not there."""
    return MlflowError("RESOURCE_DOES_NOT_EXIST", f"No such artifact: '{path}'")


def is_folder(path: str) -> MlflowError:
    """What is said of a folder that is asked for as a file."""
    return invalid(f"Artifact path refers to a directory, not a file: '{path}'")


def content_type(path: str) -> str:
    """What a browser is told: whatever is text is plain text, and what nobody knows is bytes."""
    name = posixpath.basename(path)
    if (os.path.splitext(name)[1].replace(".", "") or name) in _TEXTS:
        return "text/plain"
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def disposition(name: str) -> str:
    """An attachment of that name (RFC 6266): for a name beyond ASCII an ASCII one first, then the real one (RFC 5987)."""
    if name.isascii():
        return f"attachment; filename={_quoted(name)}"
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode() or "download"
    return f"attachment; filename={_quoted(plain)}; filename*=UTF-8''{quote(name, safe='!#$&+-.^_`|~')}"


def _quoted(name: str) -> str:
    return name if _TOKEN.fullmatch(name) else '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def read_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last that a Range header asks for; None for the whole file: no header, several ranges, or another unit.

    Raises:
        ValueError: the range is not in the file.
    """
    found = _RANGE.fullmatch((header or "").strip().replace(" ", ""))
    if found is None or (not found[1] and not found[2]):
        return None
    if not found[1]:
        start, end = max(size - int(found[2]), 0), size
    else:
        start, end = int(found[1]), min(int(found[2]) + 1 if found[2] else size, size)
        if found[2] and int(found[2]) < int(found[1]):
            return None
    if start >= end:
        raise ValueError(header)
    return start, end


async def receive(exchange: Exchange, incoming: Incoming, most: int) -> tuple[str, int]:
    """Store the body as it comes; its digest and size. While a megabyte is written, the next one is read, and no more than these two are held.

    Raises:
        MlflowError: the body is larger than `most`, or the client went away before its end; then nothing is kept.
    """
    told = content_length(exchange)
    if told is not None and told > most:
        await drain(exchange)
        raise invalid(f"The artifact has {told} bytes; at most {most} are taken. Raise tracking.largest_artifact in davy.toml.")
    writing: asyncio.Future[None] | None = None
    try:
        async for piece in _batches(exchange):
            if writing is not None:
                await writing
            if told is None:
                await drain(exchange)
                raise invalid("The body came without Content-Length, so that its end can't be told from a broken connection. Send the length.")
            writing = start(incoming.write, piece)
        if writing is not None:
            await writing
        writing = None
        if incoming.size != (told or 0):
            raise MlflowError("BAD_REQUEST", f"The body ended after {incoming.size} of {told} bytes; nothing was kept.")
        return await start(incoming.finish)
    except DavyError:
        await drain(exchange)
        raise
    finally:
        if writing is not None:
            await asyncio.wait([writing])
        await asyncio.shield(start(incoming.drop))


async def _batches(exchange: Exchange) -> AsyncIterator[bytes]:
    """The body in pieces of about a megabyte."""
    held, size = [], 0
    while (piece := await _next(exchange.pieces)) is not None:
        held.append(piece)
        size += len(piece)
        if size >= BATCH:
            yield b"".join(held)
            held, size = [], 0
    if size:
        yield b"".join(held)


async def drain(exchange: Exchange) -> None:
    """Read and drop what a client still sends, so that it hears the answer, unless it is far too much, or the client waits for us."""
    size = 0
    with suppress(Exception):  # the client may have gone, or sent all, which is no news here
        while size <= _DRAIN and (piece := await asyncio.wait_for(_next(exchange.pieces), _PATIENCE_SECONDS)) is not None:
            size += len(piece)


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    """The next piece of a body; None at its end."""
    try:
        return await anext(pieces)
    except StopAsyncIteration:
        return None


class Source(msgspec.Struct, frozen=True):
    """A file to send.

    Attributes:
        name: its path, of which the client is told the last part.
        tag: what changes when the content does, if that is known.
        part: its bytes from a start up to an end.
        whole: all its bytes, verified before the last piece (default: as a part).
    """

    name: str
    size: int
    tag: str
    part: Callable[[int, int], Iterator[bytes]]
    whole: Callable[[], Iterator[bytes]] | None = None


def blob_source(blobs: Blobs, name: str, digest: str, size: int) -> Source:
    """A blob under a name."""
    return Source(name, size, f'"{digest}"', lambda start, end: blobs.stream_range(digest, start, end), lambda: blobs.stream(digest))


async def send(exchange: Exchange, source: Source) -> None:
    """Answer with a file, or with the part of it that the request asks for."""
    asked, size = exchange.scope.headers, source.size
    headers = [("content-type", content_type(source.name)), ("content-disposition", disposition(posixpath.basename(source.name))),
               ("x-content-type-options", "nosniff"), ("accept-ranges", "bytes"), *([("etag", source.tag)] if source.tag else ())]
    if source.tag and asked.get("if-none-match") == source.tag:
        exchange.protocol.response_empty(304, headers)
        return
    try:
        part = read_range(asked.get("range"), size) if asked.get("if-range") in (None, source.tag) else None
    except ValueError:
        exchange.answer(416, [*headers[2:], ("content-range", f"bytes */{size}")], b"")
        return
    if part is not None:
        begin, end = part
        await _stream(exchange, 206, [*headers, ("content-range", f"bytes {begin}-{end - 1}/{size}")], source.part(begin, end), end - begin)
    else:
        await _stream(exchange, 200, headers, source.part(0, size) if source.whole is None else source.whole(), size)


async def _stream(exchange: Exchange, status: int, headers: list[tuple[str, str]], pieces: Iterator[bytes], size: int) -> None:
    """Send the pieces as fast as the client takes them.

    Granian's own stream takes whatever it is given and holds it until the client comes for it: a gigabyte in memory. Of a file it reads
    only what it can send, and a pipe is a file. What fails before the first piece is an error; later, the connection breaks off.
    """
    first = await start(next, pieces, b"")
    if len(first) == size:
        exchange.answer(status, headers, first)
        return
    if not _SENDING.acquire(blocking=False):
        raise MlflowError("TEMPORARILY_UNAVAILABLE", f"{MOST_DOWNLOADS} large files are being sent at this moment. Try again.")
    pipe = _pipes(exchange.home.path) / _UNIQUE.token(16).hex()
    os.mkfifo(pipe, 0o600)
    threading.Thread(target=_pour, args=(pipe, first, pieces), name="download", daemon=True).start()
    exchange.protocol.response_file(status, [*headers, ("content-length", str(size))], str(pipe))


def _pour(pipe: Path, first: bytes, pieces: Iterator[bytes]) -> None:
    """Write the pieces into the pipe until they end or its reader goes away."""
    try:
        try:
            descriptor = _opened(pipe)
        finally:
            pipe.unlink()
        if descriptor is None:
            return
        with open(descriptor, "wb", buffering=0) as file:
            for piece in chain((first,), pieces):
                rest = memoryview(piece)
                while rest:
                    rest = rest[file.write(rest):]
    except BrokenPipeError:
        return  # the client has gone
    except DavyError as error:
        print(f"A download broke off. {error}", file=sys.stderr)
    finally:
        _SENDING.release()


def _opened(pipe: Path) -> int | None:
    """The pipe's end to write to, once the other end is open; None when nobody opens it."""
    for turn in range(_TURNS):
        try:
            descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            time.sleep(min(0.0005 * 2**turn, 0.1))
            continue
        os.set_blocking(descriptor, True)
        with suppress(OSError):
            fcntl.fcntl(descriptor, getattr(fcntl, "F_SETPIPE_SZ", 1031), BATCH)
        return descriptor
    return None


@cache
def _pipes(home: Path) -> Path:
    """The folder of pipes, without those that a killed process has left."""
    folder = home / "run" / "pipes"
    folder.mkdir(parents=True, exist_ok=True)
    for entry in folder.iterdir():
        with suppress(FileNotFoundError):
            if entry.stat().st_mtime < _UNIQUE.now() / 1e6 - _STALE_SECONDS:
                entry.unlink()
    return folder


def start(work: Callable[..., T], *given: object) -> asyncio.Future[T]:
    """Begin this on a thread for files."""
    return asyncio.get_running_loop().run_in_executor(_pool(), work, *given)


def content_length(exchange: Exchange) -> int | None:
    """The length that the client has announced."""
    text = exchange.scope.headers.get("content-length")
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 19 else None


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(WORKERS, thread_name_prefix="files")
