"""Artifact roots that clients reach by themselves: folders and buckets that an experiment names as its own location.

The server reads from them what a page or another language's client asks it for, and only inside what `[tracking]
artifact_roots` allows: otherwise whoever may make an experiment could read every file of this machine.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec

from davy.errors import Forbidden, NotFound, Unavailable
from davy.tracking.records import Artifact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

T = TypeVar("T")
_PIECE, _FETCH = 1 << 20, 16 << 20


class Root(Protocol):
    """A folder of files. Paths are relative, with '/', without '..'."""

    def files(self, path: str) -> list[Artifact]:
        """What lies in the folder at `path`, by base name, in order. A folder that does not exist is empty, and so is a file."""

    def size(self, path: str) -> int | None:
        """The bytes of the file at `path`; None where there is no file."""

    def pieces(self, path: str, start: int, end: int) -> Iterator[bytes]:
        """Its bytes from `start` up to `end`."""


def open_root(uri: str, allowed: Sequence[str], options: Mapping[str, str]) -> Root:
    """The root at this URI: `file:///folder`, a folder, or an object store's, such as `s3://bucket/prefix`.

    Raises:
        Forbidden: it does not lie in one of the allowed ones.
    """
    folder = local_folder(uri)
    if folder is not None:
        roots = [place.resolve() for place in map(local_folder, allowed) if place is not None]
        if not any(folder.resolve().is_relative_to(root) for root in roots):
            raise _refused(uri)
        return LocalRoot(folder.resolve())
    if ".." in unquote(uri).split("/"):  # which the store's own address would follow
        raise _refused(uri)
    if not any(f"{uri.rstrip('/')}/".startswith(f"{place.rstrip('/')}/") for place in allowed if "://" in place and local_folder(place) is None):
        raise _refused(uri)
    return StoreRoot(uri, options)


def local_folder(uri: str) -> Path | None:
    """The folder that a `file:` URI or a path means; None for every other URI."""
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    return Path(uri) if uri.startswith("/") else None


class LocalRoot(msgspec.Struct, frozen=True):
    """A folder of this machine. A link that leads out of it leads to nothing."""

    folder: Path

    def files(self, path: str) -> list[Artifact]:
        place = self._inside(path)
        if place is None or not place.is_dir():
            return []
        found = []
        for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
            inside = self._inside(f"{path}/{entry.name}" if path else entry.name)
            if inside is not None and inside.exists():
                found.append(Artifact(entry.name, True) if inside.is_dir() else Artifact(entry.name, False, inside.stat().st_size))
        return found

    def size(self, path: str) -> int | None:
        place = self._inside(path)
        return place.stat().st_size if place is not None and place.is_file() else None

    def pieces(self, path: str, start: int, end: int) -> Iterator[bytes]:
        place = self._inside(path)
        if place is None:
            raise NotFound(f"No such artifact: {path!r}")
        try:
            with place.open("rb") as file:
                file.seek(start)
                while start < end and (piece := file.read(min(_PIECE, end - start))):
                    start += len(piece)
                    yield piece
        except OSError as error:
            raise Unavailable(f"{place} can't be read: {error.strerror}.", "", "Check the file.") from error

    def _inside(self, path: str) -> Path | None:
        place = (self.folder / path).resolve()
        return place if place.is_relative_to(self.folder) else None


class StoreRoot:
    """A folder of an object store."""

    def __init__(self, uri: str, options: Mapping[str, str]) -> None:
        from davy.store.shelves import open_store

        self._uri, self._store = uri, open_store(uri, options, "tracking.artifact_roots")

    def files(self, path: str) -> list[Artifact]:
        import obstore

        found = self._asked(lambda: obstore.list_with_delimiter(self._store, path or None))
        folders = [Artifact(name.rstrip("/").rsplit("/", 1)[-1], True) for name in found["common_prefixes"]]
        files = [Artifact(item["path"].rsplit("/", 1)[-1], False, item["size"]) for item in found["objects"] if item["path"] != path]
        return sorted((*folders, *files), key=lambda item: item.path)

    def size(self, path: str) -> int | None:
        import obstore

        try:
            return int(self._asked(lambda: obstore.head(self._store, path))["size"])
        except FileNotFoundError:
            return None

    def pieces(self, path: str, start: int, end: int) -> Iterator[bytes]:
        import obstore

        for begin in range(start, end, _FETCH):
            yield bytes(self._asked(partial(obstore.get_range, self._store, path, start=begin, end=min(begin + _FETCH, end))))

    def _asked(self, ask: Callable[[], T]) -> T:
        from davy.store.shelves import explained

        with explained(self._uri):
            return ask()


def _refused(uri: str) -> Forbidden:
    return Forbidden(f"The artifacts at {uri} are not the server's to read.", "It reads its own, and what lies in one of tracking.artifact_roots.",
                     "Add the folder or bucket to tracking.artifact_roots in davy.toml, or read it with the client.")
